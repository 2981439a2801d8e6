"""docs/when.md says what the committed records say."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the package

from benchmarks.when import RESULTS, STUDIES, committed, tables
from redense.study.folder import records

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "when.md").read_text("utf-8")
STUDIED = sorted(RESULTS.glob("[vw]*/frozen.json"))


@pytest.fixture(scope="module")
def regimes():
    return committed()


def test_its_tables_are_made_of_the_records(regimes):
    assert tables(list(regimes.values())) in PAGE


def test_every_committed_study_stands_in_them(regimes):
    assert set(regimes) == {file.parent.name for file in RESULTS.glob("*/study.json")}
    assert set(regimes) <= set(STUDIES)


def test_a_row_is_a_plain_computation_over_paired_seeds(regimes):
    scores = {
        (record["method"], record["seed"]): record["test"]["top1"]
        for record in records(RESULTS / "images")
    }
    seeds = range(12)
    (row,) = (row for row in regimes["images"].rows if row.plan == "dsd")
    gains = [scores["dsd", seed] - scores["lower_lr", seed] for seed in seeds]
    assert row.to_matched.mean == pytest.approx(sum(gains) / 12)
    means = {name: sum(scores[name, seed] for seed in seeds) / 12 for name, _ in scores}
    assert row.score == pytest.approx(means["dsd"])
    assert means[row.best] == max(means[name] for name in ("lower_lr", "longer", "swa"))
    assert row.to_best.mean == pytest.approx(means["dsd"] - means[row.best])


def test_the_paper_s_plan_has_won_nowhere_so_far(regimes):
    """The page's first sentence; where it no longer holds, the page must say so."""
    plans = [row for one in regimes.values() for row in one.rows if row.plan.startswith("dsd")]
    assert plans
    assert not [row for row in plans if row.to_matched.interval[0] > 0]


@pytest.mark.parametrize("file", STUDIED, ids=lambda file: file.parent.name)
def test_a_frozen_contrast_names_its_seeds_and_how_it_was_chosen(file):
    frozen = json.loads(file.read_text("utf-8"))
    assert len(frozen["seeds"]) >= 12
    assert "validation" in frozen["chosen"]
    assert {"contrast", "metric", "alpha", "command", "seen"} <= set(frozen)
