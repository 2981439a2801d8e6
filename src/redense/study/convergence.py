"""Is a network trained out, or does any further training help? Only where it is can a sparse phase
be the reason of a gain, and only there does a study speak of the paper's claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Convergence:
    """How much plain further training gains, by seed, and the scores' spread between seeds."""

    gains: Mapping[int, float]
    spread: float

    @property
    def gain(self) -> float:
        """Mean over seeds, positive where further training is better."""
        return mean(self.gains.values())

    @property
    def is_converged(self) -> bool:
        """Whether it gains no more than the spread; scores that are all the same, as at a metric's
        floor, tell nothing."""
        return self.gain <= self.spread and self.spread > 0

    @property
    def still_gains(self) -> bool:
        """Whether the gain, less two standard errors, is more than the spread; where a network has
        neither converged nor clearly gains, its seeds do not settle which.

        Of networks that gain nothing, with scores that are noise alone, 6 % are held up with two
        seeds, 0.1 % with six; of those that gain three times the noise of a score 56 and 72 %
        (simulated, normal noise).
        """
        error = stdev(self.gains.values()) / math.sqrt(len(self.gains))
        return self.gain - 2 * error > self.spread


def measure(
    first: Mapping[int, float], longer: Mapping[int, float], *, higher_is_better: bool
) -> Convergence:
    """Of scores by seed, after the dense phase and after further training with nothing held; seeds
    that only one of them has are left out.

    The spread is the largest standard deviation over seeds of these scores and of their
    differences.

    >>> measure({0: 80.0, 1: 80.2}, {0: 86.1, 1: 86.5}, higher_is_better=True).is_converged
    False
    """
    sign = 1 if higher_is_better else -1
    seeds = sorted(first.keys() & longer.keys())
    gains = {seed: sign * (longer[seed] - first[seed]) for seed in seeds}
    before = [first[seed] for seed in seeds]
    after = [longer[seed] for seed in seeds]
    spread = max(stdev(scores) for scores in (before, after, list(gains.values())))
    return Convergence(gains, spread)
