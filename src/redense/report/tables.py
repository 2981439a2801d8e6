"""The report's tables of records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from redense.plan import Sparsity, in_percent
from redense.report.records import Group, Run
from redense.runs.sections import Cell, Table, number, signed
from redense.study.compare import Contrast
from redense.study.methods import kind_of, simplicity
from redense.study.stats import paired_difference
from redense.study.summary import Summary

_NONE = Cell("–")


@dataclass(frozen=True)
class Strip:
    """A method's phases as a bar: ``phases`` are (name, epochs, sparsity, mask)."""

    label: str
    meaning: str
    colour: str
    phases: Sequence[tuple[str, int, Sparsity, str]]
    longest: int = 1

    @property
    def words(self) -> str:
        """The phases as text."""
        return ", ".join(map(_phase_words, self.phases)) or "no training: the network as it came"


def _phase_words(phase: tuple[str, int, Sparsity, str]) -> str:
    name, length, sparsity, mask = phase
    if not sparsity:
        return f"{name} ({length})"
    how = "" if mask == "magnitude" else f", {mask}"
    return f"{name} ({length}, {in_percent(sparsity)} held{how})"


def strips(group: Group, colours: Mapping[str, tuple[str, str]]) -> list[Strip]:
    """Every method's phases, all to one scale."""
    longest = max(sum(phase["length"] for phase in run.record["plan"]) for run in group.runs)
    return [
        Strip(
            label,
            _meaning(group, label),
            colours[label][0],
            [(p["name"], p["length"], p["sparsity"], p["mask"]) for p in group.plan_of(label)],
            max(longest, 1),
        )
        for label in group.labels
    ]


def _meaning(group: Group, label: str) -> str:
    """What a study's method is; where a single run lies."""
    if not group.is_study:
        return str(group.of(label)[0].folder)
    kind = kind_of(label)
    return f"{kind.title}: {kind.meaning}" if kind else "a plan of your own"


def scores_table(summary: Summary) -> Table:
    """A row per method: its score, and its difference to the control."""
    rows = []
    for label in sorted(summary.scores, key=simplicity):
        mine = summary.comparison.summaries[label]
        rows.append(
            [
                Cell(label, note=_title_of(label)),
                number(summary.epochs[label], "g"),
                number(mine.n, "d"),
                number(mine.mean, f".{summary.decimals}f"),
                number(mine.sd, f".{summary.decimals}f"),
                *_to_control(summary, label),
            ]
        )
    titles = (
        "method",
        "epochs",
        "seeds",
        "mean",
        "sd",
        *_titles(summary, summary.comparison.control),
    )
    return Table(f"{_score(summary)}, by method", titles, rows)


def beside_table(summary: Summary) -> Table:
    """A row per method: its difference to the baseline, the dense net."""
    beside = summary.comparison.to_baseline
    rows = [
        [Cell(label, note=_title_of(label)), *_difference(summary, beside[label])]
        for label in sorted(beside, key=simplicity)
    ]
    return Table(_score(summary), ("method", *_titles(summary, summary.comparison.baseline)), rows)


def other_tables(group: Group, summary: Summary) -> list[Table]:
    """A table for each score that was not judged, the loss first: a plan that leaves accuracy alone
    may halve the loss. Differences are what was measured, whichever direction is better."""
    records = [run.record[summary.split] for run in group.runs]
    names = [name for name in records[0] if all(name in record for record in records)]
    names.sort(key=lambda name: name != "loss")
    return [_other_table(group, summary, name) for name in names if name != summary.metric]


def _other_table(group: Group, summary: Summary, name: str) -> Table:
    scores = {
        label: {run.seed: run.record[summary.split][name] for run in group.of(label)}
        for label in group.labels
    }
    rows = []
    reference = summary.comparison.control
    for label, mine in scores.items():
        control = scores[reference]
        seeds = [seed for seed in mine if seed in control]
        pairs = [(mine[seed], control[seed]) for seed in seeds]
        finite = all(math.isfinite(value) for pair in pairs for value in pair)
        cells = [_NONE, _NONE]
        if label != reference and len(pairs) > 1 and finite:
            difference = paired_difference(
                *zip(*pairs, strict=True), confidence=summary.comparison.confidence
            )
            low, high = difference.interval
            digits = max(3, _decimals(high - low))
            cells = [
                number(difference.mean, f"+.{digits}f"),
                Cell(signed(f"{low:+.{digits}f} to {high:+.{digits}f}"), low),
            ]
        rows.append([Cell(label), number(fmean(mine.values()), "#.4g"), *cells])
    titles = ("method", "mean", *_titles(summary, reference)[:2])
    return Table(f"{summary.split} {name}, not judged", titles, rows)


