"""What a search of k trials would have found: the best of k, drawn from the trials of a longer one.

>>> best = expected_best([3.0, 1.0, 2.0], [30.0, 10.0, 20.0], trials=2)
>>> round(best, 2)  # of the three pairs two hold the first and one does not: (30 + 30 + 20) / 3
26.67
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

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
