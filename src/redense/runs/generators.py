"""Random generators of the user's own, which a checkpoint must hold: a resumed or a branched run
draws on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
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
