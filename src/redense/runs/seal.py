"""One sum over everything that a checkpoint holds, so that one with a part removed or edited is
told from a whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128

from redense.tensors.sharded import shard_of

_KEY = "content_sum"
_PLAIN = (str, bool, int, float, complex, torch.dtype, torch.device)


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its sum beside it.

    >>> sorted(seal({"position": 3}))
    ['content_sum', 'position']
    """
    return {**content, _KEY: content_sum(content)}


def unseal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content that `seal` was given; one that was written before there were sums passes.

    Raises:
        ValueError: a part was added, removed or edited since.
    """
    parts = {name: value for name, value in content.items() if name != _KEY}
    if _KEY in content and content[_KEY] != content_sum(parts):
        raise ValueError("its parts are not those that it was written with")
    return parts


def content_sum(content: Any) -> str:
    """xxh3's 128 bits over names, kinds, shapes and bytes, in their order, however deep.

    >>> content_sum({"step": 1}) == content_sum({"step": 1.0})
    False

    Of a sharded tensor this rank's part counts. What is neither a tensor nor plain data counts by
    the name of its type.
    """
    digest = xxh3_128()
    _feed(digest, content)
    return digest.hexdigest()


def _feed(digest: xxh3_128, value: Any) -> None:
    if value is None or isinstance(value, _PLAIN):  # most of what there is, so asked first
        _name(digest, f"{_written(value)};")
    elif isinstance(value, Tensor):
        _name(digest, f"tensor {value.dtype} {tuple(value.shape)};")
        if not value.is_meta:
            digest.update(_bytes_of(value))
    elif isinstance(value, Mapping):
        _name(digest, f"table {len(value)};")
        for key, inner in value.items():
            _feed(digest, key)
            _feed(digest, inner)
    elif isinstance(value, (bytes, bytearray)):
        _name(digest, f"bytes {len(value)};")
        digest.update(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        _name(digest, f"list {len(value)};")
        for inner in value:
            _feed(digest, inner)
    elif isinstance(value, Set):
        _feed(digest, sorted(value, key=repr))
    else:
        _name(digest, f"{_written(value)};")


def _name(digest: xxh3_128, text: str) -> None:
    digest.update(text.encode(errors="surrogatepass"))


def _bytes_of(tensor: Tensor) -> Any:
    local = shard_of(tensor)[0].detach()
    if local.layout is not torch.strided:
        local = local.to_dense()
    if local.is_quantized:
        local = local.dequantize()
    plain = local.cpu().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _written(value: Any) -> str:
    if value is None or isinstance(value, (str, bool, complex, torch.dtype, torch.device)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, float):  # the built-in type first: abstract ones are slow
        return f"float {float(value)!r}"
    if isinstance(value, (int, Integral)):
        return f"int {int(value)}"
    if isinstance(value, Real):
        return f"float {float(value)!r}"
    return type(value).__name__
