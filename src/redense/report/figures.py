"""The report's figures as plain Plotly data; a colour is the name of one of the page's own,
``var(--c2) 20%``."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from redense.report.records import Group
from redense.study.compare import Contrast
from redense.study.methods import kind_of, simplicity
from redense.study.summary import Summary

Figure = dict[str, Any]

_OF_EPOCH = ("epoch", "phase", "rate", "sparsity", "seconds")
_SPLITS = {"valid": "validation", "train": "training"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def styles(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(colour, dash) of each method: the method's own colour; its sparsities, and unknown names,
    take turns in dash."""
    look: dict[str, tuple[str, str]] = {}
    used: Counter[str] = Counter()
    for number, label in enumerate(labels):
        kind, (name, _, mark) = kind_of(label), label.partition("@")
        if kind is None:
            look[label] = (f"var(--c{(2 + number) % 8})", _DASHES[number // 8 % len(_DASHES)])
            continue
        dash = _DASHES[used[name] % len(_DASHES)] if mark else kind.dash
        look[label] = (f"var(--c{kind.colour})", dash)
        used[name] += 1
    return look


def forest(
    summary: Summary, contrasts: Mapping[str, Contrast], names: Sequence[str], reference: str
) -> Figure:
    """Paired differences with their intervals, in the metric's own direction, and every seed's
    difference."""
    sign = 1 if summary.higher_is_better else -1
    look = styles(list(summary.scores))
    traces = []
    for name in names:
        contrast = contrasts[name]
        difference, (colour, _) = contrast.difference, look[name]
        low, high = sorted(sign * bound for bound in difference.interval)
        mean = sign * difference.mean
        pairs = [
            (seed, score - summary.scores[reference][seed])
            for seed, score in sorted(summary.scores[name].items())
            if seed in summary.scores[reference]
        ]
        traces += [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [value for _, value in pairs],
                "y": [plain(name)] * len(pairs),
                "text": [f"seed {seed}" for seed, _ in pairs],
                "marker": {
                    "size": 6,
                    "color": f"{colour} 45%",
                    "symbol": "line-ns-open",
                    "line": {"width": 1.5},
                },
                "hovertemplate": "%{y}, %{text}: %{x:+.3f}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(name),
                "x": [mean],
                "y": [plain(name)],
                "marker": {"size": 11, "color": colour, "symbol": "diamond"},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - mean],
                    "arrayminus": [mean - low],
                    "color": colour,
                    "thickness": 2.5,
                    "width": 5,
                },
                "hovertemplate": (
                    f"<b>{plain(name)}</b> {mean:+.3f}<br>{low:+.3f} to {high:+.3f}<br>"
                    f"p = {contrast.holm_p:.3f} (Holm), {difference.n} seeds<extra></extra>"
                ),
            },
        ]
    better = ("better →", "← worse") if summary.higher_is_better else ("worse →", "← better")
    return {
        "data": traces,
        "layout": {
            "height": 96 + 46 * len(names),
            "margin": {"t": 30, "b": 52},
            "showlegend": False,
            "xaxis": {
                "title": {
                    "text": plain(
                        f"{summary.split} {summary.metric} minus {reference}’s"
                        + _in_brackets(summary)
                    )
                },
                "zeroline": False,
                "tickformat": "~g",
            },
            "yaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": [plain(name) for name in reversed(names)],
                "range": [-0.6, len(names) - 0.4],
                "showgrid": False,
                "automargin": True,
            },
            "shapes": [
                {
                    "type": "line",
                    "x0": 0,
                    "x1": 0,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": "var(--ink)"},
                }
            ],
            "annotations": [
                note(better[0], x=1, xref="paper", xanchor="right"),
                note(better[1], x=0, xref="paper", xanchor="left"),
            ],
        },
    }


def columns(group: Group) -> list[str]:
    """What the runs logged per epoch: the judged score first, then losses, then the rest."""
    names: dict[str, None] = {}
    for run in group.runs:
        for row in run.record["history"]:
            names |= dict.fromkeys(name for name in row if _finite(row[name]))
    judged = judged_column(group)
    own = [name for name in names if name not in _OF_EPOCH]
    return sorted(own, key=lambda name: (name != judged, "loss" not in name, name == "train_loss"))


def judged_column(group: Group) -> str:
    """The column of the judged score: a recipe's is its validation split's, a function's is the
    user's word."""
    metric = group.record["metric"]["name"]
    logged = {name for run in group.runs for row in run.record["history"] for name in row}
    return f"valid_{metric}" if f"valid_{metric}" in logged else metric


