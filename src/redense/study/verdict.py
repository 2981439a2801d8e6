"""The verdict in plain words: did a method help, by how much, how sure, at what cost, and which
method to pick.

    print(verdict(comparison, "dsd", epochs={"dense": 30, "lower_lr": 70, "dsd": 70}).answer)
    print(best_method(scores, simplest_first=("dense", "lower_lr", "dsd"), epochs=epochs).sentence)

Nothing here judges a number; it words what `redense.study.compare` found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from redense.study.compare import Comparison, Contrast, Outcome, Scores, check_scores, contrasts
from redense.study.convergence import Convergence
from redense.study.methods import kind_of, titled
from redense.study.stats import least_seeds


@dataclass(frozen=True)
class Verdict:
    """What ``contrast``, a method against the matched control, comes to.

    Args:
        claim: in one clause; ``reason`` is what it rests on.
        cost: the method's epochs over the control's.
        least_seeds: below them the outcome is ``too few seeds``.
    """

    method: str
    outcome: Outcome
    claim: str
    reason: str
    cost: float
    least_seeds: int
    contrast: Contrast

    @property
    def sentence(self) -> str:
        """``Dense-sparse-dense (dsd) helps: over 8 seeds ...``."""
        return f"{self.claim}: {self.reason}"

    @property
    def short_answer(self) -> str:
        """The page's question with a word or two: ``Does ... (dsd) help here? Not measurably``."""
        return f"Does {titled(self.method)} help here? {_ANSWERS[self.outcome]}"

    @property
    def answer(self) -> str:
        """The question, its answer and what it rests on."""
        return f"{self.short_answer}: {self.reason}"


_ANSWERS: Mapping[Outcome, str] = {
    "helps": "Yes",
    "hurts": "No, it hurts",
    "no measurable difference": "Not measurably",
    "unclear": "Unclear so far",
    "too few seeds": "These runs cannot say",
}


@dataclass(frozen=True)
class Choice:
    """The method to pick, None with too few seeds.

    ``best_mean`` has the best mean, ``candidates`` are it and those that cannot be told from it,
    the simplest first, ``contrasts`` sets every other method against it.
    """

    method: str | None
    sentence: str
    best_mean: str
    candidates: tuple[str, ...]
    contrasts: Mapping[str, Contrast]


@dataclass(frozen=True)
class _Terms:
    """How a sentence speaks of differences: in the metric's own direction and unit, with its
    confidence."""

    metric: str
    unit: str
    higher_is_better: bool
    confidence: float

    def interval(self, contrast: Contrast) -> str:
        """As in ``0.20 points lower to 0.14 points higher``, or ``0.21 to 0.63 points higher``."""
        (low, high), digits = contrast.difference.interval, decimals(contrast)
        if low < 0 < high:
            return f"{self.sized(low, digits)} to {self.sized(high, digits)}"
        near, far = sorted((low, high), key=abs)
        return f"{abs(near):.{digits}f} to {self.sized(far, digits)}"

    def sized(self, value: float, digits: int) -> str:
        direction = "higher" if (value >= 0) == self.higher_is_better else "lower"
        return f"{self.amount(value, digits)} {direction}"

    def amount(self, value: float, digits: int) -> str:
        return f"{abs(value):.{digits}f} {self.unit}".rstrip()

    @property
    def level(self) -> str:
        return f"{100 * self.confidence:g} % interval"


def verdict(
    comparison: Comparison,
    method: str,
    *,
    epochs: Mapping[str, float],
    metric: str = "accuracy",
    unit: str = "points",
) -> Verdict:
    """Word what ``method`` does against the matched control: it helps, hurts, or makes no
    measurable difference.

    ``epochs`` is what each method costs, ``unit`` is the metric's. With too few seeds the verdict
    is refused.
    """
    if method not in comparison.to_control:
        raise ValueError(
            f"no verdict on {method!r}: choose one of {', '.join(comparison.to_control)}"
        )
    contrast = comparison.to_matched[method]
    terms = _Terms(metric, unit, comparison.higher_is_better, comparison.confidence)
    least = least_seeds(contrast.comparisons, comparison.confidence)
    budget = _budget(method, contrast.reference, epochs)
    if contrast.outcome == "too few seeds":
        reason = _refusal(contrast, least, terms)
    else:
        reason = f"{_finding(contrast, terms)}, {budget}.{_doubts(contrast, least, terms)}"
        if comparison.baseline not in (method, contrast.reference):
            reason += _beside_baseline(
                comparison, method, _budget(method, comparison.baseline, epochs), terms
            )
    return Verdict(
        method,
        contrast.outcome,
        _claim(contrast),
        reason,
        epochs[method] / epochs[contrast.reference],
        least,
        contrast,
    )


