"""How to make a group of runs again: the command, rebuilt from what the records hold, and what it
ran on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from redense.plan import Plan
from redense.report.records import Group
from redense.study.methods import METHODS, build_methods

_MACHINE = {"accelerator": "auto", "devices": 1, "precision": "32-true"}


def command(group: Group) -> str | None:
    """The command that makes these runs, checked: its flags give exactly the records' plans; None
    where none does."""
    record = group.runs[0].record
    if group.is_study:
        flags = _study_flags(group)
    elif len(group.runs) == 1:
        flags = _schedule_flags(Plan.from_records(record["plan"]))
        if flags is not None:
            flags = {**flags, "seed": str(record["seed"])}
    else:
        return None
    if flags is None:
        return None
    config = group.config or {}
    flags |= {name: _text(value) for name, value in record["options"].items() if value is not None}
    flags |= {name: ",".join(config[name]) for name in ("include", "exclude") if config.get(name)}
    flags |= {
        name: _text(config[name])
        for name, usual in _MACHINE.items()
        if config.get(name, usual) != usual
    }
    words = [f"redense {'prove' if group.is_study else 'train'} {shlex.quote(record['recipe'])}"]
    words += [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in flags.items()]
    return _wrapped(words)


def facts(group: Group) -> list[tuple[str, str]]:
    """Versions, commit, hardware and data, every distinct value that the runs name."""
    records = group.records

    def each(read: Any) -> str:
        return "; ".join(dict.fromkeys(str(read(record)) for record in records))

    def hardware(record: Mapping[str, Any]) -> str:
        found = record.get("hardware") or {}
        threads = found.get("threads")
        parts = [found.get("accelerator"), found.get("processor"), found.get("machine")]
        parts += [
            f"{found['cores']} cores" if found.get("cores") else None,
            f"{threads} thread{'s' * (threads > 1)} a run" if threads else None,
        ]
        return ", ".join(str(part) for part in parts if part) or "not recorded"

    def data(record: Mapping[str, Any]) -> str:
        sizes = ", ".join(
            f"{size:,} {split}" for split, size in record["data"].get("sizes", {}).items()
        )
        return f"{record['data'].get('name', 'unnamed')}{f' ({sizes})' if sizes else ''}"

    def versions(record: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{name} {version}" for name, version in (record.get("versions") or {}).items()
        )

    first = min(group.runs, key=lambda run: (run.label, run.seed))
    return [
        ("commit", each(lambda record: record.get("commit") or "not recorded")),
        ("versions", each(versions)),
        ("hardware", each(hardware)),
        ("data", each(data)),
        ("data sha256", each(lambda record: record["data"]["sha256"])),
        ("test split", each(lambda record: record.get("selection", "not recorded"))),
        (
            f"weights of {first.label}, seed {first.seed}",
            str(first.record.get("weights_sha256", "not recorded")),
        ),
    ]


def _study_flags(group: Group) -> dict[str, str] | None:
    """Methods, seeds and schedule, if building the methods from them gives the plans back."""
    found = {label: Plan.from_records(group.of(label)[0].record["plan"]) for label in group.labels}
    if group.config and "methods" in group.config:
        found = {
            name: Plan.from_records(records) for name, records in group.config["methods"].items()
        }
    names = list(dict.fromkeys(label.partition("@")[0] for label in found))
    proved = {
        label.partition("@")[2]: plan
        for label, plan in found.items()
        if label.partition("@")[0] == "dsd"
    }
    if not proved or any(name not in METHODS for name in names):
        return None
    schedules = [_schedule_flags(plan) or {"sparsity": ""} for plan in proved.values()]
    shares = [
        mark or schedule.pop("sparsity") for mark, schedule in zip(proved, schedules, strict=True)
    ]
    for schedule in schedules:
        schedule.pop("sparsity", None)
    if (
        not schedules[0]
        or "mask" in schedules[0]
        or any(schedule != schedules[0] for schedule in schedules)
    ):
        return None
    try:
        made = build_methods(names, proved)
    except ValueError:
        return None
    if {label: method.plan for label, method in made.items()} != found:
        return None
    seeds = max(run.seed for run in group.runs) + 1
    return (
        {"seeds": str(seeds), "methods": ",".join(names)}
        | schedules[0]
        | {"sparsity": ",".join(shares)}
    )


def _schedule_flags(plan: Plan) -> dict[str, str] | None:
    """The schedule's flags that give ``plan``, None where only a plan file does."""
    from redense.recipes.schedule import Schedule

    held = [phase for phase in plan if phase.sparsity]
    if not held:
        return None
    first = plan.index(plan.starts[plan.phases.index(held[0])])
    rest = plan.phases[first:]
    lengths = {phase.length for phase in held}, {phase.length for phase in rest[1::2]}
    if first > 1 or len(rest) != 2 * len(held) or any(len(one) > 1 for one in lengths):
        return None
    fields: dict[str, Any] = {
        "dense": plan.phases[0].length if first else 0,
        "sparse": held[0].length,
        "redense": rest[1].length,
        "sparsity": _one_or_all([phase.sparsity for phase in rest[::2]]),
        "passes": len(held),
        "sparse_lr": _one_or_all([phase.lr for phase in rest[::2]]),
        "redense_lr": _one_or_all([phase.lr for phase in rest[1::2]]),
        "decay": plan.phases[0].decay,
        "mask": held[0].mask_name,
    }
    try:
        same = Schedule(**fields).to_plan() == plan
    except ValueError:
        return None
    usual = {"passes": 1, "mask": "magnitude"}
    return (
        {name: _text(value) for name, value in fields.items() if value != usual.get(name)}
        if same
        else None
    )


def _one_or_all(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace(" ", "") if isinstance(value, list) else str(value)


def _wrapped(words: list[str], width: int = 76) -> str:
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 1 > width:
            lines[-1] += " \\"
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)