def column_title(group: Group, column: str) -> str:
    """What a column is called on the page.

    ``valid_top1`` is "validation top1 (points)" where top1 is judged in points.
    """
    split, _, name = column.partition("_")
    title = f"{_SPLITS[split]} {name}" if name and split in _SPLITS else column
    unit = group.record["metric"]["unit"]
    return f"{title} ({unit})" if unit and column == judged_column(group) else title


def curves(group: Group, key: str) -> Figure | None:
    """One column of the histories against epochs: each method's mean line in a band of one sd over
    seeds.

    Shaded are the sparse phases of `reference_plan`'s method. ``close`` is the range of what
    follows the first phase.
    """
    look = styles(group.labels)
    plan = reference_plan(group)
    late = plan[0]["length"] if len(plan) > 1 else 0
    traces: list[Figure] = []
    bands: list[tuple[int, float]] = []
    seen: list[tuple[int, float]] = []
    for label in group.labels:
        runs = [run.record["history"] for run in group.of(label) if run.record["history"]]
        together = zip(*runs, strict=False)
        rows = [row for row in together if all(_finite(part.get(key)) for part in row)]
        if not rows:
            continue
        epochs = [row[0]["epoch"] for row in rows]
        values = [[part[key] for part in row] for row in rows]
        means = [fmean(row) for row in values]
        spread = [stdev(row) if len(row) > 1 else 0.0 for row in values]
        low = [mean - sd for mean, sd in zip(means, spread, strict=True)]
        high = [mean + sd for mean, sd in zip(means, spread, strict=True)]
        bands += [*zip(epochs, low, strict=True), *zip(epochs, high, strict=True)]
        seen += [(epoch, value) for epoch, row in zip(epochs, values, strict=True) for value in row]
        if len(runs) > 1:
            traces.append(_band(label, epochs, low, high, look[label][0]))
        spans = [
            [min(part), max(part), plain(str(row[0]["phase"]))]
            for part, row in zip(values, rows, strict=True)
        ]
        traces.append(_line(label, epochs, means, spans, look[label], len(runs)))
    if not traces:
        return None
    tail = [value for epoch, value in bands if epoch > late] or [value for _, value in bands]
    last = max(epoch for epoch, _ in seen)
    return {
        "data": traces,
        "close": {"x": [late / 2 + 0.5, last + 0.5], "y": _padded(tail)},
        "layout": {
            "height": 360,
            "margin": {"t": 26, "b": 44, "l": 54},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": {
                "title": {"text": "epoch"},
                "showgrid": False,
                "tickformat": "d",
                **({"dtick": 1} if last <= 12 else {}),
                "range": [0.5, last + 0.5],
            },
            "yaxis": {
                "title": {"text": plain(column_title(group, key))},
                "range": _padded([value for _, value in seen]),
            },
            **_phases(plan),
        },
    }


def _band(
    label: str, epochs: Sequence[int], low: Sequence[float], high: Sequence[float], colour: str
) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*epochs, *reversed(epochs)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": f"{colour} 12%",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "meta": label,
    }


def _line(
    label: str,
    epochs: Sequence[int],
    means: Sequence[float],
    spans: Sequence[Sequence[Any]],
    look: tuple[str, str],
    seeds: int,
) -> Figure:
    colour, dash = look
    span = f"<br>{seeds} seeds: %{{customdata[0]:.4~g}} to %{{customdata[1]:.4~g}}"
    return {
        "type": "scatter",
        "mode": "lines" if len(epochs) > 1 else "markers",
        "name": plain(label),
        "meta": label,
        "x": epochs,
        "y": means,
        "customdata": spans,
        "line": {"color": colour, "dash": dash, "width": 2.25},
        "marker": {"color": colour},
        "hovertemplate": f"<b>{plain(label)}</b> %{{y:.4~g}}<br>epoch %{{x}}, %{{customdata[2]}}"
        + span * (seeds > 1)
        + "<extra></extra>",
    }


