"""A search's two pictures: score against tuning budget, and score against what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from redense.runs.checkpoints import write_whole
from redense.search.budget import Budget
from redense.search.space import SIDES
from redense.search.trials import Tried

_COLOURS = {"plan": "#33658a", "control": "#e07a1f"}
_CHOICES = ("sparsity", "mask", "passes", "layers")


def draw_budget(path: Path, budget: Budget) -> None:
    """The expected score after so many trials, plans and controls, from the customary setting
    on."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes: Axes = figure.subplots()
    for side in SIDES:
        points = {0: budget.usual[side], **budget.curves[side]}
        axes.plot(list(points), list(points.values()), "o-", label=f"{side}s", color=_COLOURS[side])
    axes.set_xscale("symlog", linthresh=1)
    ticks = sorted({0, *(many for side in SIDES for many in budget.curves[side])})
    axes.set_xticks(ticks, [str(many) for many in ticks])
    axes.set(xlabel="trials (0: the customary setting)", ylabel=f"expected {budget.metric}")
    axes.legend(frameon=False)
    _save(figure, path)


def draw_choices(path: Path, plans: Sequence[Tried], controls: Sequence[Tried]) -> None:
    """Every plan's validation score against each of its choices; lines are the best control's and
    the customary control's."""
    shown = [one for one in plans if one.scores]
    names = [name for name in _CHOICES if all(name in one.choices for one in shown)]
    figure = Figure(figsize=(3.6 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    levels = _levels(controls)
    for axes, name in zip(panels, names, strict=True):
        for in_full, shape in ((False, "o"), (True, "D")):
            some = [one for one in shown if one.in_full == in_full]
            values = [one.choices[name] for one in some]
            scores = [one.score for one in some]
            label = "every seed" if in_full else "given up"
            axes.scatter(values, scores, marker=shape, alpha=0.7, label=label, c=_COLOURS["plan"])
        for level, (score, dash) in levels.items():
            axes.axhline(score, ls=dash, lw=1, label=level, color=_COLOURS["control"])
        axes.set_xlabel(name)
    panels[0].set_ylabel("validation score")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)


def _levels(controls: Sequence[Tried]) -> Mapping[str, tuple[float, str]]:
    """The controls' scores as lines."""
    usual = next(one for one in controls if one.number == 0)
    levels = {}
    if usual.scores:
        levels["customary control"] = (usual.score, ":")
    best = [one for one in controls if one.in_full]
    return levels | ({"best control": (best[0].score, "-")} if best else {})


def _save(figure: Figure, path: Path) -> None:
    write_whole(path, lambda partial: figure.savefig(partial, dpi=110, format="png"))
