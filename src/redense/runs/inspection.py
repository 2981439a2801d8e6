"""How sparse a checkpoint is: zeros per tensor of any file of weights."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

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
    """Count exact zeros in every floating-point tensor of a .pt, .ckpt or .safetensors file, or of
    a run's newest one.

    Raises:
        FileNotFoundError, ValueError: no such file, or not one that holds weights.
    """
    if path.is_dir():
        newest = RunFolder(path).newest()
        if newest is None:
            raise FileNotFoundError(f"{path} has no checkpoint yet")
        path = newest[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    found = [
        TensorZeros(
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.numel(),
            zeros,
        )
        for name, tensor in _tensors(path)
        if tensor.is_floating_point() and (zeros := int((tensor == 0).sum())) >= 0
    ]
    if not found:
        raise ValueError(f"{path} holds no floating-point tensor")
    return found


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from error
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is no checkpoint, or holds more than plain tensors; it is not loaded"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is no whole checkpoint: {str(error).partition(chr(10))[0]}"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    yield from _walk(content, "")


def _walk(content: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _walk(value, f"{prefix}{key}.")
