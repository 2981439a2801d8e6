"""A whole study: pairing, Holm over the methods, the outcome of every contrast."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redense.study.compare import compare, contrasts
from redense.study.stats import holm, paired_difference, sign_flip_p, summarize

METHODS = ("dense", "longer", "lower_lr", "random_dsd", "dsd")


def study(effects, seeds=8, spread=0.15, rng=None):
    """Scores around 93: a part that every method of a seed shares, a part of its own, and each
    method's effect."""
    rng = rng or np.random.default_rng(0)
    shared = 93 + 0.2 * rng.normal(size=seeds)
    return {
        method: dict(
            enumerate((shared + effect + spread * rng.normal(size=seeds)).round(2).tolist())
        )
        for method, effect in effects.items()
    }


def null_study(rng):
    return study(dict.fromkeys(METHODS, 0.0), rng=rng)


def test_a_comparison_is_its_parts_put_together():
    scores = study(dict(zip(METHODS, (-0.8, 0, 0, -0.5, 0.4), strict=True)))
    comparison = compare(scores, control="lower_lr", baseline="dense")
    assert list(comparison.to_control) == ["dense", "longer", "random_dsd", "dsd"]
    assert list(comparison.to_baseline) == ["longer", "lower_lr", "random_dsd", "dsd"]
    assert comparison.summaries["dsd"] == summarize(list(scores["dsd"].values()))
    contrast = comparison.to_control["dsd"]
    expected = paired_difference(list(scores["dsd"].values()), list(scores["lower_lr"].values()))
    assert (contrast.method, contrast.reference, contrast.difference) == (
        "dsd",
        "lower_lr",
        expected,
    )
    assert contrast.comparisons == 4
    p_values = [c.difference.p_value for c in comparison.to_control.values()]
    assert tuple(c.holm_p for c in comparison.to_control.values()) == holm(p_values)
    assert comparison == compare(scores, control="lower_lr", baseline="dense")


def test_outcomes_follow_the_effects():
    scores = study(
        {"lower_lr": 0, "same": 0, "better": 0.6, "worse": -0.6}, rng=np.random.default_rng(1)
    )
    outcome = {name: contrast.outcome for name, contrast in contrasts(scores, "lower_lr").items()}
    assert outcome == {"same": "no measurable difference", "better": "helps", "worse": "hurts"}
    flipped = contrasts(scores, "lower_lr", higher_is_better=False)
    assert (flipped["better"].outcome, flipped["worse"].outcome) == ("hurts", "helps")


def test_seeds_that_only_one_has_are_left_out_and_named():
    scores = study({"lower_lr": 0, "dsd": 0.1}, seeds=9)
    del scores["dsd"][4]
    scores["dsd"][20] = 1.0
    contrast = contrasts(scores, "lower_lr")["dsd"]
    shared = [0, 1, 2, 3, 5, 6, 7, 8]
    assert contrast.left_out == (4, 20)
    assert contrast.difference == paired_difference(
        *([scores[m][s] for s in shared] for m in ("dsd", "lower_lr"))
    )


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_neither_the_order_of_runs_nor_of_methods_matters(random):
    scores = study({"lower_lr": 0, "dsd": 0.1, "longer": 0.3}, seeds=6)
    shuffled = {
        method: {seed: scores[method][seed] for seed in random.sample(range(6), 6)}
        for method in random.sample(list(scores), 3)
    }
    assert contrasts(shuffled, "lower_lr") == contrasts(scores, "lower_lr")


@pytest.mark.parametrize(
    ("seeds", "methods", "enough"), [(5, 2, False), (6, 2, True), (7, 5, False), (8, 5, True)]
)
def test_below_the_least_seeds_even_perfect_agreement_is_too_few(seeds, methods, enough):
    scores = study({f"m{i}": 10.0 * i for i in range(methods)}, seeds=seeds)
    assert {c.outcome for c in contrasts(scores, "m0").values()} == {
        "helps" if enough else "too few seeds"
    }


def test_one_outlier_decides_nothing():
    scores = {
        "lower_lr": dict.fromkeys(range(8), 93.0),
        "dsd": {s: 93.01 + s / 1e4 for s in range(7)} | {7: 99.0},
    }
    assert contrasts(scores, "lower_lr")["dsd"].outcome == "helps"
    scores["dsd"] = dict.fromkeys(range(7), 93.0) | {7: 99.0}
    assert contrasts(scores, "lower_lr")["dsd"].outcome == "no measurable difference"


def test_an_interval_without_zero_whose_corrected_p_does_not_pass_is_unclear():
    differences = (0.1, 0.3, 0.2, -0.04, 0.3, 0.2, 0.1, 0.2)
    scores = {"lower_lr": dict.fromkeys(range(8), 90.0)}
    scores["dsd"] = {s: 90 + differences[s] for s in range(8)}
    scores |= {f"m{i}": dict.fromkeys(range(8), 90.0) for i in range(5)}
    assert contrasts(scores, "lower_lr")["dsd"].outcome == "unclear"


def test_holm_keeps_false_claims_of_a_null_study_below_five_percent():
    rng = np.random.default_rng(5)
    raw = corrected = 0
    for _ in range(4_000):
        runs = rng.normal(size=(len(METHODS), 8))
        p_values = [sign_flip_p(row - runs[0]) for row in runs[1:]]
        raw += min(p_values) <= 0.05
        corrected += min(holm(p_values)) <= 0.05
    assert corrected / 4_000 <= 0.05  # measured 0.022: eight seeds allow few levels
    assert raw / 4_000 > 0.1  # what reading four p-values as they stand would do


def test_a_method_against_itself_with_other_seeds_makes_no_measurable_difference():
    rng = np.random.default_rng(6)
    studies = [contrasts(null_study(rng), "lower_lr") for _ in range(500)]
    clean = [not any(c.outcome in ("helps", "hurts") for c in study.values()) for study in studies]
    assert np.mean(clean) >= 0.95


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            {"dense": {0: 1.0, 1: 2.0}, "dsd": {0: 1.0, 1: math.nan}},
            "dsd, seed 1: the score is nan; give a diverged",
        ),
        (
            {"dense": {0: 1.0, 1: 2.0}, "dsd": {0: 1.0, 1: math.inf}},
            "dsd, seed 1: the score is inf",
        ),
        ({"dense": {0: 1.0, 1: 2.0}, "dsd": {0: 1.0}}, "dsd has 1 seed, at least 2 are needed"),
        (
            {"dense": {0: 1.0, 1: 2.0}, "dsd": {1: 1.0, 2: 3.0}},
            r"dsd and dense share 1 seeds.* \[1, 2\] and \[0, 1\]",
        ),
        (
            {"dsd": {0: 1.0, 1: 2.0}, "longer": {}},
            "no method 'dense' in the scores; they hold dsd, longer",
        ),
        ({"dense": {0: 1.0, 1: 2.0}}, "at least two methods, got dense"),
    ],
)
def test_errors_name_method_and_seed(scores, message):
    with pytest.raises(ValueError, match=message):
        compare(scores, control="dense", baseline="dense")
