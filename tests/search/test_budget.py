"""Score against tuning budget: the estimator against cases worked by hand and against all draws."""

from itertools import combinations
from statistics import mean

import pytest

from redense.search.budget import Judged, budget, curve, expected_best


def test_a_case_worked_by_hand():
    """Of the draws of 2 of 3: {a, b} and {a, c} choose a (30), {b, c} chooses c (20)."""
    assert expected_best([3, 1, 2], [30, 10, 20], 2) == pytest.approx(80 / 3)
    assert expected_best([3, 1, 2], [30, 10, 20], 1) == pytest.approx(20)
    assert expected_best([3, 1, 2], [30, 10, 20], 3) == pytest.approx(30)


def test_it_is_the_mean_over_all_draws():
    chosen = [0.3, 0.9, 0.1, 0.5, 0.5, 0.7]
    judged = [5.0, 1.0, 4.0, 2.0, 8.0, 3.0]
    for many in range(1, 7):
        draws = combinations(range(6), many)
        best = [judged[max(draw, key=lambda one: (chosen[one], -one))] for draw in draws]
        assert expected_best(chosen, judged, many) == pytest.approx(mean(best))


def test_a_curve_shows_the_budgets_that_there_are():
    assert list(curve([1.0] * 12, [2.0] * 12)) == [1, 2, 5, 10]


@pytest.mark.parametrize("trials", [0, 3])
def test_more_trials_than_there_are_are_refused(trials):
    with pytest.raises(ValueError, match="trials must lie in 1 to 2"):
        expected_best([1.0, 2.0], [1.0, 2.0], trials)


def both(plans, controls, **more):
    """A budget whose trials' validation scores are their worth; the first is customary."""
    sides = {"plan": [Judged(x, x) for x in plans], "control": [Judged(x, x) for x in controls]}
    return budget(
        {side: listed[1:] for side, listed in sides.items()},
        {side: listed[0] for side, listed in sides.items()},
        **{"metric": "test top1", "higher_is_better": True} | more,
    )


def test_the_customary_setting_stays_where_validation_prefers_it():
    found = both([5.0, 1.0, 9.0], [5.0, 6.0, 7.0])
    assert found.usual == {"plan": 5.0, "control": 5.0}
    assert found.curves["plan"] == pytest.approx({1: 7.0, 2: 9.0})  # 1: the mean of 5 and 9
    assert found.curves["control"] == pytest.approx({1: 6.5, 2: 7.0})


def test_a_sentence_says_from_where_on_the_controls_catch_up():
    ahead = both([5.0, 8.0, 9.0], [4.0, 6.0, 7.0])
    assert "the controls do not catch up: after 2 the plans are 2 ahead. A search" in ahead.sentence
    caught = both([5.0, 6.0, 6.0], [4.0, 7.0, 8.0])
    assert "caught up from 1 on, 2 better after 2" in caught.sentence
    behind = both([3.0, 3.0, 3.0], [4.0, 7.0, 8.0])
    assert "do as well at every budget, 5 better after 2" in behind.sentence
    errors = both([0.5, 0.2, 0.3], [0.6, 0.4, 0.4], higher_is_better=False)
    assert "the controls do not catch up: after 2 the plans are 0.2 ahead" in errors.sentence
