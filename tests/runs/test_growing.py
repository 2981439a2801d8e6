"""Released weights that hardly grew are told after a run and on the page."""

import copy
import json

import pytest
from rich.console import Console
from study_folder import make_record, write_run

from redense.plan import dsd
from redense.report.page import report
from redense.runs.growing import said_of
from redense.runs.progress import print_result


@pytest.fixture
def grown():
    record = make_record("dsd", 0, dsd(8, 6, 6, 0.3))
    for row in (*record["phases"], *record["history"]):
        row["rate"] = row.pop("lr")
    return record


def test_growth_under_two_per_cent_is_told_in_words(grown, tmp_path, capsys):
    hardly = copy.deepcopy(grown)
    hardly["released"][0] |= {"mean_released": 0.0003, "mean_survivors": 0.02}
    said = (
        "redense changed almost nothing: the released weights are 1.5 % of the survivors' size; "
        "raise its rate or its length"
    )
    for record, is_told in ((grown, False), (hardly, True)):
        print_result(record, Console(width=80))
        assert (said in capsys.readouterr().out) == is_told
        folder = write_run(tmp_path / f"{is_told}", record)
        page = report([folder], tmp_path / "page.html").read_text("utf-8")
        assert (f"dsd, {said}.".replace("'", "&#39;") in page) == is_told
        assert json.loads((folder / "record.json").read_text())["released"]


def test_two_per_cent_is_enough():
    assert said_of("redense", 0.0199)
    assert not said_of("redense", 0.02)
