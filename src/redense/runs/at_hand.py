"""What a training function has at hand, beside what it passes, that a checkpoint must hold: loaders
that shuffle by a generator of their own, averages of the weights."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch import Tensor

from redense.runs.generators import generator_of


def shuffled_loaders(frame: FrameType) -> Iterator[tuple[str, object]]:
    """The DataLoaders that a function has at hand and that shuffle by a generator of their own:
    their names and generators."""
    for name, value in _at_hand(frame).items():
        if (generator := generator_of(value)) is not None:
            yield name, generator


def averages(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The averages of a model that a function has at hand, torch's, timm's, torch_ema's,
    diffusers' and the like: their names and themselves."""
    for name, value in _at_hand(frame).items():
        kinds = {kind.__name__ for kind in type(value).__mro__}
        if kinds & _AVERAGES and callable(getattr(value, "state_dict", None)):
            yield name, value


def tensors_in(state: object) -> Iterator[Tensor]:
    """Those of a ``state_dict``, in its dicts and lists too.

    >>> len(list(tensors_in({"decay": 0.9, "shadow": [torch.zeros(2), torch.ones(1)]})))
    2
    """
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, (dict, list, tuple)):
        for inner in state.values() if isinstance(state, dict) else state:
            yield from tensors_in(inner)


_AVERAGES = {
    *("AveragedModel", "ModelEmaV2", "ModelEmaV3"),
    *("EMA", "EMAModel", "ExponentialMovingAverage"),
}
"""What classes of averages are called."""


def _at_hand(frame: FrameType) -> dict[str, Any]:
    """What a function's own names, and the globals that it uses, stand for now."""
    steps = dis.get_instructions(frame.f_code)
    used = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    around = {name: frame.f_globals[name] for name in used if name in frame.f_globals}
    return around | frame.f_locals
