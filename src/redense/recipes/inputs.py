"""What a trained network is asked about, one input or several, from a file or from memory; and how
well it answered."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import torch
from PIL import Image
from torch import nn

Picture = str | Path | Image.Image
Input = TypeVar("Input")


class Scores(dict[str, float]):
    """Scores by name; as text a line each."""

    def __str__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:{width}}  {value:.2f}" for name, value in self.items())


def as_list(inputs: Input | Sequence[Input]) -> list[Input]:
    """``"a.png"`` and ``["a.png"]`` are both ``["a.png"]``."""
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def as_file(picture: Picture) -> Path | IO[bytes]:
    """A picture in memory as a file, for there is one reader of pictures."""
    if not isinstance(picture, Image.Image):
        return Path(picture)
    file = io.BytesIO()
    picture.save(file, "TIFF")
    file.seek(0)
    return file


@contextmanager
def answering(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients; then as it was."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(training)
