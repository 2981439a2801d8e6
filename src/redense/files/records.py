"""The door to records: a run's record.json of any version, checked once, in today's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from redense.files.text import read_text

_SCORES = {"*": float}
_SPARSITY = int | float | dict  # type: ignore[type-arg]  # one share, or one for each pattern
_RECORD: Mapping[str, Any] = {
    "recipe": str,
    "method": str,
    "seed": int,
    "plan": [{"name": str, "length": int, "sparsity": _SPARSITY, "mask": str}],
    "phases": [{"name": str, "epochs": int, "sparsity": _SPARSITY, "valid": _SCORES}],
    "metric": {"name": str, "higher_is_better": bool, "unit": str},
    "data": {"sha256": str},
    "options": dict,
    "cost": {"epochs": float},
    "seconds": float,
    "valid": _SCORES,
    "test": _SCORES,
}
"""What every record holds; ``*`` is any key."""

_SINCE: Mapping[str, Any] = {
    "function": "",
    "released": [],
    "mask_overlap": [],
    "history": [],
    "branched": True,
    "selection": None,
    "weights_sha256": None,
    "commit": None,
    "versions": {},
    "hardware": {},
}
"""What records of some versions lack, and what that means."""

_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    _SPARSITY: "a number or a table",
}


def read_record(file: Path) -> dict[str, Any]:
    """A run's record; what its version did not have yet has its default, so that every reader may
    count on every key.

    Raises:
        FileNotFoundError, ValueError: no such file, no JSON, or a key that is missing or of another
            kind than it should be.
    """
    record = read_json(file)
    _check(record, _RECORD, file, "")
    record = {**_SINCE, **record}
    record["cost"] = {"examples": None, **record["cost"]}
    record["data"] = {"name": record["recipe"] or record["function"], **record["data"]}
    for key in ("phases", "history"):
        record[key] = [with_rate(row) for row in record[key]]
    return record


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds one table.

    Raises:
        FileNotFoundError, ValueError: no such file, or it holds something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        content = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content


def with_rate(row: Mapping[str, Any]) -> dict[str, Any]:
    """A phase's or an epoch's row with its rate under today's name: until 2026-11 that was ``lr``,
    which in a plan is a factor.

    >>> with_rate({"epoch": 1, "lr": 0.1})
    {'epoch': 1, 'rate': 0.1}
    """
    return {"rate" if name == "lr" else name: value for name, value in row.items()}


def _check(value: Any, kind: Any, file: Path, place: str) -> None:
    """Walk ``value`` beside the ``kind`` that it should be; ``place`` is where it stands."""
    shape = kind if isinstance(kind, (type, UnionType)) else type(kind)
    if not _fits(value, shape):
        raise ValueError(
            f"{file} is no run's record: {place} must be {_WORDS[shape]}, got {value!r}; "
            "was it written by another version?"
        )
    if isinstance(kind, list):
        for number, row in enumerate(value):
            _check(row, kind[0], file, f"{place}[{number}]")
    if isinstance(kind, Mapping):
        within = f"{place}." if place else ""
        for name in value if "*" in kind else kind:
            if name not in value:
                raise ValueError(
                    f"{file} is no run's record: it has no {within + name!r}; was it written by "
                    "another version?"
                )
            _check(value[name], kind.get(name, kind.get("*")), file, f"{within}{name}")


def _fits(value: Any, shape: type | UnionType) -> bool:
    if shape is float:
        shape = (int, float)  # type: ignore[assignment]
    return isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
