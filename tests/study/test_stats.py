"""Two methods over seeds, against scipy, hand-computed cases and simulations."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from redense.study import stats
from redense.study.stats import (
    holm,
    least_seeds,
    paired_difference,
    seeds_needed,
    sign_flip_p,
    summarize,
)

DSD = [93.1, 92.8, 93.6, 93.0, 93.3, 92.9, 93.5, 93.2]
CONTROL = [92.9, 92.9, 93.1, 92.6, 93.2, 92.5, 93.3, 92.7]

# scores as a record holds them: accuracies in %, four decimals
scores = st.integers(0, 1_000_000).map(lambda i: i / 10_000)
pairs = st.lists(st.tuples(scores, scores), min_size=2, max_size=9).map(
    lambda rows: np.array(rows).T
)
quick = settings(max_examples=60, deadline=None)


def difference(treated, control, **options):
    return paired_difference(treated, control, **options)


def brute_force_p(differences):
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    sums = signs @ np.asarray(differences)
    return np.mean(np.abs(sums) >= abs(np.sum(differences)) - 1e-9 * np.abs(differences).sum())


def test_a_summary_is_the_textbook_one():
    summary = summarize([2.0, 4.0, 6.0])
    assert (summary.n, summary.mean, summary.sd, summary.minimum, summary.maximum) == (
        3,
        4.0,
        2.0,
        2.0,
        6.0,
    )
    half = 4.302652729911275 * 2 / math.sqrt(3)  # t table, 2 degrees of freedom, 97.5 %
    assert summary.interval == pytest.approx((4 - half, 4 + half))


def test_a_hand_computed_difference():
    found = paired_difference([5.0, 7.0, 9.0, 6.0], [4.0, 7.0, 6.0, 2.0])  # differences 1, 0, 3, 4
    assert found.mean == pytest.approx(2.0)
    assert found.sd == pytest.approx(math.sqrt(10 / 3))
    assert found.p_value == 4 / 16  # |sum| >= 8 only if 1, 3 and 4 agree; 0 may have either sign
    assert found.paired_improvement == 3.5 / 4
    assert (found.treated.mean, found.control.mean) == (6.75, 4.75)


def test_interval_agrees_with_scipys_paired_t_test():
    expected = scipy_stats.ttest_rel(DSD, CONTROL).confidence_interval(0.9)
    assert paired_difference(DSD, CONTROL, confidence=0.9).interval == pytest.approx(
        tuple(expected)
    )


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_p_value_agrees_with_scipys_exact_permutation_test(n):
    treated, control = np.random.default_rng(n).normal(size=(2, n)).round(2)
    expected = scipy_stats.permutation_test(
        (treated, control),
        lambda x, y: np.mean(x - y),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert expected.null_distribution.size == 2**n
    assert difference(treated, control).p_value == expected.pvalue


@quick
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=10))
def test_p_value_counts_all_sign_flips_with_ties(differences):
    assert sign_flip_p(np.array(differences) / 10) == brute_force_p(np.array(differences) / 10)


def test_p_value_of_many_seeds_continues_the_exact_one():
    d = np.random.default_rng(0).normal(0.4, 1, size=33)
    assert sign_flip_p(d) == pytest.approx(scipy_stats.ttest_1samp(d, 0).pvalue)
    assert sign_flip_p(d[:32]) == pytest.approx(scipy_stats.ttest_1samp(d[:32], 0).pvalue, rel=0.1)
    assert sign_flip_p(np.ones(40)) == 0.0


@quick
@given(pairs)
def test_swapping_the_methods_mirrors_everything(values):
    one, other = difference(*values), difference(*values[::-1])
    assert other.mean == pytest.approx(-one.mean, rel=1e-12, abs=1e-12)
    assert other.sd == pytest.approx(one.sd, abs=1e-12)
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]), abs=1e-12)
    assert other.p_value == one.p_value
    assert other.paired_improvement == pytest.approx(1 - one.paired_improvement)
    assert (other.treated, other.control) == (one.control, one.treated)


@quick
@given(pairs)
def test_lower_is_better_is_the_swapped_comparison_with_raw_scores_kept(values):
    lower, swapped = difference(*values, higher_is_better=False), difference(*values[::-1])
    assert (lower.mean, lower.interval) == (swapped.mean, swapped.interval)
    assert lower.paired_improvement == swapped.paired_improvement
    assert lower.treated == summarize(values[0])


@quick
@given(pairs, st.integers(-1000, 1000))
def test_a_shift_of_both_changes_no_difference(values, shift):
    one, moved = difference(*values), difference(*(values + shift))
    assert (moved.mean, *moved.interval) == pytest.approx((one.mean, *one.interval), abs=1e-7)
    assert moved.p_value == one.p_value
    assert moved.control.mean == pytest.approx(one.control.mean + shift)


@quick
@given(pairs, st.sampled_from([0.01, 0.5, 3.0, 100.0]))
def test_a_scale_of_both_scales_the_difference_and_keeps_the_p_value(values, scale):
    one, scaled = difference(*values), difference(*(values * scale))
    assert (scaled.mean, scaled.sd, *scaled.interval) == pytest.approx(
        [scale * x for x in (one.mean, one.sd, *one.interval)],
        rel=1e-6,
        abs=1e-7 * scale,
    )
    assert scaled.p_value == one.p_value


@quick
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(values, random):
    order = random.sample(range(values.shape[1]), values.shape[1])
    one, shuffled = difference(*values), difference(*values[:, order])
    assert (shuffled.mean, shuffled.interval) == (one.mean, one.interval)
    assert shuffled.p_value == one.p_value


@pytest.mark.parametrize(("step", "p"), [(0.0, 1.0), (0.1, 2 / 2**6)])
def test_equal_differences_give_intervals_without_width(step, p):
    control = np.array([93.1, 92.7, 92.9, 93.3, 91.8, 92.2])
    found = paired_difference(control + step, control)
    assert found.sd == 0
    assert found.interval == pytest.approx((step, step))
    assert found.p_value == p
    assert found.seeds_needed == (2 if step else None)


def test_floating_point_does_not_break_ties():
    found = paired_difference(
        [0.3, 0.9, 0.5], [0.1 + 0.1, 0.8, 0.2 + 0.4]
    )  # +0.1, +0.1, -0.1 on paper
    assert found.p_value == 1.0  # |sum| >= 0.1 for every choice of signs


@pytest.mark.parametrize("astray", [1e30, 100.0, -1e30])
def test_one_diverged_run_decides_no_difference(astray):
    control = [30.0 + seed / 10 for seed in range(10)]
    treated = [28.0 + seed / 9 for seed in range(10)]
    clean = paired_difference(treated, control, higher_is_better=False)
    control[9] = astray
    found = paired_difference(treated, control, higher_is_better=False)
    assert found.tamed == (9,)
    assert found.interval[0] > 0
    assert found.mean == pytest.approx(clean.mean, abs=0.1)
    if astray > 0:
        assert (found.paired_improvement, found.p_value) == (1.0, 2 / 2**10)


def test_ordinary_differences_are_seldom_touched():
    runs = np.random.default_rng(9).normal(size=(500, 12))
    tamed = sum(bool(paired_difference(run, np.zeros(12)).tamed) for run in runs)
    assert tamed / 500 < 0.02


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_lies_between_the_raw_p_and_bonferroni_in_any_order(p_values, random):
    corrected = holm(p_values)
    assert all(
        p <= c <= min(1, len(p_values) * p) for p, c in zip(p_values, corrected, strict=True)
    )
    order = random.sample(range(len(p_values)), len(p_values))
    assert holm([p_values[i] for i in order]) == tuple(corrected[i] for i in order)


@pytest.mark.parametrize(
    ("effect", "n"), [(0.2, 199), (0.3, 90), (0.5, 34), (0.8, 15), (1.0, 10), (-0.5, 34)]
)
def test_seeds_needed_is_the_published_table(effect, n):
    """Paired t test, two-sided 5 %, power 80 %: the values G*Power and Cohen's tables give."""
    assert seeds_needed(effect) == n