def best_method(
    scores: Scores,
    *,
    simplest_first: Sequence[str],
    epochs: Mapping[str, float],
    higher_is_better: bool = True,
    confidence: float = 0.95,
    metric: str = "accuracy",
) -> Choice:
    """Of the methods that cannot be told from the one with the best mean, pick the first of
    ``simplest_first``.

    Only seeds that every method has are used, paired, with Holm's correction. That the data choose
    which mean is best is paid for: simulated with 3 to 8 equal methods and 8 to 10 seeds, any given
    one was shut out in at most 2.5 %.
    """
    check_scores(scores)
    if sorted(simplest_first) != sorted(scores):
        raise ValueError(
            f"simplest_first must name {', '.join(scores)} once each, got "
            f"{', '.join(simplest_first)}"
        )
    cost = {name: _epochs_of(name, epochs) for name in simplest_first}
    seeds = sorted(set.intersection(*(set(runs) for runs in scores.values())))
    if len(seeds) < 2:
        raise ValueError(
            f"all methods together share {len(seeds)} seed{'s' * (len(seeds) != 1)}, at least 2 "
            "are needed; run the missing ones"
        )
    shared = {name: {seed: scores[name][seed] for seed in seeds} for name in simplest_first}
    means = {name: math.fsum(runs.values()) / len(seeds) for name, runs in shared.items()}
    best = (max if higher_is_better else min)(means, key=means.__getitem__)
    against = partial(contrasts, shared, higher_is_better=higher_is_better, confidence=confidence)
    others = against(best)
    if better := [name for name in others if others[name].outcome == "helps"]:
        # one astray run gave the best mean: take what is measurably better
        best = max(better, key=lambda name: others[name].difference.mean)
        others = against(best)
    candidates = tuple(
        name for name in simplest_first if name == best or others[name].outcome != "hurts"
    )
    top = f"the {'highest' if higher_is_better else 'lowest'} mean {metric}, {_score(means[best])}"
    least = least_seeds(len(others), confidence)
    if len(seeds) < least:
        sentence = (
            f"Too few seeds ({len(seeds)}) to choose among {len(scores)} methods; run at least "
            f"{least}. "
            f"So far {titled(best)} has {top}, which may be luck."
        )
        return Choice(None, sentence, best, candidates, others)
    pick = candidates[0]
    rivals = _listed([f"{name} ({_score(means[name])})" for name in candidates if name != best])
    if not rivals:
        reason = f"it has {top}, and each of the other {len(others)} is measurably worse"
    elif pick == best:
        reason = f"it has {top}, and is simpler than what cannot be told from it, {rivals}"
    else:
        reason = (
            f"{titled(best)} has {top}, but cannot be told from {rivals}, and {pick} is the "
            "simplest of them"
        )
    sentence = (
        f"Pick {titled(pick)}, at {cost[pick]:g} epochs: {reason} (paired over the {len(seeds)} "
        f"seeds that all have, Holm's correction for {len(others)} comparisons)."
    )
    return Choice(pick, sentence, best, candidates, others)


def on_convergence(convergence: Convergence, *, control: str, metric: str, unit: str) -> str:
    """Whether the study speaks of the paper's claim, which is about a network that is trained out:
    ``The dense phase has converged: ...``, ``This study says nothing of the paper's claim``, or
    that the seeds do not settle it."""
    digits = max(1 - math.floor(math.log10(convergence.spread)), 0) if convergence.spread else 3
    direction = "improves" if convergence.gain >= 0 else "worsens"
    amount = f"{abs(convergence.gain):.{digits}f} {unit}".rstrip()
    change = f"{direction} by {amount} of {metric}"
    spread = f"{convergence.spread:.{digits}f}"
    if convergence.is_converged:
        return (
            f"The dense phase has converged: after it the control ({control}) {change}, where "
            f"seeds spread by {spread}."
        )
    if not convergence.still_gains:
        return (
            f"Whether the dense phase has converged, {len(convergence.gains)} seeds do not settle: "
            f"after it the control ({control}) {change}, where seeds spread by {spread}. Until "
            "more do, this study says nothing of the paper's claim."
        )
    return (
        "This study says nothing of the paper's claim, as its dense phase has not converged: after "
        f"it the control ({control}) still {change}, where seeds spread by {spread}. It compares "
        "methods at this budget alone; for more, train the dense phase longer."
    )


def _claim(contrast: Contrast) -> str:
    name = titled(contrast.method)
    if contrast.outcome == "too few seeds":
        return f"Too few seeds ({contrast.difference.n}) for a verdict on {name}"
    if contrast.method != name:  # an identifier keeps its letters
        name = name[0].upper() + name[1:]
    if contrast.outcome == "no measurable difference":
        return f"{name} makes no measurable difference"
    if contrast.outcome == "unclear":
        tends = "help" if contrast.difference.mean > 0 else "hurt"
        return f"{name} may {tends}, which these runs do not settle"
    return f"{name} {contrast.outcome}"


