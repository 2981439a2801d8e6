"""The report's tables: cells hold what is shown and, where it is a number, the number itself to
sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redense.report.records import Group, Run
from redense.study.compare import Contrast
from redense.study.methods import BASELINE, CONTROL, kind_of
from redense.study.summary import Summary


@dataclass(frozen=True)
class Cell:
    """What a table shows; ``value`` is the number behind it, ``bar`` a share to draw beside it."""

    text: str
    value: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """``rows`` under ``titles``; the first column heads the rows."""

    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False

    def is_number(self, column: int) -> bool:
        """Whether a column is set flush right."""
        return any(row[column].value is not None for row in self.rows)


@dataclass(frozen=True)
class Strip:
    """A method's phases as a bar: ``phases`` are (name, epochs, sparsity, mask)."""

    label: str
    meaning: str
    colour: str
    phases: Sequence[tuple[str, int, float, str]]
    longest: int = field(default=1)

    @property
    def epochs(self) -> int:
        """Its length."""
        return sum(length for _, length, _, _ in self.phases)

    @property
    def words(self) -> str:
        """The phases as text."""
        return ", ".join(
            f"{name} {length}"
            + (f" ({100 * sparsity:g} % held{', at random' * (mask == 'random')})" * bool(sparsity))
            for name, length, sparsity, mask in self.phases
        )


def number(value: float, form: str = ".3f") -> Cell:
    """A number as it is shown and as it is."""
    return Cell(signed(format(value, form)), value) if math.isfinite(value) else Cell(str(value))


def signed(text: str) -> str:
    """With the minus sign that is as wide as the plus."""
    return text.replace("-", "−")


def percent(share: float, bar: bool = False) -> Cell:
    """A share of one, in per cent."""
    return Cell(f"{100 * share:.1f} %", share, min(share, 1.0) if bar else None)


def strips(group: Group, colours: Mapping[str, tuple[str, str]]) -> list[Strip]:
    """Every method's phases, all to one scale."""
    longest = max(sum(phase["length"] for phase in run.record["plan"]) for run in group.runs)
    return [
        Strip(
            label,
            _meaning(group, label),
            colours[label][0],
            [
                (p["name"], p["length"], p["sparsity"], p["mask"])
                for p in group.of(label)[0].record["plan"]
            ],
            longest,
        )
        for label in group.labels
    ]


def _meaning(group: Group, label: str) -> str:
    """What a study's method is; where a single run lies."""
    if not group.is_study:
        return str(group.of(label)[0].folder)
    kind = kind_of(label)
    return f"{kind.title}: {kind.meaning}" if kind else "a plan of your own"


def scores_table(group: Group, summary: Summary) -> Table:
    """A row a method: its score, and its difference to the matched control."""
    rows = []
    for label in group.labels:
        mine = summary.comparison.summaries[label]
        rows.append(
            [
                Cell(label),
                number(summary.epochs[label], "g"),
                number(mine.n, "d"),
                number(mine.mean, f".{summary.decimals}f"),
                number(mine.sd, f".{summary.decimals}f"),
                *_difference(summary, summary.comparison.to_control.get(label)),
            ]
        )
    unit = f" in {summary.unit}" if summary.unit else ""
    titles = ("method", "epochs", "seeds", "mean", "sd", *_differences(summary, CONTROL))
    return Table(f"{summary.split} {summary.metric}{unit}, by method", titles, rows)


def beside_table(group: Group, summary: Summary) -> Table:
    """A row a method: its difference to the dense net."""
    found = summary.comparison.to_baseline
    rows = [
        [Cell(label), *_difference(summary, found[label])]
        for label in group.labels
        if label in found
    ]
    unit = f" in {summary.unit}" if summary.unit else ""
    return Table(
        f"{summary.split} {summary.metric}{unit}",
        ("method", *_differences(summary, BASELINE)),
        rows,
    )


def _differences(summary: Summary, reference: str) -> tuple[str, ...]:
    return (
        f"minus {reference}",
        f"{100 * summary.comparison.confidence:g} % interval",
        "p (Holm)",
        "better in",
    )


def _difference(summary: Summary, contrast: Contrast | None) -> list[Cell]:
    if contrast is None:
        return [Cell("–"), Cell("the matched control"), Cell("–"), Cell("–")]
    difference, sign = contrast.difference, 1 if summary.higher_is_better else -1
    low, high = sorted(sign * bound for bound in difference.interval)
    d = summary.decimals
    return [
        number(sign * difference.mean, f"+.{d}f"),
        Cell(signed(f"{low:+.{d}f} to {high:+.{d}f}"), low),
        number(contrast.holm_p),
        Cell(
            f"{100 * difference.paired_improvement:.0f} % of seeds", difference.paired_improvement
        ),
    ]


def phases_table(group: Group) -> Table:
    """Scores at the end of each phase, mean over seeds."""
    metric = group.runs[0].record["metric"]["name"]
    rows = []
    for label in group.labels:
        for phase in zip(*(run.record["phases"] for run in group.of(label)), strict=False):
            shown = [
                (one["valid"].get(metric), one["valid"].get("loss"), one["train_loss"])
                for one in phase
            ]
            means = [_mean(column) for column in zip(*shown, strict=True)]
            rows.append(
                [Cell(label), Cell(phase[0]["name"]), number(phase[0]["epochs"], "d"), *means]
            )
    titles = (
        "method",
        "phase",
        "epochs",
        f"validation {metric}",
        "validation loss",
        "training loss",
    )
    return Table("At the end of each phase, mean over seeds", titles, rows)


def runs_table(group: Group) -> Table:
    """Every run: its scores, seconds and cost."""
    metric = group.runs[0].record["metric"]
    name, unit = metric["name"], f" ({metric['unit']})" if metric["unit"] else ""
    titles = (
        "method",
        "seed",
        f"test {name}{unit}",
        f"validation {name}",
        "training loss",
        "seconds",
        "epochs",
    )
    titles += ("images" if group.runs[0].record["recipe"] == "images" else "examples",)
    return Table(
        "Scores of the final weights, and what they cost",
        titles,
        [_run_row(run, name) for label in group.labels for run in group.of(label)],
        sortable=True,
    )


def _run_row(run: Run, metric: str) -> list[Cell]:
    record = run.record
    return [
        Cell(run.label),
        number(run.seed, "d"),
        *(_mean([record[split].get(metric)], ".3f") for split in ("test", "valid")),
        number(record["phases"][-1]["train_loss"], ".4f"),
        number(record["seconds"], ",.1f"),
        number(record["cost"]["epochs"], "g"),
        number(record["cost"]["examples"], ",d"),
    ]


def _mean(values: Sequence[Any], form: str = "#.4g") -> Cell:
    known = [value for value in values if value is not None]
    return number(math.fsum(known) / len(known), form) if known else Cell("none")
