"""The door to records: checked once, in today's words, every error with file and key."""

import copy
import json

import pytest
from study_folder import make_record

from redense import dsd
from redense.files.records import read_record
from redense.files.typed import TABLE, read_json

RECORD = make_record("dsd", 0, dsd(2, 1, 1, 0.5))


def write(tmp_path, record):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(record))
    return file


def change(path, *value):
    """A record with another value at ``path``, or without it."""
    record = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    if value:
        inner[path[-1]] = value[0]
    else:
        del inner[path[-1]]
    return record


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("recipe",), "recipe"),
        (("metric", "unit"), "metric.unit"),
        (("data", "sha256"), "data.sha256"),
        (("cost", "epochs"), "cost.epochs"),
        (("phases", 1, "valid"), "phases[1].valid"),
        (("plan", 1, "mask"), "plan[1].mask"),
    ],
)
def test_what_is_missing_is_named_with_its_file(tmp_path, path, name):
    file = write(tmp_path, change(path))
    with pytest.raises(ValueError, match="written by another version") as caught:
        read_record(file)
    assert str(caught.value).startswith(f"{file} is no run's record: it has no {name!r};")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("seed",), "0", "seed must be a whole number, got '0'"),
        (("seed",), True, "seed must be a whole number, got True"),
        (("plan",), {"dense": 3}, "plan must be a list, got {'dense': 3}"),
        (("phases", 0), None, "phases[0] must be a table, got None"),
        (("metric", "higher_is_better"), 1, "metric.higher_is_better must be true or false, got 1"),
        (("test", "top1"), "88", "test.top1 must be a number, got '88'"),
        (("options",), None, "options must be a table, got None"),
    ],
)
def test_what_is_of_another_kind_is_named_with_its_file(tmp_path, path, value, words):
    file = write(tmp_path, change(path, value))
    with pytest.raises(ValueError, match="is no run's record") as caught:
        read_record(file)
    assert f"{file} is no run's record: {words};" in str(caught.value)


def test_the_rate_of_older_records_has_todays_name_and_the_plans_factor_keeps_its_own(tmp_path):
    record = read_record(write(tmp_path, RECORD))
    for old, new in zip(
        RECORD["phases"] + RECORD["history"], record["phases"] + record["history"], strict=True
    ):
        assert new["rate"] == old["lr"]
        assert "lr" not in new
    assert record["plan"] == RECORD["plan"]
    assert read_record(write(tmp_path, record)) == record


def test_what_older_versions_did_not_write_has_its_default(tmp_path):
    kept = ("recipe", "method", "seed", "plan", "phases", "metric", "data", "options", "cost")
    bare = {name: RECORD[name] for name in (*kept, "seconds", "valid", "test")}
    record = read_record(write(tmp_path, bare))
    assert (record["history"], record["released"], record["function"]) == ([], [], "")
    assert record["versions"] == record["hardware"] == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_table_is_refused_by_name(tmp_path, content):
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"record\.json"):
        read_json(file, TABLE)
