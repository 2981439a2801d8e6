"""What a training function has beside model and optimizer that a checkpoint must hold, so that a
resumed or a branched run goes on as if it had never stopped: random generators, averages."""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader


class Drawn:
    """The state of a generator, torch's or NumPy's.

    >>> generator = torch.Generator().manual_seed(0)
    >>> kept = Drawn(generator).state_dict()
    >>> first = torch.rand(1, generator=generator)
    >>> Drawn(generator).load_state_dict(kept)
    >>> bool(first == torch.rand(1, generator=generator))
    True
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        if isinstance(self.generator, torch.Generator):
            return {"state": self.generator.get_state()}
        return {"state": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        if isinstance(self.generator, torch.Generator):
            self.generator.set_state(state["state"])
        else:
            self.generator.bit_generator.state = state["state"]


def is_generator(value: object) -> bool:
    """Whether it is torch's or NumPy's."""
    return isinstance(value, torch.Generator) or hasattr(value, "bit_generator")


def generator_of(loader: object) -> object | None:
    """What a DataLoader shuffles by; None for torch's own generator, which each epoch seeds."""
    if not isinstance(loader, DataLoader):
        return None
    batches = getattr(loader.batch_sampler, "sampler", None)
    found = (getattr(one, "generator", None) for one in (loader.sampler, batches))
    return next((one for one in found if one is not None), None)


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
