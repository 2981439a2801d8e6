"""The door to weights: tensors by name, of whatever file holds them; every error names the file."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_LFS = b"version https://git-lfs"
_DIRECTORY = 0x10  # of a zip entry's MS-DOS attributes
_PREFIXES = ("", "model.", "module.", "_orig_mod.")  # a run of ours, DataParallel, torch.compile


class BadWeightsError(ValueError):
    """A file that holds no whole weights; ``reason`` says why."""

    def __init__(self, file: Path, reason: object) -> None:
        self.reason = str(reason).strip().partition("\n")[0]
        super().__init__(f"{file} is no whole checkpoint of plain tensors: {self.reason}")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by name of a .safetensors, .pt, .pth, .bin or .ckpt file, on the CPU.

    >>> len(read_weights(Path("hub/model.safetensors")))
    26

    Nothing but tensors is ever unpickled. Of a training's checkpoint the network's tensors are
    read, whatever lies beside them.

    Raises:
        FileNotFoundError: no such file.
        BadWeightsError: it is cut off, a git-lfs pointer, something else, or without tensors.
    """
    weights = dict(_tensors(read_checkpoint(file), ""))
    if not weights:
        raise BadWeightsError(file, "it holds no tensors by name")
    return weights


def read_checkpoint(file: Path) -> Any:
    """What a file of weights holds, after each entry of torch's archive has matched its checksum.

    Raises:
        FileNotFoundError, BadWeightsError: as `read_weights`.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    with file.open("rb") as opened:
        start = opened.read(len(_LFS))
    if not start:
        raise BadWeightsError(file, "it is empty")
    if start == _LFS:
        raise BadWeightsError(file, "it is git-lfs's pointer to them; 'git lfs pull' fetches them")
    try:
        if file.suffix == ".safetensors" or start[8:9] == b"{":
            return load_file(file)
        if start.startswith(b"PK"):
            _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        reason = "it is something else, or holds more than tensors, and is not loaded"
        raise BadWeightsError(file, reason) from error
    except SafetensorError as error:
        raise BadWeightsError(file, f"{error}; it may be cut off") from error
    except Exception as error:  # a byte that changed surfaces as almost anything
        text = str(error) if " " in str(error) else "it is something else, or damaged"
        raise BadWeightsError(file, text) from error


def load_exactly(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    name: str,
    *,
    leave: Collection[str] = (),
) -> None:
    """Copy ``weights`` of ``source`` into the network called ``name``.

    Args:
        leave: tensors of the network that stay as they are, and of the source those called alike.

    Raises:
        ValueError: as `check_exactly`.
    """
    own, given = _without(network.state_dict(), leave), _without(weights, leave)
    prefix = check_exactly(own, given, source, name)
    loaded = {key: given.get(prefix + key, tensor) for key, tensor in own.items()}
    network.load_state_dict({**network.state_dict(), **loaded})


def fits(network: nn.Module, weights: Mapping[str, Tensor], *, leave: Collection[str] = ()) -> bool:
    """Whether `load_exactly` takes them."""
    try:
        check_exactly(_without(network.state_dict(), leave), _without(weights, leave), "", "")
    except ValueError:
        return False
    return True


def _without(weights: Mapping[str, Tensor], leave: Collection[str]) -> dict[str, Tensor]:
    left = {prefix + key for prefix in _PREFIXES for key in leave}
    return {key: tensor for key, tensor in weights.items() if key not in left}


def check_exactly(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str, name: str
) -> str:
    """The prefix under which ``weights`` of ``source`` are those of the network called ``name``.

    Raises:
        ValueError: keys or shapes are not the network's own; what is not is listed, for nothing is
            guessed.
    """
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
    return prefix


def _check_archive(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        if (broken := archive.testzip()) is not None:
            raise BadWeightsError(file, f"{broken} does not match its checksum")
        for entry in archive.infolist():
            # no checksum covers this bit, and torch leaves a directory's values unset
            if entry.external_attr & _DIRECTORY:
                raise BadWeightsError(file, f"{entry.filename} is marked as a directory")


def _tensors(content: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """By dotted names; of a checkpoint the part that is the network."""
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        if content.keys() >= {"state", "param_groups"}:
            return  # an optimizer's
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                yield from _tensors(content[key], prefix)
                return
        for key, value in content.items():
            yield from _tensors(value, f"{prefix}{key}.")


def _few(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
