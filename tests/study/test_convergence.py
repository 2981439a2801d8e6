"""Whether a dense phase is trained out, and that a study of one that is not says so."""

import random
from statistics import mean, stdev

import pytest
from study_folder import write_study

from redense.report.page import report
from redense.search.gate import check
from redense.study.convergence import Convergence, measure
from redense.study.folder import records
from redense.study.summary import as_markdown, sentences, summarize_records
from redense.study.verdict import on_convergence


def test_the_spread_is_the_largest_of_scores_and_gains():
    first, longer = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 2.0, 1: 3.0, 2: 3.0, 9: 99.0}
    measured = measure(first, longer, higher_is_better=True)
    assert measured.gains == {0: 1.0, 1: 1.0, 2: -1.0}
    assert measured.gain == pytest.approx(1 / 3)
    assert measured.spread == stdev(first.values())
    assert measure(first, longer, higher_is_better=False).gain == pytest.approx(-1 / 3)


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.075), (6, 0.01)])
def test_noise_alone_is_seldom_taken_for_a_gain(seeds, most):
    noise = random.Random(0)
    held_up = [
        measure(
            {seed: noise.gauss(0, 1) for seed in range(seeds)},
            {seed: noise.gauss(0, 1) for seed in range(seeds)},
            higher_is_better=True,
        ).still_gains
        for _ in range(2000)
    ]
    assert mean(held_up) < most


def test_a_gain_of_several_spreads_is_seen_from_two_seeds_on():
    assert Convergence({0: 3.0, 1: 3.2}, 0.5).still_gains
    assert Convergence({0: 3.0, 1: 3.2}, 3.5).is_converged


@pytest.mark.parametrize(
    ("gains", "spread"),
    [
        ({0: 9.0, 1: 0.0}, 3.0),  # one astray seed settles nothing
        ({0: 0.0, 1: 0.0}, 0.0),  # every score at the metric's floor
    ],
)
def test_what_seeds_do_not_settle_is_neither(gains, spread):
    measured = Convergence(gains, spread)
    assert not measured.is_converged
    assert not measured.still_gains
    said = on_convergence(measured, control="lower_lr", metric="validation wer", unit="points")
    assert said.startswith("Whether the dense phase has converged, 2 seeds do not settle: after")
    assert said.endswith("this study says nothing of the paper's claim.")
    assert check(measured, 1, 2).startswith("whether the first phase has converged, 2 seeds do")


@pytest.fixture
def growing(tmp_path):
    """In its records the control gains 1.2 points after the dense phase."""
    return write_study(tmp_path / "study", methods=("dense", "lower_lr", "dsd"))


def test_a_study_of_an_unfinished_network_says_nothing_of_the_papers_claim(growing, tmp_path):
    summary = summarize_records(records(growing))
    assert set(summary.convergence.gains) == set(range(8))
    assert not summary.convergence.is_converged
    (_, said, _) = sentences(summary)
    assert said.startswith("This study says nothing of the paper's claim, as its dense phase has")
    assert "the control (lower_lr) still improves by" in said
    assert said in as_markdown(summary)
    page = report([growing], tmp_path / "page.html").read_text("utf-8")
    assert said.replace("'", "&#39;") in page
    assert '"is_converged":false' in page


def test_a_study_of_a_converged_network_says_that_too(growing):
    found = records(growing)
    for record in found:
        record["valid"]["top1"] = 88.0 + 0.1 * record["seed"]
    (_, said, _) = sentences(summarize_records(found))
    assert said == (
        "The dense phase has converged: after it the control (lower_lr) improves by 0.00 points "
        "of validation top1, where seeds spread by 0.24."
    )


def test_where_there_is_no_dense_phase_nothing_is_said_of_it(growing):
    found = records(growing)
    for record in found:
        if record["method"] == "dense":
            record["cost"]["epochs"] = 0
    assert summarize_records(found).convergence is None
