"""How sparse a checkpoint is: zeros per tensor of any file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from redense.files.typed import TABLE, read_json
from redense.files.weights import read_weights
from redense.runs.folder import RunFolder

WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin")
"""What a folder keeps its weights in, or in the parts that this name's index lists."""


@dataclass(frozen=True)
class TensorZeros:
    """One tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    numel: int
    zeros: int


def inspect(path: Path) -> list[TensorZeros]:
    """Exact zeros in every floating-point tensor of a file of weights, of a run's newest
    checkpoint, of an export or of a Hugging Face checkpoint, in parts too.

    >>> inspect(Path("hub"))[0].name
    'classifier.bias'

    Raises:
        FileNotFoundError, ValueError: no such file, or not one that holds weights.
    """
    counted = []
    for file in _files_of(path) if path.is_dir() else [path]:
        for name, tensor in read_weights(file).items():
            if tensor.is_floating_point():
                counted.append(_count(name, tensor))
    if not counted:
        raise ValueError(f"{path} holds no floating-point tensor")
    return counted


def _count(name: str, tensor: Tensor) -> TensorZeros:
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    return TensorZeros(name, shape, dtype, tensor.numel(), int((tensor == 0).sum()))


def _files_of(folder: Path) -> list[Path]:
    """A run's newest checkpoint, or the weights that an export, a finished run of a function or a
    Hugging Face checkpoint keeps."""
    newest = RunFolder(folder).newest() if (folder / "checkpoints").is_dir() else None
    if newest is not None:
        return [newest[0]]
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = read_json(index, TABLE).get("weight_map")
            if not isinstance(parts, dict) or not all(isinstance(p, str) for p in parts.values()):
                raise ValueError(f"{index} has no weight_map from tensors to files")
            return [folder / part for part in sorted(set(parts.values()))]
    raise FileNotFoundError(f"{folder} has no checkpoint yet, and no {' or '.join(WEIGHTS)}")
