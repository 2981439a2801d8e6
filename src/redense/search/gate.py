"""The gate before a search: is the network trained out, or does any further training help?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev

SEEDS = 2
"""Control seeds that the gate needs."""


class NotConvergedError(ValueError):
    """Going on as before still gains more than the spread: the plan would be judged by a control
    that is not trained out."""


@dataclass(frozen=True)
class Gate:
    """How much plain further training gains, by seed, and the scores' spread between seeds."""

    gains: Mapping[int, float]
    spread: float

    @property
    def is_converged(self) -> bool:
        """Unless every seed gains more than twice the spread. Of networks that gain nothing, with
        scores that are noise alone, 3.5 % are held up (simulated, normal noise, two seeds)."""
        return min(self.gains.values()) <= 2 * self.spread


def measure(
    first: Mapping[int, float], longer: Mapping[int, float], *, higher_is_better: bool
) -> Gate:
    """Of scores by seed, after the shared phase and after the whole budget without any change.

    The spread is the largest standard deviation over seeds of these scores and of their
    differences.
    """
    sign = 1 if higher_is_better else -1
    gains = {seed: sign * (longer[seed] - first[seed]) for seed in first}
    spread = max(stdev(scores.values()) for scores in (first, longer, gains))
    return Gate(gains, spread)


def check(gate: Gate, dense: int, epochs: int) -> None:
    """Raise `NotConvergedError` unless further training gains nothing that can be told from
    noise."""
    if gate.is_converged:
        return
    gain = mean(gate.gains.values())
    raise NotConvergedError(
        f"not converged: {epochs} more epochs without any change gain {gain:.3g} on validation, "
        f"more than twice the spread between seeds ({gate.spread:.2g}); use --dense "
        f"{dense + epochs} (dense={dense + epochs}), or go on with --anyway (anyway=True)"
    )
