"""The door to weights: tensors by key from any file, and into the network whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_PREFIXES = ("", "model.", "module.", "_orig_mod.")  # a run of ours, DataParallel, torch.compile
_POINTER = b"version https://git-lfs"


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by key of a .safetensors, .pt, .pth or .ckpt file; nothing but tensors is ever
    unpickled.

    Raises:
        FileNotFoundError, ValueError: no such file, or none that holds weights.
    """
    if not file.is_file():
        raise FileNotFoundError(f"weights {str(file)!r}: no such file")
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{file} only points to the weights; git lfs pull fetches them")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes surface as almost anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} is no whole checkpoint of plain tensors ({reason}); it is not loaded"
        ) from error
    if isinstance(content, Mapping):
        inner = [content.get(key) for key in ("state_dict", "model_state_dict", "model")]
        content = next((one for one in inner if isinstance(one, Mapping)), content)
        weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if weights:
            return weights
    raise ValueError(f"{file} holds no tensors by name")


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], source: str, name: str) -> None:
    """Copy ``weights`` in if keys and shapes are the network's own, else list what is not; nothing
    is guessed."""
    own = network.state_dict()
    prefix = max(_PREFIXES, key=lambda p: sum(p + key in weights for key in own))
    missing = [
        key
        for key in own
        if prefix + key not in weights and not key.endswith(".num_batches_tracked")
    ]
    unexpected = [
        key for key in weights if key.removeprefix(prefix) not in own or not key.startswith(prefix)
    ]
    shapes = [
        f"{key} {tuple(weights[prefix + key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if prefix + key in weights and weights[prefix + key].shape != tensor.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        told = "; ".join(
            f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in wrong.items() if keys
        )
        raise ValueError(f"{source} does not fit {name} with its {len(own)} tensors; {told}")
    network.load_state_dict({key: weights.get(prefix + key, tensor) for key, tensor in own.items()})


def _few(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
