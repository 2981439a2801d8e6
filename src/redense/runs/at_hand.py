"""What a training function has at hand, beside what it passes, that a checkpoint must hold: loaders
that shuffle by a generator of their own, averages of the weights."""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, FunctionType
from typing import Any

from torch import Tensor, nn

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


def held_by(values: Iterable[object], depth: int = 5) -> set[int]:
    """The ids of some objects and of what they hold as attributes, in lists and in dicts: what a
    wrapper's ``state_dict`` may save.

    >>> class Wrapper: ...
    >>> wrapper, average = Wrapper(), [1.0]
    >>> wrapper.parts = {"average": average}
    >>> id(average) in held_by([wrapper])
    True

    Args:
        depth: of objects, lists and dicts within each other.
    """
    found: dict[int, object] = {}
    level = list(values)
    for _ in range(depth):
        new = {id(one): one for one in level if not isinstance(one, _PLAIN)}
        level = [inner for key, one in new.items() if key not in found for inner in _parts(one)]
        found |= new
    return set(found)


def _parts(whole: object) -> Iterator[object]:
    yield from vars(whole).values() if hasattr(whole, "__dict__") else ()
    if isinstance(whole, nn.Module):
        yield from whole.modules()
    elif isinstance(whole, Mapping):
        yield from whole.values()
    elif isinstance(whole, (list, tuple)):
        yield from whole


_PLAIN = (type, FunctionType, Tensor, str, bytes, int, float, complex, type(None))
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
