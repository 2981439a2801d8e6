"""What a search of k trials would have found: the best of k, drawn from the trials of a longer one.

>>> best = expected_best([3.0, 1.0, 2.0], [30.0, 10.0, 20.0], trials=2)
>>> round(best, 2)  # of the three pairs two hold the first and one does not: (30 + 30 + 20) / 3
26.67
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

from redense.search.space import SIDES

BUDGETS = (1, 2, 5, 10, 20, 40)
"""Numbers of trials that a picture shows."""


def expected_best(chosen_by: Sequence[float], judged_by: Sequence[float], trials: int) -> float:
    """Mean ``judged_by`` of the trial that is highest in ``chosen_by`` among ``trials`` drawn
    without replacement, over all draws.

    The trial of rank i (the best has 1) is the best of k out of n in C(n - i, k - 1) of the C(n, k)
    draws. Of equals the earlier one counts as better.
    """
    many = len(chosen_by)
    if len(judged_by) != many:
        raise ValueError(f"one score each is needed, got {many} and {len(judged_by)}")
    if not 1 <= trials <= many:
        raise ValueError(f"trials must lie in 1 to {many}, as many as there are, got {trials}")
    ranked = sorted(range(many), key=lambda trial: -chosen_by[trial])
    draws = comb(many, trials)
    return sum(
        judged_by[trial] * comb(many - rank, trials - 1) / draws
        for rank, trial in enumerate(ranked, start=1)
    )


def curve(
    chosen_by: Sequence[float], judged_by: Sequence[float], budgets: Sequence[int] = BUDGETS
) -> dict[int, float]:
    """`expected_best` for each number of trials that there are."""
    return {
        trials: expected_best(chosen_by, judged_by, trials)
        for trials in budgets
        if trials <= len(chosen_by)
    }


@dataclass(frozen=True)
class Judged:
    """A trial as the curve needs it: what it was chosen by, and what it is worth."""

    validation: float
    judged: float


@dataclass(frozen=True)
class Budget:
    """Score against tuning budget, for plans and for controls.

    Args:
        metric: what is judged, with its split: ``test top1``.
        usual: the customary setting's score, a search of no trials.
        curves: the expected score after so many trials, by side.
    """

    metric: str
    higher_is_better: bool
    usual: Mapping[str, float]
    curves: Mapping[str, Mapping[int, float]]

    @property
    def sentence(self) -> str:
        """From how many trials on the controls catch up."""
        sign = 1 if self.higher_is_better else -1
        plans, controls = ({0: self.usual[side], **self.curves[side]} for side in SIDES)
        budgets = sorted(plans.keys() & controls.keys())
        ahead = [trials for trials in budgets if sign * (plans[trials] - controls[trials]) > 0]
        most = budgets[-1]
        apart = f"{abs(plans[most] - controls[most]):.3g}"
        if not ahead:
            said = f"the controls do as well at every budget, {apart} better after {most}"
        elif most in ahead:
            said = f"the controls do not catch up: after {most} the plans are {apart} ahead"
        else:
            from_here = next(trials for trials in budgets if trials > ahead[-1])
            said = f"the controls have caught up from {from_here} on, {apart} better after {most}"
        return (
            f"Expected {self.metric} with as many trials for both: {said}. A search that ended "
            "there may find otherwise: later trials know the earlier ones."
        )


def budget(
    trials: Mapping[str, Sequence[Judged]],
    usual: Mapping[str, Judged],
    *,
    metric: str,
    higher_is_better: bool,
) -> Budget:
    """Of each side's trials, beside the customary setting, which stays where validation prefers no
    trial to it."""
    sign = 1 if higher_is_better else -1
    curves: dict[str, Mapping[int, float]] = {}
    for side in SIDES:
        start, mine = usual[side], trials[side]
        chosen_by = [sign * one.validation for one in mine]
        beaten = [sign * one.validation > sign * start.validation for one in mine]
        judged_by = [
            one.judged if better else start.judged for one, better in zip(mine, beaten, strict=True)
        ]
        budgets = sorted({*(many for many in BUDGETS if many < len(mine)), len(mine)} - {0})
        curves[side] = curve(chosen_by, judged_by, budgets)
    return Budget(metric, higher_is_better, {side: usual[side].judged for side in SIDES}, curves)
