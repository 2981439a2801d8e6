"""A run's pictures: its curves, and the weight histograms of the paper's figure at five moments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from redense.plan import Plan
from redense.runs.checkpoints import read, write_text, write_whole
from redense.runs.folder import RunFolder
from redense.runs.record import masks_of
from redense.runs.task import Metric

BINS = 101
_SHADES = {True: "#f2c14e", False: "#9ec5e8"}


def draw_curves(path: Path, rows: list[dict[str, Any]], plan: Plan, metric: Metric) -> None:
    """Loss and score against epochs, phases shaded."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    losses.plot(epochs, [row["train_loss"] for row in rows], "o-", ms=3, label="train")
    losses.plot(epochs, [row["valid_loss"] for row in rows], "o-", ms=3, label="validation")
    losses.set(xlabel="epoch", ylabel="loss")
    losses.legend(frameon=False)
    scores.plot(
        epochs, [row[f"valid_{metric.name}"] for row in rows], "o-", ms=3, color="tab:orange"
    )
    scores.set(xlabel="epoch", ylabel=f"validation {metric.name} ({metric.unit})")
    for axes in (losses, scores):
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        for phase, start in zip(plan, plan.starts, strict=True):
            axes.axvspan(
                start + 0.5,
                start + phase.length + 0.5,
                color=_SHADES[bool(phase.sparsity)],
                alpha=0.25,
                lw=0,
            )
            axes.annotate(
                phase.name,
                (start + 0.6, 1.0),
                xycoords=("data", "axes fraction"),
                va="bottom",
                fontsize="small",
            )
    _save(figure, path)


def draw_histograms(run: RunFolder, plan: Plan) -> None:
    """histograms.json of every pruned layer for the report, histograms.png of the largest one."""
    moments = five_moments(run, plan)
    if not moments:
        return
    write_text(run.path / "histograms.json", json.dumps(moments) + "\n")
    name, layer = max(moments.items(), key=lambda item: item[1]["weights"])
    figure = Figure(figsize=(13, 2.8), layout="constrained")
    axes = figure.subplots(1, len(layer["moments"]), sharex=True)
    centres = torch.linspace(-layer["range"], layer["range"], BINS)
    for axis, (moment, counts) in zip(axes, layer["moments"].items(), strict=True):
        axis.bar(centres, counts, width=2 * layer["range"] / (BINS - 1), color="#33658a")
        axis.set_title(moment, fontsize="medium")
        axis.set_yscale("symlog", linthresh=max(layer["weights"] / 1000, 1))
    figure.suptitle(f"{name}: {layer['weights']:,} weights", fontsize="medium")
    figure.supxlabel("weight", fontsize="small")
    _save(figure, run.path / "histograms.png")


def five_moments(run: RunFolder, plan: Plan) -> dict[str, Any]:
    """Counts of each pruned layer's weights at the paper's five moments (its figure 2), from the
    phases' checkpoints.

    Two histograms leave the held weights out, as there: just pruned, and the sparse phase's end.
    """
    triple = next(
        (
            trio
            for trio in zip(plan.phases, plan.phases[1:], plan.phases[2:], strict=False)
            if trio[1].sparsity and not trio[0].sparsity and not trio[2].sparsity
        ),
        None,
    )
    if triple is None:
        return {}
    files = [run.phase_file(phase.name) for phase in triple]
    if not all(file.exists() for file in files):  # a search's trial keeps none
        return {}
    dense, sparse, redense = map(read, files)
    found = {}
    for name, mask in masks_of(sparse).items():
        before, held, after = (
            part["state_dict"][name].float() for part in (dense, sparse, redense)
        )
        limit = 4 * float(before.std()) or 1.0  # the few weights beyond are left out
        found[name.removeprefix("model.")] = {
            "weights": mask.numel(),
            "range": limit,
            "moments": {
                "dense": _counts(before, limit),
                "just pruned": _counts(before[mask], limit),
                "end of sparse": _counts(held[mask], limit),
                "at release": _counts(held, limit),
                "end of re-dense": _counts(after, limit),
            },
        }
    return found


def _counts(weights: Tensor, limit: float) -> list[int]:
    half = limit / (BINS - 1)  # the middle bin is centred on zero
    return [int(count) for count in torch.histc(weights, BINS, -limit - half, limit + half)]


def _save(figure: Figure, path: Path) -> None:
    write_whole(path, lambda partial: figure.savefig(partial, dpi=150, format=path.suffix[1:]))
