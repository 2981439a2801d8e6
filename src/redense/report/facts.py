"""How to make a group of runs again: the command that made them, as it was stored, and what they
ran on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from redense.report.records import Group
from redense.study.looks import looked_before

_WIDTH = 76


def commands(group: Group) -> list[str]:
    """The command lines that made these runs, folded between two flags where they are long."""
    return [_folded(command) for command in group.commands]


def facts(group: Group) -> list[tuple[str, str]]:
    """Versions, commit, hardware and data, every distinct value that the runs name."""

    def each(read: Callable[[Mapping[str, Any]], object]) -> str:
        values = (str(read(record) or "not recorded") for record in group.records)
        return "; ".join(dict.fromkeys(values))

    first = min(group.runs, key=lambda run: (run.label, run.seed))
    is_function = bool(group.record["function"])
    return [
        ("commit", each(lambda record: record["commit"])),
        ("versions", each(_versions)),
        ("hardware", each(_hardware)),
        ("function" if is_function else "data", each(_data)),
        (
            "its source’s sha256" if is_function else "data sha256",
            each(lambda record: record["data"]["sha256"]),
        ),
        *([("mind", each(_notes))] if any(map(_notes, group.records)) else []),
        *(("looks", said) for said in looked_before(group.looks)),
        ("scores", each(lambda record: record["selection"])),
        (
            f"weights of {first.label}, seed {first.seed}",
            str(first.record["weights_sha256"] or "not recorded"),
        ),
    ]


def _versions(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _hardware(record: Mapping[str, Any]) -> str:
    machine = record["hardware"]
    parts = [machine.get("accelerator"), machine.get("processor"), machine.get("machine")]
    if cores := machine.get("cores"):
        parts.append(f"{cores} cores")
    if threads := machine.get("threads"):
        parts.append(f"{threads} thread{'s' * (threads > 1)} per run")
    return ", ".join(str(part) for part in parts if part)


def _data(record: Mapping[str, Any]) -> str:
    sizes = record["data"].get("sizes", {})
    counted = ", ".join(f"{size:,} {split}" for split, size in sizes.items())
    name = str(record["data"]["name"])
    return f"{name} ({counted})" if counted else name


def _notes(record: Mapping[str, Any]) -> str:
    return "; ".join(record["data"].get("notes", ()))


def _folded(command: str) -> str:
    """One line as several of at most 76 characters, a flag beside its value."""
    parts: list[str] = []
    for word in shlex.split(command):
        if word.startswith("--") or not parts:
            parts.append(shlex.quote(word))
        else:
            parts[-1] += f" {shlex.quote(word)}"
    lines = parts[:1]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 1 > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"  {part}")
        else:
            lines[-1] += f" {part}"
    return "\n".join(lines)
