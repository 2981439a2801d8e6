"""What a trained network is asked about, one input or several, from a file or from memory; and how
well it answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Input = TypeVar("Input")


class Scores(dict[str, float]):
    """Scores by name; as text a line each."""

    def __str__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:{width}}  {value:.2f}" for name, value in self.items())


def choose_split(splits: Mapping[str, Sized], wanted: str | None, data: str) -> str:
    """Which part of ``data`` a network is scored on: ``wanted``, else test where there is one, else
    valid, else train.

    >>> choose_split({"train": [1, 2], "valid": [3], "test": []}, None, "pets")
    'valid'

    Raises:
        ValueError: there is no such part, or nothing in it.
    """
    there = [name for name in ("test", "valid", "train") if len(splits.get(name, ()))]
    if not there:
        raise ValueError(f"data {data!r} has nothing to score")
    if wanted is not None and wanted not in there:
        raise ValueError(f"data {data!r} has no split {wanted!r}; it has {', '.join(there)}")
    return wanted or there[0]


def as_list(inputs: Input | Sequence[Input]) -> list[Input]:
    """``"a.png"`` and ``["a.png"]`` are both ``["a.png"]``."""
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


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
