"""Records that belong together, and tables whose digits follow the difference."""

import io

import pytest
from rich.console import Console

from redense.study.summary import as_markdown, print_table, summarize_records


def records(values, seeds=8, unit=""):
    return [
        {
            "recipe": "images",
            "method": method,
            "seed": seed,
            "plan": [],
            "data": {"sha256": "0"},
            "options": {},
            "test": {"mse": value + value / 100 * ((7 * seed + len(method)) % 5)},
            "valid": {},
            "cost": {"epochs": 3},
            "metric": {"name": "mse", "higher_is_better": False, "unit": unit},
        }
        for method, value in values.items()
        for seed in range(seeds)
    ]


SMALL = {"dense": 1.2e-3, "lower_lr": 1.1e-3, "dsd": 0.9e-3}


def test_digits_follow_the_difference_and_no_unit_is_printed_where_there_is_none():
    text = as_markdown(summarize_records(records(SMALL)))
    assert text.startswith("test mse, lower is better")
    dsd = next(line for line in text.splitlines() if line.startswith("| dsd"))
    assert "| 0.0009169 | 0.0000131 | -0.0002037 | -0.0002062 to -0.0002013 |" in dsd
    assert " in ," not in text


def test_runs_of_one_method_with_two_plans_are_refused_by_name():
    mixed = records(SMALL)
    mixed[-1]["plan"] = [{"name": "sparse", "length": 20}]
    with pytest.raises(ValueError, match="dsd--7 has another plan than dsd--0"):
        summarize_records(mixed)


def test_a_run_that_comes_twice_is_refused_by_name():
    twice = records(SMALL)
    with pytest.raises(ValueError, match="two records are called dsd--7"):
        summarize_records([*twice, twice[-1]])


def test_failed_runs_are_named_beside_the_verdict():
    summary = summarize_records(records(SMALL), failed=["dsd--8 (ValueError: lr)"])
    assert as_markdown(summary).endswith("Missing, as they failed: dsd--8 (ValueError: lr).")


@pytest.mark.parametrize("size", [80.0, 1e-3])
def test_the_table_fits_80_columns_and_nothing_is_cut(size):
    names = ("dense", "lower_lr", "dsd@0.3", "random_dsd@0.5", "a_plan_with_a_very_long_name")
    made = records({name: size * (1 + 0.01 * len(name)) for name in names})
    text = io.StringIO()
    print_table(summarize_records(made), Console(width=200, file=text))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text.getvalue()
    assert "mse, 8 seeds" in lines[0]
    if size > 1:  # common numbers leave room for common names
        assert any(line.startswith("random_dsd@0.5 ") for line in lines)
