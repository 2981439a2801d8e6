"""What a search of k trials would have found: the best of k, drawn from the trials of a longer one.

>>> best = expected_best([3.0, 1.0, 2.0], [30.0, 10.0, 20.0], trials=2)
>>> round(best, 2)  # of the three pairs two hold the first and one does not: (30 + 30 + 20) / 3
26.67
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from random import Random

from redense.search.space import SIDES

BUDGETS = (1, 2, 5, 10, 20, 40)
"""Numbers of trials that a picture shows."""
FEW = 5
"""As many as somebody tries who does not want to tune."""


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
    shares = _shares(many, trials)
    return sum(judged_by[trial] * share for trial, share in zip(ranked, shares, strict=True))


def _shares(many: int, trials: int) -> list[float]:
    """In which share of all draws the trial of each rank is the best."""
    draws = comb(many, trials)
    return [comb(many - rank, trials - 1) / draws for rank in range(1, many + 1)]


def curve(
    chosen_by: Sequence[float], judged_by: Sequence[float], budgets: Sequence[int] = BUDGETS
) -> dict[int, float]:
    """`expected_best` for each number of trials that there are."""
    return {
        trials: expected_best(chosen_by, judged_by, trials)
        for trials in budgets
        if trials <= len(chosen_by)
    }


def exchanged(
    plans: Sequence[tuple[float, float]],
    controls: Sequence[tuple[float, float]],
    trials: int,
    rounds: int = 9_999,
) -> float:
    """How often `expected_best` of the two sides is as far apart when their trials change sides at
    random: the p-value of a two-sided permutation test, at least 1 / (rounds + 1).

    Its null hypothesis is that it does not matter which side a trial is drawn from. It speaks of
    draws of trials, on the seeds that they had.

    Args:
        plans, controls: (chosen by, judged by) of each trial.
    """
    pooled = [(*trial, True) for trial in plans] + [(*trial, False) for trial in controls]
    pooled.sort(key=lambda trial: -trial[0])
    sides = [is_plan for _, _, is_plan in pooled]
    shares = {True: _shares(len(plans), trials), False: _shares(len(controls), trials)}

    def apart() -> float:
        left = {side: iter(listed) for side, listed in shares.items()}
        expected = {True: 0.0, False: 0.0}
        for (_, judged, _), side in zip(pooled, sides, strict=True):
            expected[side] += judged * next(left[side])
        return abs(expected[True] - expected[False])

    seen, draw, as_far = apart(), Random(0), 0
    for _ in range(rounds):
        draw.shuffle(sides)
        as_far += apart() >= seen * (1 - 1e-12)
    return (as_far + 1) / (rounds + 1)


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
        p_values: of the sides' difference after so many trials, by `exchanged`.
    """

    metric: str
    higher_is_better: bool
    usual: Mapping[str, float]
    curves: Mapping[str, Mapping[int, float]]
    p_values: Mapping[int, float]

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
        return f"Expected {self.metric} with as many trials for both: {said}.{self._few}"

    @property
    def _few(self) -> str:
        """What the most trials up to five are worth."""
        few = [trials for trials in self.p_values if trials <= FEW]
        if not few:
            return ""
        plans, controls = (self.curves[side][few[-1]] for side in SIDES)
        better = "plans" if (plans > controls) == self.higher_is_better else "controls"
        p_value = self.p_values[few[-1]]
        said = f"p {p_value:.2g}" if p_value >= 0.001 else "p < 0.001"
        return (
            f" After {few[-1]} the {better} are {abs(plans - controls):.3g} ahead ({said}, by "
            "exchanging trials between the sides)."
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
    pairs: dict[str, list[tuple[float, float]]] = {}
    for side in SIDES:
        start, mine = usual[side], trials[side]
        chosen_by = [sign * one.validation for one in mine]
        beaten = [sign * one.validation > sign * start.validation for one in mine]
        judged_by = [
            one.judged if better else start.judged for one, better in zip(mine, beaten, strict=True)
        ]
        budgets = sorted({*(many for many in BUDGETS if many < len(mine)), len(mine)} - {0})
        curves[side] = curve(chosen_by, judged_by, budgets)
        pairs[side] = list(zip(chosen_by, judged_by, strict=True))
    plans, controls = (pairs[side] for side in SIDES)
    both = [trials for trials in curves[SIDES[0]] if trials in curves[SIDES[1]]]
    return Budget(
        metric=metric,
        higher_is_better=higher_is_better,
        usual={side: usual[side].judged for side in SIDES},
        curves=curves,
        p_values={trials: exchanged(plans, controls, trials) for trials in both},
    )