def _decimals(width: float) -> int:
    """Decimals that show two digits of an interval's half."""
    return min(max(2 - math.ceil(math.log10(width / 2)), 0), 12) if width > 0 else 0


def _score(summary: Summary) -> str:
    unit = f" in {summary.unit}" if summary.unit else ""
    return f"{summary.split} {summary.metric}{unit}"


def _title_of(label: str) -> str:
    kind = kind_of(label)
    return kind.title if kind else "a plan of your own"


def _titles(summary: Summary, reference: str) -> tuple[str, ...]:
    return (
        f"minus {reference}",
        f"{100 * summary.comparison.confidence:g} % interval",
        "p (Holm)",
        "better in",
    )


def _to_control(summary: Summary, label: str) -> list[Cell]:
    contrast = summary.comparison.to_control.get(label)
    if contrast is not None:
        return _difference(summary, contrast)
    named = Cell("the control") if label == summary.comparison.control else _NONE
    return [_NONE, named, _NONE, _NONE]


def _difference(summary: Summary, contrast: Contrast) -> list[Cell]:
    difference, sign = contrast.difference, 1 if summary.higher_is_better else -1
    low, high = sorted(sign * bound for bound in difference.interval)
    d = summary.decimals
    better = difference.paired_improvement
    return [
        number(sign * difference.mean, f"+.{d}f"),
        Cell(signed(f"{low:+.{d}f} to {high:+.{d}f}"), low),
        number(contrast.holm_p),
        Cell(f"{100 * better:.0f} % of seeds", better),
    ]


def phases_table(group: Group) -> Table | None:
    """Scores at the end of each phase, mean over seeds; None of runs with a loop of their own,
    which know no phases."""
    metric = group.record["metric"]["name"]
    phases = [phase for run in group.runs for phase in run.record["phases"]]
    if not phases:
        return None
    names = {name for phase in phases for name in phase["valid"]}
    shown = sorted(names, key=lambda name: (name != metric, name != "loss", name))
    trained = any("train_loss" in phase for phase in phases)
    rows = []
    for label in group.labels:
        for phase in zip(*(run.record["phases"] for run in group.of(label)), strict=False):
            columns = [[one["valid"].get(name) for one in phase] for name in shown]
            if trained:
                columns.append([one.get("train_loss") for one in phase])
            first = phase[0]
            head = [Cell(label), Cell(first["name"]), number(first["epochs"], "d")]
            rows.append([*head, *map(_mean, columns)])
    titles = ["method", "phase", "epochs", *(f"validation {name}" for name in shown)]
    if trained:
        titles.append("training loss")
    return Table("At the end of each phase, mean over seeds", titles, rows)


def runs_table(group: Group) -> Table:
    """Every run: its scores, seconds and cost."""
    metric = group.record["metric"]
    name, unit = metric["name"], f" ({metric['unit']})" if metric["unit"] else ""
    scores = [("test", name), ("valid", name), ("test", "loss"), ("valid", "loss")]
    known = [
        (split, score)
        for split, score in dict.fromkeys(scores)
        if any(score in run.record[split] for run in group.runs)
    ]
    titles = ["method", "seed"]
    for split, score in known:
        words = "validation" if split == "valid" else split
        titles.append(f"{words} {score}" + unit * (split == "test" and score == name))
    titles += ["seconds", "epochs"]
    counted = all(run.record["cost"]["examples"] is not None for run in group.runs)
    if counted:
        titles.append("examples")
    runs = [run for label in group.labels for run in group.of(label)]
    rows = [_run_row(run, known, counted) for run in runs]
    return Table("Scores of the final weights, and what they cost", titles, rows, sortable=True)


def _run_row(run: Run, scores: Sequence[tuple[str, str]], counted: bool) -> list[Cell]:
    record = run.record
    cost = [number(record["seconds"], ",.1f"), number(record["cost"]["epochs"], "g")]
    if counted:
        cost.append(number(record["cost"]["examples"], ",d"))
    return [
        Cell(run.label),
        number(run.seed, "d"),
        *(
            _mean([record[split].get(score)], ".4f" if score == "loss" else ".3f")
            for split, score in scores
        ),
        *cost,
    ]


def _mean(values: Sequence[Any], form: str = "#.4g") -> Cell:
    known = [value for value in values if value is not None]
    return number(fmean(known), form) if known else Cell("none")
