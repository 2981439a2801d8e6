"""How much pruning each layer bears: one layer at a time, several levels, on held-out data (the
paper's section 3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from redense.masks import magnitude_mask
from redense.plan import Plan, check_share, in_percent
from redense.prunable import prunable
from redense.runs.checkpoints import read, write_text, write_whole
from redense.runs.folder import RunFolder
from redense.runs.task import Task
from redense.runs.trainer import build_trainer, evaluate
from redense.runs.training import patterns_of

LEVELS = (0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Sensitivity:
    """Validation scores of a dense network with one layer pruned at a time.

    Args:
        name, higher_is_better, unit: of the scores.
        dense: the untouched network's score.
        scores: for each layer, a score a level.
        proposal: for each layer the highest level that costs at most ``tolerance``; 0 where even
            the lowest costs more.
    """

    name: str
    higher_is_better: bool
    unit: str
    dense: float
    levels: tuple[float, ...]
    scores: dict[str, tuple[float, ...]]
    tolerance: float
    proposal: dict[str, float]

    @property
    def says_nothing(self) -> bool:
        """Whether no layer's pruning costs anything that counts, at any level: of a network that
        has hardly learned there is nothing to lose."""
        return set(self.proposal.values()) == {self.levels[-1]}


def measure(
    run: RunFolder, task: Task, levels: Sequence[float] = LEVELS, tolerance: float = 0.5
) -> Sensitivity:
    """Prune each prunable layer of ``run``'s first phase's network by itself and read the
    validation split.

    Args:
        task: the run's, with its data; the phase's weights are loaded into it.
        levels: sparsities to try, each in [0, 1).
        tolerance: what a layer's pruning may cost, in the metric's unit.
    """
    levels = tuple(sorted(check_share(level) for level in levels))
    config = run.config
    file = run.phase_file(config.to_plan().phases[0].name)
    if not file.exists():
        raise FileNotFoundError(
            f"{file}: the first phase is not finished; redense train {config.recipe} --resume"
        )
    module = cast("LightningModule", task)
    module.load_state_dict(read(file)["state_dict"])
    trainer = build_trainer(config, 1, [])
    dense = _score(trainer, task)
    weights = prunable(module, *patterns_of(config, task))
    scores = {}
    bar = tqdm(
        total=len(weights) * len(levels),
        desc="pruning one layer at a time",
        disable=None,
        leave=False,
    )
    with bar, torch.no_grad():
        for name, weight in weights.items():
            kept, pruned = weight.clone(), []
            for level in levels:
                weight.mul_(magnitude_mask(kept, level))
                pruned.append(_score(trainer, task))
                weight.copy_(kept)
                bar.update()
            scores[name.removeprefix("model.")] = tuple(pruned)
    metric = task.metric
    sign = 1 if metric.higher_is_better else -1
    proposal = {}
    for layer, scored in scores.items():
        pairs = zip(levels, scored, strict=True)
        borne = [level for level, score in pairs if sign * (dense - score) <= tolerance]
        proposal[layer] = max(borne, default=0.0)
    return Sensitivity(
        **asdict(metric),
        dense=dense,
        levels=levels,
        scores=scores,
        tolerance=tolerance,
        proposal=proposal,
    )


def proposed_plan(measured: Sensitivity, plan: Plan) -> Plan:
    """``plan`` with the proposal, a share a layer, as the sparsity of every phase that holds
    weights.

    Raises:
        ValueError: the plan holds nothing in any phase, or no layer bears the lowest level.
    """
    shares = {layer: share for layer, share in measured.proposal.items() if share}
    if not any(phase.sparsity for phase in plan):
        raise ValueError("the run's plan holds nothing in any phase")
    if not shares:
        lowest = measured.levels[0]
        raise ValueError(
            f"no layer bears {in_percent(lowest)} at {measured.tolerance:g} {measured.unit}; try "
            "lower levels or a higher tolerance"
        )
    phases = (replace(phase, sparsity=shares) if phase.sparsity else phase for phase in plan)
    return Plan(tuple(phases))


def save(measured: Sensitivity, run: RunFolder) -> list[Path]:
    """sensitivity.json and sensitivity.png, a curve a layer, in the run's folder."""
    table, picture = run.path / "sensitivity.json", run.path / "sensitivity.png"
    write_text(table, json.dumps(asdict(measured), indent=2) + "\n")
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for layer, scores in measured.scores.items():
        axes.plot((0.0, *measured.levels), (measured.dense, *scores), "o-", ms=3, label=layer)
    axes.axhline(measured.dense, color="0.6", lw=0.8, ls="--")
    axes.set(
        xlabel="share of one layer's weights set to zero",
        ylabel=f"validation {measured.name} ({measured.unit})",
    )
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    write_whole(picture, lambda partial: figure.savefig(partial, dpi=150, format="png"))
    return [table, picture]


def save_plan(measured: Sensitivity, run: RunFolder) -> Path:
    """sensitivity.toml in the run's folder: the proposal as a plan for ``redense train --plan``.
    Where there is none, none of an earlier measurement stays.

    Raises:
        ValueError: as `proposed_plan`.
    """
    file = run.path / "sensitivity.toml"
    file.unlink(missing_ok=True)
    write_text(file, proposed_plan(measured, run.config.to_plan()).to_toml() + "\n")
    return file


def print_sensitivity(measured: Sensitivity, console: Console | None = None) -> None:
    """A row a layer: its score at each level, and the proposal."""
    console = console or Console(width=max(Console().width, 110), soft_wrap=True)
    table = Table(
        "layer",
        box=SIMPLE,
        title=f"validation {measured.name} with one layer pruned; dense {measured.dense:.2f}",
    )
    for level in measured.levels:
        table.add_column(f"{100 * level:g} %", justify="right")
    table.add_column("proposal", justify="right")
    for layer, scores in measured.scores.items():
        table.add_row(
            layer, *(f"{score:.2f}" for score in scores), f"{100 * measured.proposal[layer]:g} %"
        )
    console.print(table)
    console.print(
        f"proposal: the most that costs at most {measured.tolerance:g} {measured.unit} before any "
        "re-training; "
        f"dense-sparse-dense re-trains, and the paper's 25 to 50 % for all layers is a common start"
    )
    if measured.says_nothing:
        most = in_percent(measured.levels[-1])
        console.print(
            f"warning: no layer alone costs more than that at {most}, so the "
            f"proposal tells nothing: the network has hardly learned ({measured.name} "
            f"{measured.dense:.2f}), or the tolerance is wide"
        )


def _score(trainer: Trainer, task: Task) -> float:
    cast("LightningModule", task).trainer = trainer
    return evaluate(trainer, task, task.val_dataloader())[task.metric.name]
