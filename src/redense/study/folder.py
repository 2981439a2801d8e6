"""A study's folder: study.json says what it asks, and each run lies in METHOD--SEED."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redense.files.records import read_record, read_study
from redense.plan import Plan
from redense.runs.checkpoints import make_folder, write_text
from redense.study.sources import CHANGED


def open_study(
    folder: Path, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> None:
    """Make ``folder`` this study's, or go on with it; another study's folder is refused.

    Settings are compared by value; what an older version did not know yet has its default. Methods
    may be added to a study, and left out; the command line is kept but not compared.

    Args:
        settings: ``methods`` (name to a plan's records), ``command``, and what all runs share.
        defaults: of settings, and of options in them, that an older study may lack.
    """
    file = folder / "study.json"
    stored: Mapping[str, Any] | None = read_study(file) if file.exists() else None
    methods = dict(settings["methods"])
    earlier: dict[str, Any] = {}
    if stored is not None:
        if differing := _difference(stored, settings, defaults or {}):
            raise ValueError(
                f"{folder} holds a study with other settings: {differing} (see {file}); choose "
                "another --out"
            )
        methods = {**stored["methods"], **methods}
        earlier = {name: stored[name] for name in ("judged",) if name in stored}
    make_folder(folder, "a study")
    content = {**settings, "methods": methods, **earlier}
    write_text(file, json.dumps(content, indent=2) + "\n")


def verdicts(folder: Path) -> list[set[int]]:
    """The seeds of every verdict that was read of a study so far."""
    file = folder / "study.json"
    stored = read_study(file) if file.exists() else {}
    return [set(seeds) for seeds in stored.get("judged", ())]


def keep_verdict(folder: Path, seeds: Iterable[int]) -> None:
    """Write down that a verdict over these seeds was read."""
    earlier, now = verdicts(folder), set(seeds)
    if now in earlier:
        return
    file = folder / "study.json"
    listed = [sorted(one) for one in (*earlier, now)]
    write_text(file, json.dumps({**read_study(file), "judged": listed}, indent=2) + "\n")


def finished_runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every finished run below ``folder`` and its record, in order of method and seed; a folder
    whose name is not its run's ``METHOD--SEED`` is a copy kept aside, and none of the study's."""
    found = [(file.parent, read_record(file)) for file in folder.glob("*--*/record.json")]
    own = [(run, record) for run, record in found if run.name == _name(record)]
    return sorted(own, key=lambda one: (one[1]["method"], one[1]["seed"]))


def study_of(run: Path) -> Path | None:
    """The study that a run's folder lies in as METHOD--SEED, if any."""
    folder = run.absolute().parent
    is_study = (folder / "study.json").is_file() and _IS_RUN.search(run.absolute().name)
    return folder if is_study else None


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of `finished_runs`."""
    return [record for _, record in finished_runs(folder)]


def errors(folder: Path) -> dict[str, str]:
    """Of every run below ``folder`` that failed the last line of its traceback."""
    said = {}
    for file in sorted(folder.glob("*--*/error.txt")):
        if _IS_RUN.search(file.parent.name) and not (file.parent / "record.json").exists():
            lines = file.read_text("utf-8").strip().splitlines() or [""]
            said[file.parent.name] = lines[-1]
    return said


_IS_RUN = re.compile(r"--\d+$")


def _name(record: Mapping[str, Any]) -> str:
    return f"{record['method']}--{record['seed']}"


def _difference(
    stored: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> str:
    """The first setting that is not the same, with both values; empty if all are."""
    for name in sorted(settings.keys() - {"methods", "command"}):
        mine, theirs = settings[name], stored.get(name, defaults.get(name))
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            theirs = {**defaults.get(name, {}), **theirs}
        if mine != theirs and name == "source_sha256":
            return CHANGED
        if mine != theirs:
            return f"{name} was {_differing(theirs, mine)}, now {_differing(mine, theirs)}"
    for name in sorted(settings["methods"].keys() & stored["methods"].keys()):
        if _plan(settings["methods"][name]) != _plan(stored["methods"][name]):
            return f"{name} had another plan"
    return ""


def _differing(value: Any, other: Any) -> str:
    """A value; of a table only what the other has otherwise."""
    if not (isinstance(value, Mapping) and isinstance(other, Mapping)):
        return repr(value)
    return ", ".join(f"{key} {item!r}" for key, item in value.items() if other.get(key) != item)


def _plan(records: list[dict[str, Any]]) -> Plan:
    return Plan.from_records(records)
