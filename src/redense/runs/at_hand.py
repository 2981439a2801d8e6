"""What a training function has at hand, beside what it passes, that a checkpoint must hold: loaders
that shuffle by a generator of their own, averages of the weights."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import FrameType
from typing import Any

from redense.runs.generators import generator_of


def shuffled_loaders(frame: FrameType) -> Iterator[tuple[str, object]]:
    """The DataLoaders that a function has at hand and that shuffle by a generator of their own:
    their names and generators."""
    for name, value in _at_hand(frame).items():
        if (generator := generator_of(value)) is not None:
            yield name, generator


def averages(frame: FrameType) -> Iterator[tuple[str, object]]:
    """The averages of a model that a function has at hand, torch's, timm's, torch_ema's,
    diffusers' and the like: their names and themselves."""
    for name, value in _at_hand(frame).items():
        kinds = {kind.__name__ for kind in type(value).__mro__}
        if kinds & _AVERAGES and callable(getattr(value, "state_dict", None)):
            yield name, value


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