def _finding(contrast: Contrast, terms: _Terms) -> str:
    difference, interval, p = contrast.difference, terms.interval(contrast), _p(contrast)
    name = contrast.reference
    kind = kind_of(name)
    owner = f"{kind.title}’s" if kind else f"{name}’s"
    size = (
        f"{terms.sized(difference.mean, decimals(contrast))} than {owner}"
        if difference.mean
        else f"equal to {owner}"
    )
    mean = f"over {difference.n} seeds its mean {terms.metric} is {size}"
    if contrast.outcome == "too few seeds":
        return f"{mean} ({name}; {terms.level} {interval})"
    if contrast.outcome == "no measurable difference":
        return f"{mean} ({name}), but anything from {interval} fits these runs ({terms.level}; {p})"
    return f"{mean} ({name}; {terms.level} {interval}; {p})"


def _doubts(contrast: Contrast, least: int, terms: _Terms) -> str:
    difference = contrast.difference
    doubts = _left_out(contrast) + _outliers(contrast)
    if not difference.sd:
        doubts.append(
            "Every seed shows exactly the same difference: check that seed and method reach the "
            "run."
        )
    elif contrast.outcome == "unclear":
        doubts.append(
            "The signs alone would pass, but few seeds carry the mean: look at the single runs."
            if contrast.holm_p <= 1 - terms.confidence
            else "Zero lies outside the interval, but the corrected p does not pass: more seeds "
            "may settle it."
        )
    elif contrast.outcome == "no measurable difference":
        doubts += _seeds_it_would_take(contrast, least, terms)
    return "".join(f" {doubt}" for doubt in doubts)


def _seeds_it_would_take(contrast: Contrast, least: int, terms: _Terms) -> list[str]:
    """What the observed difference would need; nothing where it rounds to zero."""
    difference, digits = contrast.difference, decimals(contrast)
    needed = difference.seeds_needed or 0
    if needed <= difference.n or not round(difference.mean, digits):
        return []
    rounded = float(f"{max(needed, least):.2g}")  # the estimate deserves no more digits
    return [
        f"Were {terms.amount(difference.mean, digits)} the true difference, a single comparison "
        f"would need about {rounded:,.0f} seeds to show it four times in five."
    ]


def _refusal(contrast: Contrast, least: int, terms: _Terms) -> str:
    difference, m = contrast.difference, contrast.comparisons
    smallest = 2 / 2**difference.n
    corrected = (
        f", or {min(1.0, m * smallest):.2g} with Holm's correction for {m} comparisons"
        if m > 1
        else ""
    )
    return (
        f"even if every seed agreed, p could not fall below {smallest:.2g}{corrected}; run at "
        f"least {least} seeds. So far, {_finding(contrast, terms)}."
        + "".join(f" {doubt}" for doubt in _left_out(contrast))
    )


def _left_out(contrast: Contrast) -> list[str]:
    seeds = ", ".join(map(str, contrast.left_out))
    return [f"Left out, as only one of the two has them: seeds {seeds}."] if seeds else []


def _outliers(contrast: Contrast) -> list[str]:
    count = len(contrast.difference.tamed)
    if not count:
        return []
    return [
        f"{count} of {contrast.difference.n} differences lie{'s' * (count == 1)} far from the "
        "others and count only as far as ten median deviations: look at those runs."
    ]


def _beside_baseline(comparison: Comparison, method: str, budget: str, terms: _Terms) -> str:
    """What the baseline says, with the control beside it: a gain over the dense net is often the
    control's too."""
    reference = comparison.to_matched[method].reference
    contrast, control = comparison.to_baseline[method], comparison.to_baseline[reference]
    digits = decimals(contrast)
    return (
        f" Against {titled(comparison.baseline)}, {budget}, it is "
        f"{terms.sized(contrast.difference.mean, digits)} "
        f"({terms.level} {terms.interval(contrast)}); "
        f"{titled(reference)} alone is {terms.sized(control.difference.mean, digits)}."
    )


def _budget(method: str, reference: str, epochs: Mapping[str, float]) -> str:
    own, other = _epochs_of(method, epochs), _epochs_of(reference, epochs)
    if own == other:
        return f"at the same {own:g} epochs"
    if not other:
        return f"which trains no further, at {own:g} epochs"
    return f"at {own / other:.2g} times its epochs ({own:g} against {other:g})"


def _epochs_of(method: str, epochs: Mapping[str, float]) -> float:
    if not epochs.get(method, -1) >= 0:
        raise ValueError(
            f"epochs[{method!r}] must be at least 0, got {epochs.get(method)}; a verdict names its "
            "cost"
        )
    return epochs[method]


def _p(contrast: Contrast) -> str:
    p = f"p = {contrast.holm_p:.2g}" if contrast.holm_p >= 0.001 else "p < 0.001"
    return f"Holm {p} over {contrast.comparisons} comparisons" if contrast.comparisons > 1 else p


def decimals(contrast: Contrast) -> int:
    """Decimals that give the interval's half-width one or two significant digits, as the Particle
    Data Group rounds."""
    low, high = contrast.difference.interval
    size = (high - low) / 2 or abs(contrast.difference.mean)
    return min(max(1 - math.ceil(math.log10(size / 3.55)), 0), 12) if size else 0


def _score(mean: float) -> str:
    return f"{mean:#.4g}".rstrip(".")


def _listed(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
