"""What a report says about the weights: histograms at five moments, how far released ones grew,
masks that recur."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from redense.files.typed import Count, Kind, Number, Positive, read_json
from redense.plan import share_of
from redense.report.figures import Figure, note, plain, styles
from redense.report.records import Group
from redense.runs.growing import said_of, share_grown
from redense.runs.sections import Cell, Table, number, percent


class _Layer(TypedDict):
    """Counts of one layer's weights, bin by bin, by moment."""

    weights: Positive
    range: Number
    moments: dict[str, list[Count]]


_HISTOGRAMS = Kind(dict[str, _Layer], "table of histograms", "delete it, and the page goes without")


def overlaps(group: Group) -> Figure | None:
    """Overlap of two passes' masks, a row per layer: the mean over seeds, and what masks drawn
    blindly would share."""
    look = styles(group.labels)
    traces: list[Figure] = []
    chances: list[float] = []
    layers: dict[str, None] = {}
    for label in group.labels:
        passes: dict[tuple[str, str], list[dict[str, float]]] = {}
        for run in group.of(label):
            for shared in run.record["mask_overlap"]:
                passes.setdefault((shared["phase"], shared["with"]), []).append(shared["layers"])
        for shape, ((first, second), seeds) in enumerate(passes.items()):
            names = list(seeds[0])
            layers |= dict.fromkeys(names)
            plan = group.plan_of(label)
            expected = [chance_overlap(plan, first, second, name) for name in names]
            chances += expected
            text = plain(f"{label}: {first} and {second}")
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": text,
                    "x": [math.fsum(seed[name] for seed in seeds) / len(seeds) for name in names],
                    "y": [plain(name) for name in names],
                    "marker": {"size": 10, "color": look[label][0], "symbol": shape},
                    "customdata": expected,
                    "hovertemplate": f"%{{y}}: %{{x:.1%}}<br>{text}, {len(seeds)} seeds"
                    "<br>by chance %{customdata:.0%}<extra></extra>",
                }
            )
    if not traces:
        return None
    one = len(traces) == 1
    alone = one and len(set(chances)) == 1
    return {
        "data": traces,
        "layout": {
            "height": 110 + max(18, 30 - len(layers) // 3) * len(layers),
            "margin": {"t": 34, "b": 48},
            "showlegend": not one,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {
                "range": [-0.02, 1.04],
                "tickformat": ".0%",
                "title": {"text": "held in both, of held in either"},
            },
            "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
            "shapes": [
                {
                    "type": "line",
                    "x0": chance,
                    "x1": chance,
                    "y0": 0,
                    "y1": 1,
                    "yref": "paper",
                    "line": {"color": "var(--muted)", "dash": "dot"},
                }
                for chance in sorted(set(chances))
            ],
            "annotations": [note("chance", x=chances[0], xanchor="center")] if alone else [],
        },
    }


def chance_overlap(plan: Sequence[Mapping[str, Any]], first: str, second: str, layer: str) -> float:
    """Intersection over union of two masks of a layer that know nothing of each other, from their
    sparsities."""
    shares = {phase["name"]: share_of(layer, phase["sparsity"]) for phase in plan}
    s, t = shares[first], shares[second]
    return float(s * t / (s + t - s * t))


def overlap_table(group: Group) -> Table:
    """The same numbers, a row a layer and pair of passes."""
    rows = []
    for label in group.labels:
        seeds = [run.record["mask_overlap"] for run in group.of(label)]
        for pair in zip(*(found for found in seeds if found), strict=False):
            first, second = pair[0]["phase"], pair[0]["with"]
            for layer in pair[0]["layers"]:
                shares = [found["layers"][layer] for found in pair]
                rows.append(
                    [
                        Cell(label),
                        Cell(f"{first}, {second}"),
                        Cell(layer),
                        percent(math.fsum(shares) / len(shares)),
                        Cell(f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"),
                        percent(chance_overlap(group.plan_of(label), first, second, layer)),
                    ]
                )
    return Table(
        "Overlap of masks by layer",
        ("method", "phases", "layer", "overlap", "over seeds", "by chance"),
        rows,
    )


def released_table(group: Group) -> Table | None:
    """How far the weights that a sparse phase held have grown by the end of the next phase, mean
    over seeds."""
    rows = []
    for label in group.labels:
        seeds = [run.record["released"] for run in group.of(label)]
        for grown in zip(*(found for found in seeds if found), strict=False):
            mean = {
                key: math.fsum(one[key] for one in grown) / len(grown)
                for key in grown[0]
                if key not in _NAMES
            }
            ratios = [
                one["mean_released"] / one["mean_survivors"]
                for one in grown
                if one["mean_survivors"]
            ]
            rows.append(
                [
                    Cell(label),
                    Cell(f"{grown[0]['phase']} → {grown[0]['until']}"),
                    Cell(f"{mean['released']:,.0f}", mean["released"]),
                    percent(mean["moved"]),
                    number(mean["mean_released"], "#.3g"),
                    number(mean["mean_survivors"], "#.3g"),
                    percent(math.fsum(ratios) / len(ratios), bar=True) if ratios else Cell("n/a"),
                ]
            )
    if not rows:
        return None
    titles = (
        "method",
        "held → released",
        "weights",
        "off zero",
        "their mean |w|",
        "survivors’",
        "ratio",
    )
    return Table("Growth of released weights, mean over seeds", titles, rows)


def hardly_grown(group: Group) -> list[str]:
    """A sentence for each method and phase whose released weights hardly grew, mean over seeds."""
    said = []
    for label in group.labels:
        seeds = [run.record["released"] for run in group.of(label)]
        for grown in zip(*(found for found in seeds if found), strict=False):
            shares = [share_grown(one) for one in grown if one["mean_survivors"]]
            if shares and (words := said_of(grown[0]["until"], math.fsum(shares) / len(shares))):
                said.append(f"{label}, {words}.")
    return said


def histograms(group: Group) -> dict[str, Any]:
    """histograms.json of each method's first seed that has one, by ``method, seed N``."""
    kept = {}
    for label in group.labels:
        for run in group.of(label):
            file = run.folder / "histograms.json"
            if file.is_file() and (layers := _read_histograms(file)):
                kept[f"{label}, seed {run.seed}"] = layers
                break
    return kept


def _read_histograms(file: Path) -> dict[str, _Layer]:
    layers = read_json(file, _HISTOGRAMS)
    moments = {
        name: [len(counts) for counts in layer["moments"].values()]
        for name, layer in layers.items()
    }
    if len({(*layer["moments"], *moments[name]) for name, layer in layers.items()}) > 1:
        raise ValueError(
            f"{file} is no {_HISTOGRAMS.what}: its layers have other moments or bins; "
            f"{_HISTOGRAMS.remedy}"
        )
    return layers


def histogram_table(name: str, layers: Mapping[str, Any]) -> Table:
    """Share of each layer's weights in the bin around zero, at each moment."""
    moments = list(next(iter(layers.values()))["moments"])
    rows = []
    for layer, found in layers.items():
        shares = [
            found["moments"][moment][len(found["moments"][moment]) // 2] / found["weights"]
            for moment in moments
        ]
        rows.append(
            [Cell(layer), Cell(f"{found['weights']:,}", found["weights"]), *map(percent, shares)]
        )
    return Table(
        f"{name}: share of each layer's weights in the bin around zero",
        ("layer", "weights", *moments),
        rows,
    )


_NAMES = ("phase", "until")
