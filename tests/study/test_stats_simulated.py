"""What the statistics promise, checked on simulated runs whose truth is known."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from redense.study.stats import seeds_needed, sign_flip_p, summarize


def test_seeds_needed_gives_that_power_in_a_simulation():
    n = seeds_needed(0.8)
    runs = np.random.default_rng(1).normal(0.8, 1.0, size=(20_000, n))
    found = {
        m: np.mean(scipy_stats.ttest_1samp(runs[:, :m], 0.0, axis=1).pvalue <= 0.05)
        for m in (n, n - 1)
    }
    assert found[n] == pytest.approx(0.8213, abs=0.011)  # 4 standard errors
    assert found[n - 1] < 0.8 < found[n]


def test_the_t_interval_covers_in_95_percent():
    runs = np.random.default_rng(2).normal(1.0, 2.0, size=(8_000, 8))
    covered = np.mean(
        [low <= 1.0 <= high for low, high in (summarize(row).interval for row in runs)]
    )
    assert covered == pytest.approx(0.95, abs=0.01)  # 4 standard errors


def test_the_sign_flip_test_has_its_level_for_skewed_runs_too():
    """Two methods that differ in nothing but the seed: their differences are symmetric whatever the
    runs look like."""
    runs = np.random.default_rng(4).lognormal(size=(20_000, 2, 8))
    wrong = np.mean([sign_flip_p(d) <= 0.05 for d in runs[:, 0] - runs[:, 1]])
    assert wrong == pytest.approx(12 / 256, abs=0.006)  # the largest attainable level below 5 %
