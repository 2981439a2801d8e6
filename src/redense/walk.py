"""What both trainers' callbacks are given and what they say, checked and worded once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from .optimizers import Optimizers, optimizers_in
from .plan import Plan, in_percent
from .prunable import Patterns, patterns, prunable
from .rates import warn_of_own_rates
from .scheduler import PhaseScheduler

Unit = Literal["epoch", "step"]


@dataclass(frozen=True)
class Walk:
    """A plan, what it counts and which weights it may hold.

    >>> walk = Walk(plan, "epoch", include="layer1.*")
    >>> walk.check_length(len(plan), f"max_epochs={len(plan)}")
    >>> phases = walk.open(model, optimizer)
    """

    plan: Plan
    unit: Unit = "epoch"
    include: Patterns | None = None
    exclude: Patterns | None = None
    averages: Iterable[nn.Module] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.plan, Plan):
            raise TypeError(
                f"plan must be a redense.Plan, got {type(self.plan).__name__}; "
                "redense.dsd(30, 20, 20) makes one"
            )
        if self.unit not in ("epoch", "step"):
            raise ValueError(f"unit must be 'epoch' or 'step', got {self.unit!r}")
        object.__setattr__(self, "include", patterns("include", self.include))
        object.__setattr__(self, "exclude", patterns("exclude", self.exclude))
        object.__setattr__(self, "averages", tuple(self.averages))

    def check_length(self, limit: int, remedy: str) -> None:
        """Refuse a training that would stop before the plan does."""
        if limit < len(self.plan):
            raise ValueError(
                f"the plan has {len(self.plan)} {self.unit}s but the Trainer stops after {limit}, "
                f"in phase {self.plan.at(limit).name!r}; pass {remedy} or a shorter plan"
            )

    def open(self, model: nn.Module, optimizer: Optimizers) -> PhaseScheduler:
        """The scheduler at the plan's beginning."""
        for one in optimizers_in(optimizer):
            warn_of_own_rates(self.plan, one.param_groups)
        return PhaseScheduler(
            model,
            optimizer,
            self.plan,
            include=self.include,
            exclude=self.exclude,
            averages=self.averages,
        )

    def preview(self, model: nn.Module) -> str:
        """The table of what may be held, and the plan, for the trainer's log; of a plan that holds
        nothing no table."""
        if not any(phase.sparsity for phase in self.plan):
            return str(self.plan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scheduler has said them
            weights = prunable(model, self.include, self.exclude)
        return f"{weights.preview(self.plan)}\n{self.plan}"

    def seek(self, phases: PhaseScheduler, step: int) -> str:
        """Go to ``step``, or to the plan's end if that is before; what there is to log about it."""
        before, held = phases.phase, phases.held
        phases.seek(min(step, len(self.plan)))
        phase = phases.phase
        if phase is before:
            return ""
        news = f"{phase.name} from {self.unit} {step}: {in_percent(phase.sparsity)} held at 0"
        if held is None:
            return news
        released = sum(pruned for pruned, _ in held.counts().values())
        return f"{news}, {released:,} weights released"
