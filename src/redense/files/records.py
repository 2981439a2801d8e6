"""The door to records: a run's record.json of any version, checked once, in today's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from redense.files.typed import Count, Kind, Number, read_json

Scores = dict[str, float]
"""Not `Number`: older versions wrote NaN where a run had diverged."""


class PhaseOfPlan(TypedDict):
    """A phase as `redense.Plan.to_records` writes it."""

    name: str
    length: Count
    sparsity: Number | dict[str, Number]
    lr: Number
    decay: str
    mask: str


class TrainedPhase(TypedDict):
    """A phase as it went."""

    name: str
    epochs: Count
    sparsity: Number | dict[str, Number]
    valid: Scores
    rate: NotRequired[Number]
    lr: NotRequired[Number]
    train_loss: NotRequired[float]
    sparsity_measured: NotRequired[Number]


class Metric(TypedDict):
    """What is judged."""

    name: str
    higher_is_better: bool
    unit: str


class Data(TypedDict):
    """What it was trained on."""

    sha256: str
    name: NotRequired[str]
    sizes: NotRequired[dict[str, Count]]


class Cost(TypedDict):
    """What it took."""

    epochs: Number
    examples: NotRequired[Count | None]


class Growth(TypedDict):
    """How far the weights that a phase held had grown."""

    phase: str
    until: str
    released: Count
    mean_released: Number
    mean_survivors: Number
    moved: Number


class Epoch(TypedDict):
    """A row of the history; other numbers stand beside these."""

    epoch: Count
    phase: str
    rate: NotRequired[Number]
    lr: NotRequired[Number]
    sparsity: Number
    seconds: Number
    train_loss: NotRequired[float]


Overlap = TypedDict("Overlap", {"phase": str, "with": str, "layers": dict[str, Number]})
"""How far two sparse phases held the same weights."""


class Record(TypedDict):
    """What every record holds, and what records of some versions lack."""

    recipe: str
    method: str
    seed: Count
    plan: list[PhaseOfPlan]
    phases: list[TrainedPhase]
    metric: Metric
    data: Data
    options: dict[str, Any]
    cost: Cost
    seconds: Number
    valid: Scores
    test: Scores
    function: NotRequired[str]
    released: NotRequired[list[Growth]]
    mask_overlap: NotRequired[list[Overlap]]
    history: NotRequired[list[Epoch]]
    branched: NotRequired[bool]
    selection: NotRequired[str | None]
    weights_sha256: NotRequired[str | None]
    commit: NotRequired[str | None]
    versions: NotRequired[dict[str, str]]
    hardware: NotRequired[dict[str, Any]]
    prunable: NotRequired[dict[str, list[Count]]]


class Study(TypedDict):
    """What a study asks; its settings stand beside these."""

    methods: dict[str, list[PhaseOfPlan]]
    command: NotRequired[list[str] | str]
    control: NotRequired[str]
    baseline: NotRequired[str]
    most: NotRequired[Count | None]
    options: NotRequired[dict[str, Any]]
    judged: NotRequired[list[list[Count]]]


RECORD = Kind(Record, "run's record", "was it written by another version?", finite=False)
STUDY = Kind(Study, "study's file", "choose another --out")

_SINCE: Mapping[str, Any] = {
    "function": "",
    "released": [],
    "mask_overlap": [],
    "history": [],
    "branched": True,
    "selection": None,
    "selected_epoch": None,
    "weights_sha256": None,
    "commit": None,
    "versions": {},
    "hardware": {},
    "prunable": {},
}
"""What records of some versions lack, and what that means."""


def read_record(file: Path) -> dict[str, Any]:
    """A run's record; what its version did not have yet has its default, so that every reader may
    count on every key.

    Raises:
        FileNotFoundError, ValueError: no such file, no JSON, or a key that is missing or of another
            kind than it should be.
    """
    known = read_json(file, RECORD)
    record: dict[str, Any] = {**_SINCE, **known}
    record["cost"] = {"examples": None, **record["cost"]}
    record["data"] = {"name": record["recipe"] or record["function"], **record["data"]}
    for key in ("phases", "history"):
        record[key] = [with_rate(row) for row in record[key]]
    return record


def read_study(file: Path) -> dict[str, Any]:
    """A study's study.json.

    Raises:
        FileNotFoundError, ValueError: as `read_record`.
    """
    known = read_json(file, STUDY)
    return {**known}


def with_rate(row: Mapping[str, Any]) -> dict[str, Any]:
    """A phase's or an epoch's row with its rate under today's name: until 2026-11 that was ``lr``,
    which in a plan is a factor.

    >>> with_rate({"epoch": 1, "lr": 0.1})
    {'epoch': 1, 'rate': 0.1}
    """
    return {"rate" if name == "lr" else name: value for name, value in row.items()}
