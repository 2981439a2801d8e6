"""What a report is about: the runs below the paths that were named, in groups that can be
compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redense.study.methods import simplicity
from redense.study.summary import check_comparable

_NEEDED = (
    "recipe",
    "method",
    "seed",
    "plan",
    "phases",
    "metric",
    "data",
    "options",
    "cost",
    "seconds",
    "test",
    "valid",
)


_OF_METRIC = ("name", "higher_is_better", "unit")
_OF_PLAN = ("name", "length", "sparsity", "mask")


@dataclass(frozen=True)
class Run:
    """One finished run; ``label`` is its method, or its folder where several runs share method and
    seed."""

    folder: Path
    label: str
    record: dict[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.record["seed"])


@dataclass(frozen=True)
class Group:
    """Runs of one task: a study's, or single ones. ``failed`` are (run, last line of its error)."""

    name: str
    is_study: bool
    runs: tuple[Run, ...]
    config: dict[str, Any] | None
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> list[str]:
        """Methods, or single runs, the simplest to live with first."""
        return sorted({run.label for run in self.runs}, key=simplicity)

    def of(self, label: str) -> list[Run]:
        """One method's runs by seed."""
        return sorted((run for run in self.runs if run.label == label), key=lambda run: run.seed)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, each under its run's label."""
        return [run.record | {"method": run.label} for run in self.runs]


def load(paths: Sequence[Path]) -> list[Group]:
    """A group for each study folder, and one for all single runs that are of the same task.

    Raises:
        FileNotFoundError, ValueError: a path without a finished run, or a file that is no record.
    """
    groups: list[Group] = []
    singles: list[Run] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        if (path / "record.json").is_file():
            singles.append(_read_run(path))
        elif files := sorted(path.glob("*--*/record.json")):
            runs = [_read_run(file.parent) for file in files]
            # a folder of another name is a copy kept aside
            named = [run for run in runs if run.folder.name == f"{run.label}--{run.seed}"]
            groups.append(_study(path, named))
        else:
            raise FileNotFoundError(
                f"{path} holds no finished run: no record.json in it, nor in a folder METHOD--SEED "
                "below it; "
                f"redense train and redense prove make them"
            )
    return [*groups, *_together(singles)]


def _study(path: Path, runs: Sequence[Run]) -> Group:
    check_comparable([run.record for run in runs])
    errors = [
        file
        for file in sorted(path.glob("*--*/error.txt"))
        if not (file.parent / "record.json").exists()
    ]
    failed = tuple(
        (file.parent.name, (file.read_text("utf-8").strip().splitlines() or [""])[-1])
        for file in errors
    )
    config = path / "study.json"
    return Group(
        path.resolve().name, True, tuple(runs), _read(config) if config.is_file() else None, failed
    )


def _together(runs: list[Run]) -> list[Group]:
    """Single runs in groups that can be compared."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            try:
                check_comparable([group[0].record, run.record])
            except ValueError:
                continue
            group.append(run)
            break
        else:
            groups.append([run])
    found = []
    for group in groups:
        named = Counter((run.record["method"], run.seed) for run in group)
        if max(named.values()) > 1:  # the same run twice, or another plan under the same name
            group = [Run(run.folder, str(run.folder), run.record) for run in group]
        config = group[0].folder / "config.json"
        name = ", ".join(run.folder.resolve().name for run in group)
        found.append(Group(name, False, tuple(group), _read(config) if config.is_file() else None))
    return found


def _read_run(folder: Path) -> Run:
    record = _read(folder / "record.json")
    needed = [(record, "", key) for key in _NEEDED]
    needed += [(record.get("metric", {}), "metric.", key) for key in _OF_METRIC]
    needed += [(record.get("cost", {}), "cost.", key) for key in ("epochs", "examples")]
    needed += [(record.get("data", {}), "data.", "sha256")]
    for number, phase in enumerate(record.get("phases", [])):
        needed += [(phase, f"phases[{number}].", key) for key in ("name", "train_loss", "valid")]
    for number, phase in enumerate(record.get("plan", [])):
        needed += [(phase, f"plan[{number}].", key) for key in _OF_PLAN]
    if missing := [f"{place}{key}" for part, place, key in needed if key not in part]:
        raise ValueError(
            f"{folder / 'record.json'} is no run's record: it has no {missing[0]!r}; "
            "was it written by another version?"
        )
    return Run(folder, str(record["method"]), record)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found
