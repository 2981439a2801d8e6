"""The pictures of docs/when.md, of records alone; ``python -m benchmarks.when`` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from redense.search.space import SIDES
from redense.study.stats import Difference

COLOURS = {"plan": "#33658a", "control": "#e07a1f"}
TUNED_COLOUR = "#8f2d56"

LEAST = 2.0
"""Points that a panel of scores spans at least: less is the noise of a validation split."""


@dataclass(frozen=True)
class Line:
    """A plan beside what it is set against: its matched control, the best one at customary
    settings, and the best tuned one."""

    name: str
    to_matched: Difference | None
    to_best: Difference | None
    to_tuned: Difference | None


def draw_differences(groups: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Every plan's mean difference to its controls, with 95 % intervals; right of zero the plan is
    better."""
    rows = sum(map(len, groups.values()))
    figure = Figure(figsize=(9, 1.3 + 0.33 * rows + 0.4 * len(groups)), layout="constrained")
    panels = figure.subplots(
        len(groups), 1, squeeze=False, height_ratios=[len(lines) + 1 for lines in groups.values()]
    )[:, 0]
    for axes, (title, lines) in zip(panels, groups.items(), strict=True):
        _intervals(axes, lines)
        axes.set_title(title, loc="left", fontsize=10)
    panels[-1].set_xlabel("points ahead of the control: right of the line the plan is better")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _intervals(axes: Axes, lines: Sequence[Line]) -> None:
    sides = (
        ("minus its matched control", COLOURS["plan"], "o", [line.to_matched for line in lines]),
        ("minus the best customary one", COLOURS["control"], "D", [line.to_best for line in lines]),
        ("minus the best tuned one", TUNED_COLOUR, "s", [line.to_tuned for line in lines]),
    )
    for place, (label, colour, shape, differences) in enumerate(sides):
        shown = [(row, one) for row, one in enumerate(differences) if one is not None]
        means = [one.mean for _, one in shown]
        reach = [
            [one.mean - one.interval[0] for _, one in shown],
            [one.interval[1] - one.mean for _, one in shown],
        ]
        at = [row + 0.24 * (place - 1) for row, _ in shown]
        axes.errorbar(means, at, xerr=reach, fmt=shape, ms=4, lw=1.2, label=label, color=colour)
    axes.axvline(0, color="#666666", lw=0.8)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_budgets(searches: Mapping[str, Mapping[str, Any]], path: Path, columns: int = 3) -> None:
    """Expected test score against trials, plans and controls, a panel for each search."""
    rows = -(-len(searches) // columns)
    figure = Figure(figsize=(3.4 * columns, 0.4 + 2.5 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(searches) :]:
        axes.remove()
    for axes, (name, one) in zip(panels, searches.items(), strict=False):
        budget = one["budget"]
        for side in SIDES:
            curve = {0: budget["usual"][side]} | {
                int(trials): score for trials, score in budget["curves"][side].items()
            }
            axes.plot(
                list(curve), list(curve.values()), "o-", ms=3, label=f"{side}s", color=COLOURS[side]
            )
        rising = one["higher_is_better"]
        axes.set_title(name if rising else f"{name}, errors downwards", fontsize=9)
        axes.set_xscale("symlog", linthresh=1)
        ticks = [trials for trials in (0, 1, 2, 5, 10, 20, 40) if trials <= max(curve)]
        axes.set_xticks(ticks, [str(trials) for trials in ticks])
        axes.set_xticks([], minor=True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        low, high = axes.get_ylim()
        spare = max(0.0, LEAST - (high - low)) / 2
        axes.set_ylim(low - spare, high + spare)
        axes.yaxis.set_inverted(not rising)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel("trials; 0: the customary setting", fontsize=9)
    figure.supylabel("expected test score", fontsize=9)
    figure.savefig(path, dpi=110)
