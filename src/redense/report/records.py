"""What a report is about: the runs below the paths that were named, in groups that can be
compared."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from redense.files.records import read_record, read_study
from redense.files.typed import Kind, read_json
from redense.study.folder import errors, finished_runs
from redense.study.methods import simplicity
from redense.study.summary import check_comparable


class _Asked(TypedDict, total=False):
    """What a run or a study was asked for, of which the page shows the command."""

    command: list[str] | str


_ASKED = Kind(_Asked, "table of settings", "restore it from where it came")


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
    """Runs of one task: a study's, or single ones.

    Args:
        commands: what was typed to make them, where it was stored.
        failed: (run, last line of its error).
        looks: at how many of its seeds a study was judged before.
        against: a study's ``control``, ``baseline`` and ``most`` seeds, where it says them.
        search: the folder of the search whose confirmation this study is.
    """

    name: str
    is_study: bool
    runs: tuple[Run, ...]
    commands: tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()
    against: Mapping[str, Any] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    search: Path | None = None

    @property
    def labels(self) -> list[str]:
        """Methods, or single runs, the simplest to live with first."""
        return sorted({run.label for run in self.runs}, key=simplicity)

    def of(self, label: str) -> list[Run]:
        """One method's runs by seed."""
        return sorted((run for run in self.runs if run.label == label), key=lambda run: run.seed)

    def plan_of(self, label: str) -> list[dict[str, Any]]:
        """One method's phases."""
        plan: list[dict[str, Any]] = self.of(label)[0].record["plan"]
        return plan

    @property
    def record(self) -> dict[str, Any]:
        """Any run's record, for what all of them have in common."""
        return self.runs[0].record

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, each under its run's label."""
        return [run.record | {"method": run.label} for run in self.runs]

    @property
    def trained(self) -> str:
        """The recipe or the user's function."""
        return str(self.record["recipe"] or self.record["function"])


def load(paths: Sequence[Path]) -> list[Group]:
    """A group for each study folder, and one for all single runs that are of the same task.

    Raises:
        FileNotFoundError, ValueError: a path without a finished run, or a file that is no record.
    """
    groups: list[Group] = []
    singles: list[Run] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        if (path / "found.json").is_file():
            groups.append(_search(path))
        elif (path / "record.json").is_file():
            singles.append(_read_run(path))
        elif runs := finished_runs(path):
            groups.append(_study(path, runs))
        else:
            raise FileNotFoundError(
                f"{path} holds no finished run: no record.json in it, nor in a folder METHOD--SEED "
                "below it; redense train and redense prove make them"
            )
    return [*groups, *_together(singles)]


def _search(path: Path) -> Group:
    """A search is its confirmation, and what it has to say of the way there."""
    confirmed = path / "confirm"
    study = _study(confirmed, finished_runs(confirmed))
    commands = _commands([path / "search.json"])
    return replace(study, name=path.resolve().name, commands=commands, search=path)


def _study(path: Path, finished: Sequence[tuple[Path, dict[str, Any]]]) -> Group:
    runs = [Run(folder, record["method"], record) for folder, record in finished]
    check_comparable([run.record for run in runs])
    failed = tuple(errors(path).items())
    name, file = path.resolve().name, path / "study.json"
    asked = read_study(file) if file.is_file() else {}
    against = {key: asked[key] for key in asked if key in ("control", "baseline", "most")}
    seeds = {run.seed for run in runs}
    earlier = [set(one) for one in asked.get("judged", ())]
    looks = tuple(sorted(len(one) for one in earlier if one < seeds))
    return Group(name, True, tuple(runs), _commands([file]), failed, against, looks)


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
    return [_single(group) for group in groups]


def _single(runs: list[Run]) -> Group:
    named = Counter((run.label, run.seed) for run in runs)
    if max(named.values()) > 1:  # the same run twice, or another plan under the same name
        runs = [Run(run.folder, str(run.folder), run.record) for run in runs]
    name = ", ".join(run.folder.resolve().name for run in runs)
    return Group(name, False, tuple(runs), _commands([run.folder / "config.json" for run in runs]))


def _read_run(folder: Path) -> Run:
    record = read_record(folder / "record.json")
    return Run(folder, record["method"], record)


def _commands(files: Sequence[Path]) -> tuple[str, ...]:
    """The command lines that these files keep, each once; older ones keep none."""
    words = [read_json(file, _ASKED).get("command") for file in files if file.is_file()]
    lines = [
        shlex.join(map(str, one)) if isinstance(one, list) else str(one) for one in words if one
    ]
    return tuple(dict.fromkeys(lines))
