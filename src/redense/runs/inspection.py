"""How sparse a checkpoint is: zeros per tensor of any file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from redense.files.weights import read_weights
from redense.runs.folder import RunFolder


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
    checkpoint, or of an export.

    >>> inspect(Path("hub"))[0].name
    'classifier.bias'

    Raises:
        FileNotFoundError, ValueError: no such file, or not one that holds weights.
    """
    file = _file_of(path) if path.is_dir() else path
    counted = [
        TensorZeros(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel(),
            int((tensor == 0).sum()),
        )
        for name, tensor in read_weights(file).items()
        if tensor.is_floating_point()
    ]
    if not counted:
        raise ValueError(f"{file} holds no floating-point tensor")
    return counted


def _file_of(folder: Path) -> Path:
    """A run's newest checkpoint, or the weights that an export or a finished run of a function
    keeps."""
    newest = RunFolder(folder).newest() if (folder / "checkpoints").is_dir() else None
    if newest is not None:
        return newest[0]
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} has no checkpoint yet, and no model.safetensors")
    return weights