def test_seeds_needed_at_the_ends():
    assert seeds_needed(math.inf) == seeds_needed(1e6) == 2
    assert seeds_needed(0.0) is None
    assert seeds_needed(1e-5) is None
    assert seeds_needed(0.5, power=0.95) == 54


def test_least_seeds_is_where_full_agreement_first_passes():
    assert [least_seeds(m) for m in (1, 2, 4, 6, 7, 12, 13)] == [6, 7, 8, 8, 9, 9, 10]
    assert sign_flip_p(np.ones(5)) == 0.0625 > 0.05 > sign_flip_p(np.ones(6)) == 0.03125
    assert least_seeds(1, confidence=0.9) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: summarize([1.0]),
            r"values must hold one score a seed, at least 2, got shape \(1,\)",
        ),
        (lambda: summarize([[1.0, 2.0]]), r"got shape \(1, 2\)"),
        (
            lambda: summarize([1.0, 2.0], confidence=95),
            r"confidence must lie in \(0, 1\), got 95; 0.95 is usual",
        ),
        (
            lambda: paired_difference([1.0, math.nan], [1.0, 2.0]),
            r"treated\[1\] is nan; give a diverged run",
        ),
        (lambda: paired_difference([1.0, 2.0], [math.inf, 2.0]), r"control\[0\] is inf"),
        (lambda: paired_difference([1.0, 2.0, 3.0], [1.0, 2.0]), "got 3 and 2; pair them first"),
        (lambda: holm([0.1, 1.5]), r"a p-value must lie in \[0, 1\], got 1.5"),
        (lambda: holm([math.nan]), "got nan"),
        (
            lambda: seeds_needed(math.nan),
            "effect must be the mean difference in standard deviations, got nan",
        ),
        (
            lambda: seeds_needed(0.5, power=80),
            r"power must lie in \[0.5, 1\), got 80; 0.8 is usual",
        ),
        (lambda: least_seeds(0), "comparisons must be at least 1, got 0"),
    ],
)
def test_errors_name_the_value_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(stats).failed == 0
