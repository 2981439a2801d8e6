"""Every method of a study against a control and a baseline, paired over the seeds both have.

    comparison = compare(scores, control="lower_lr", baseline="dense")     # scores[method][seed]
    comparison.to_control["dsd"].difference.interval                       # (-0.12, 0.31), positive
    = dsd is better

Scores are the metric's own; a difference is oriented, so positive means better also where lower is
better.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from redense.study.stats import Difference, Summary, holm, least_seeds, paired_difference, summarize

Scores = Mapping[str, Mapping[int, float]]
"""One score a run: ``scores[method][seed]``."""

Outcome = Literal["helps", "no measurable difference", "unclear", "hurts", "too few seeds"]


@dataclass(frozen=True)
class Contrast:
    """A method against a reference, one of ``comparisons`` over which Holm's correction makes
    ``holm_p`` of the p.

    It ``helps`` or ``hurts`` where ``holm_p`` is at most 1 - confidence *and* the t interval leaves
    zero out, both of differences whose outliers are tamed (`paired_difference`); where only one of
    the two holds it is ``unclear``; there are ``too few seeds`` where no scores could do that
    (`least_seeds`).
    ``left_out`` are the seeds only one of the two has.
    """

    method: str
    reference: str
    difference: Difference
    comparisons: int
    holm_p: float
    outcome: Outcome
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Every method by itself, against the control, and against the baseline (the dense net).

    ``to_matched`` is ``to_control``, but of methods whose phases and rates are not the control's
    against a control that has them.
    """

    control: str
    baseline: str
    higher_is_better: bool
    confidence: float
    summaries: Mapping[str, Summary]
    to_control: Mapping[str, Contrast]
    to_baseline: Mapping[str, Contrast]
    to_matched: Mapping[str, Contrast]


def compare(
    scores: Scores,
    *,
    control: str,
    baseline: str,
    higher_is_better: bool = True,
    confidence: float = 0.95,
    matched: Mapping[str, str] | None = None,
    aside: Collection[str] = (),
) -> Comparison:
    """Set every method against ``control`` (the same phases with sparsity 0) and ``baseline`` (the
    dense net).

    Holm's correction runs over the methods of each column by itself.

    Args:
        matched: methods with a control of their own, by name: ``{"relearn": "full_lr"}``.
        aside: methods that nobody asks about against these two, and that Holm's correction must not
            count.
    """
    check_scores(scores, control, baseline)
    against = partial(
        contrasts,
        scores,
        higher_is_better=higher_is_better,
        confidence=confidence,
        aside=aside,
    )
    return Comparison(
        control=control,
        baseline=baseline,
        higher_is_better=higher_is_better,
        confidence=confidence,
        summaries={
            method: summarize(list(runs.values()), confidence) for method, runs in scores.items()
        },
        to_control=against(control),
        to_baseline=against(baseline),
        to_matched=against(control, own=matched or {}),
    )


def contrasts(
    scores: Scores,
    reference: str,
    *,
    higher_is_better: bool = True,
    confidence: float = 0.95,
    own: Mapping[str, str] | None = None,
    aside: Collection[str] = (),
) -> dict[str, Contrast]:
    """Every other method but those ``aside`` against ``reference``, or against its ``own``, with
    Holm's correction over them."""
    check_scores(scores, reference)
    references = {method: (own or {}).get(method, reference) for method in scores}
    differences = {}
    for method in scores:
        if method == reference or method in aside:
            continue
        shared = _shared_seeds(scores, method, references[method])
        differences[method] = paired_difference(
            [scores[method][s] for s in shared],
            [scores[references[method]][s] for s in shared],
            higher_is_better=higher_is_better,
            confidence=confidence,
        )
    corrected = holm([difference.p_value for difference in differences.values()])
    return {
        method: Contrast(
            method,
            references[method],
            difference,
            len(differences),
            p,
            _outcome(difference, len(differences), p, confidence),
            left_out=tuple(sorted(set(scores[method]) ^ set(scores[references[method]]))),
        )
        for (method, difference), p in zip(differences.items(), corrected, strict=True)
    }


def check_scores(scores: Scores, *needed: str) -> None:
    """Refuse a missing ``needed`` method, one with fewer than two seeds, and a score that is no
    finite number."""
    for method in needed:
        if method not in scores:
            raise ValueError(
                f"no method {method!r} in the scores; they hold {', '.join(scores) or 'nothing'}"
            )
    if len(scores) < 2:
        raise ValueError(
            f"a comparison needs at least two methods, got {', '.join(scores) or 'none'}"
        )
    for method, runs in scores.items():
        if len(runs) < 2:
            raise ValueError(
                f"{method} has {len(runs)} seed{'s' * (len(runs) != 1)}, at least 2 are "
                "needed; run more, or leave it out"
            )
        for run, value in runs.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{method}, seed {run}: the score is {value}; give a diverged run the metric's "
                    "worst value "
                    "(dropping it would flatter the method)"
                )


def _outcome(difference: Difference, comparisons: int, holm_p: float, confidence: float) -> Outcome:
    low, high = difference.interval
    if difference.n < least_seeds(comparisons, confidence):
        return "too few seeds"
    passes, leaves_zero_out = holm_p <= 1 - confidence, not low <= 0 <= high
    if not (passes or leaves_zero_out):
        return "no measurable difference"
    if not (passes and leaves_zero_out):
        return "unclear"
    return "helps" if low > 0 else "hurts"


def _shared_seeds(scores: Scores, method: str, reference: str) -> list[int]:
    shared = sorted(set(scores[method]) & set(scores[reference]))
    if len(shared) < 2:
        raise ValueError(
            f"{method} and {reference} share {len(shared)} seeds, pairing needs at least 2; they "
            "have "
            f"{sorted(scores[method])} and {sorted(scores[reference])}: run the missing ones, or "
            f"leave {method} out"
        )
    return shared