def effect_against_cost(summary: Summary) -> Figure:
    """Mean scores with their intervals against the epochs that they cost; methods of equal cost
    stand side by side, each with its name."""
    look = styles(sorted(summary.scores, key=simplicity))
    by_cost: dict[float, list[str]] = {}
    for label in look:
        by_cost.setdefault(summary.epochs[label], []).append(label)
    longest = max(by_cost)
    step = 0.022 * (longest or 1.0)
    places: dict[str, float] = {}
    for cost, labels in by_cost.items():
        for number, label in enumerate(labels):
            places[label] = cost + step * (number - (len(labels) - 1) / 2)
    summaries = summary.comparison.summaries
    edges = [bound for label in look for bound in summaries[label].interval]
    low, high = _padded(edges)
    heights = _apart(
        {label: summaries[label].mean for label in look}, by_cost, 0.075 * (high - low)
    )
    traces, names = [], []
    for label, (colour, _) in look.items():
        mine = summaries[label]
        down, up = mine.interval
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(label),
                "x": [places[label]],
                "y": [mine.mean],
                "marker": {"size": 10, "color": colour},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [up - mine.mean],
                    "arrayminus": [mine.mean - down],
                    "color": f"{colour} 60%",
                    "thickness": 1.5,
                    "width": 3,
                },
                "hovertemplate": f"<b>{plain(label)}</b> %{{y:.4~g}}<br>{summary.epochs[label]:g} "
                f"epochs, {mine.n} seeds<br>{down:.4g} to {up:.4g}<extra></extra>",
            }
        )
        beside = max(places[other] for other in by_cost[summary.epochs[label]])
        names.append(
            {
                "text": plain(label),
                "x": beside + step,
                "y": heights[label],
                "xanchor": "left",
                "yanchor": "middle",
                "showarrow": False,
                "font": {"size": 12, "color": colour},
            }
        )
    return {
        "data": traces,
        "layout": {
            "height": 400,
            "margin": {"t": 26, "b": 52, "l": 58},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": {
                "title": {"text": "epochs of training"},
                "range": [min(by_cost) - 6 * step, longest + 18 * step],
                "tickvals": sorted(by_cost),
                "showgrid": False,
                "zeroline": False,
            },
            "yaxis": {
                "title": {
                    "text": plain(f"{summary.split} {summary.metric}{_in_brackets(summary)}")
                },
                "range": _padded([low, high, *heights.values()]),
            },
            "annotations": names,
        },
    }


def _in_brackets(summary: Summary) -> str:
    return f" ({summary.unit})" if summary.unit else ""


def _apart(
    means: Mapping[str, float], by_cost: Mapping[float, Sequence[str]], gap: float
) -> dict[str, float]:
    """Heights at which names of one column can be read: their means, moved apart to ``gap``."""
    heights: dict[str, float] = {}
    for labels in by_cost.values():
        ranked = sorted(labels, key=means.__getitem__)
        free: list[float] = []
        for label in ranked:
            free.append(max(means[label], free[-1] + gap) if free else means[label])
        lift = fmean(free) - fmean(means[label] for label in ranked)
        heights |= {label: height - lift for label, height in zip(ranked, free, strict=True)}
    return heights


def reference_plan(group: Group) -> list[dict[str, Any]]:
    """The phases that the curves shade: dsd's, else those of the first method that holds weights,
    else the longest."""
    plans = {label: group.plan_of(label) for label in group.labels}
    held = [label for label in group.labels if any(phase["sparsity"] for phase in plans[label])]
    chosen = next(
        (label for label in held if label.partition("@")[0] == "dsd"), next(iter(held), None)
    )
    return (
        plans[chosen]
        if chosen
        else max(plans.values(), key=lambda plan: sum(phase["length"] for phase in plan))
    )


def _phases(plan: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sparse phases as shaded stretches, others between thin lines, named where there is room."""
    ends = [0]
    for phase in plan:
        ends.append(ends[-1] + phase["length"])
    shapes, notes = [], []
    for phase, (start, end) in zip(plan, pairwise(ends), strict=True):
        across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below", "x0": start + 0.5}
        if phase["sparsity"]:
            shapes.append(
                {
                    "type": "rect",
                    "x1": end + 0.5,
                    "fillcolor": "var(--sparse)",
                    "line": {"width": 0},
                }
                | across
            )
        elif start:
            line = {"color": "var(--line)", "width": 1}
            shapes.append({"type": "line", "x1": start + 0.5, "line": line} | across)
        if end - start >= 0.16 * ends[-1]:
            notes.append(
                note(plain(phase["name"]), x=start + 0.5 + (end - start) / 2, xanchor="center")
            )
    return {"shapes": shapes, "annotations": notes}


def note(text: str, **where: Any) -> dict[str, Any]:
    """A quiet word on a figure, above its upper edge unless told."""
    quiet = {"size": 12, "color": "var(--muted)"}
    return {
        "text": text,
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": quiet,
    } | where


def _padded(values: Iterable[float]) -> list[float]:
    low, high = min(found := list(values)), max(found)
    pad = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return [low - pad, high + pad]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def plain(text: str) -> str:
    """Text in which Plotly's own little markup means nothing."""
    return html.escape(text, quote=False).replace("%{", "%&#123;").replace("$", "&#36;")
