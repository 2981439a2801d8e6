"""The plan's factor on top of the rate that a training sets by itself, for the trainers' callbacks.

A cosine at 0.05 and a phase with ``lr=0.1`` train at 0.005; after the step the optimizer shows 0.05
again, so that schedules which compute a rate from the last one do not see the factor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from .plan import Plan

Groups = Iterable[dict[str, Any]]


class Rates:
    """Multiply the rates of an optimizer's param groups, and put them back.

    >>> rates = Rates()
    >>> rates.apply(optimizer.param_groups, plan.lr_factor(0))
    >>> optimizer.step()
    >>> rates.restore()
    """

    def __init__(self) -> None:
        self._set: list[tuple[dict[str, Any], Any, Any]] = []

    def apply(self, groups: Groups, factor: float) -> None:
        """Multiply each group's rate by ``factor``. Applied twice, the second factor counts; a rate
        that was written in between is a new rate of the training's own."""
        for group in groups:
            rate = group["lr"]
            if rate is None:  # Adafactor computes its own
                continue
            for known, scheduled, used in self._set:
                if known is group and rate is used:
                    rate = scheduled
            self._set = [entry for entry in self._set if entry[0] is not group]
            group["lr"] = rate * factor
            self._set.append((group, rate, group["lr"]))

    def restore(self) -> None:
        """Put back every rate that still is what `apply` made it."""
        for group, scheduled, used in self._set:
            if group["lr"] is used:
                group["lr"] = scheduled
        self._set = []


def follows(schedule: Any, factor: Any) -> bool:
    """Whether a schedule already is ``LambdaLR(optimizer, plan.lr_factor)``, or is made of it."""
    parts = getattr(schedule, "_schedulers", [])
    return factor in getattr(schedule, "lr_lambdas", []) or any(
        follows(part, factor) for part in parts
    )


def warn_of_own_rates(plan: Plan, groups: Groups) -> None:
    """Say so where an optimizer computes its rates by itself, as Adafactor does with relative
    steps: a plan's factors do nothing there."""
    if all(phase.lr == 1 and phase.decay == "constant" for phase in plan):
        return
    if any(group["lr"] is None or group.get("relative_step") for group in groups):
        warnings.warn(
            "the optimizer computes its own rates (lr=None or relative_step=True), so the plan's "
            "factors of the rate do nothing; pass lr=1e-3 and relative_step=False if they shall",
            stacklevel=3,
        )
