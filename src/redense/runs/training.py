"""Train any recipe's task through a plan, in a run folder that survives Ctrl-C, kill -9 and a full
disk."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from redense.lightning import DSDCallback
from redense.plan import Plan
from redense.prunable import prunable
from redense.recipes import RECIPES
from redense.runs.averaging import Averaging, MovingAverage
from redense.runs.checkpoints import write_text, write_whole
from redense.runs.folder import RunFolder
from redense.runs.pictures import draw_curves, draw_histograms
from redense.runs.progress import Progress
from redense.runs.record import environment, mask_overlap, released
from redense.runs.trainer import build_trainer, evaluate, quiet_lightning
from redense.runs.weights import count_zeros, weights_sha256, whole_weights


def build_task(config: dict[str, Any]) -> Any:
    """The task of a run's config, its data read and its network built; mistakes in either are told
    here."""
    task_class, options_class = RECIPES[config["recipe"]].load()
    task = task_class(options_class(**config["options"]), config["seed"])
    prunable(task, *patterns_of(config))
    return task


def train(run: RunFolder, task: Any, *, quiet: bool = False) -> dict[str, Any]:
    """Train ``task`` through ``run``'s plan, or go on where that stopped, and return the run's
    record.

    Every epoch's order, augmentation and dropout are drawn from (seed, epoch) alone, so a run that
    was stopped at any moment ends with the same bits as one that was not.
    """
    config = run.config
    plan = Plan.from_records(config["plan"])
    include, exclude = patterns_of(config)
    found = run.newest()
    history = _History(run, plan, config["seed"], task.fingerprint())
    if found is not None:
        history.check_data(*found)
    averaging: list[Any] = (
        [MovingAverage(plan, ema)] if (ema := getattr(task.options, "ema", None)) else []
    )
    if config.get("average"):
        averaging.append(Averaging(plan, config["average"]))  # SWA has the last word
    callbacks = [DSDCallback(plan, include=include, exclude=exclude), *averaging, history]
    trainer = build_trainer(
        config, len(plan), [*callbacks, *([] if quiet else [Progress(plan, history)])]
    )
    if found is not None and not quiet and trainer.is_global_zero:
        print(f"going on from {found[0]}")
    with quiet_lightning():
        trainer.fit(task, ckpt_path=None if found is None else str(found[0]), weights_only=True)
    for callback in averaging:
        callback.take_over(task)
    valid, test = (
        evaluate(trainer, task, loader)
        for loader in (task.val_dataloader(), task.test_dataloader())
    )
    weights = whole_weights(task.model)
    if not trainer.is_global_zero:
        return {}
    write_whole(run.model, lambda partial: save_file(weights, str(partial)))
    record = _record(run, plan, task, history) | {
        "weights_sha256": weights_sha256(weights),
        "valid": valid,
        "test": test,
    }
    draw_curves(run.path / "curves.png", history.rows, plan, task.metric, task.unit)
    draw_histograms(run, plan)
    write_text(run.record, json.dumps(record, indent=2) + "\n")
    return record


class _History(Callback):
    """Reseeds every epoch, keeps its scores, and saves: one checkpoint an epoch, one for each
    finished phase."""

    def __init__(self, run: RunFolder, plan: Plan, seed: int, data: dict[str, Any]) -> None:
        self.data = data
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.examples = 0
        self._run, self._plan, self._seed = run, plan, seed
        self._valid: dict[str, float] = {}
        self._since = time.perf_counter()
        self._losses: list[torch.Tensor] = []
        self._board: SummaryWriter | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()
        if trainer.is_global_zero:
            self._board = SummaryWriter(
                str(self._run.path / "tensorboard"), purge_step=len(self.rows)
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(
            (self._seed * 1_000_003 + trainer.current_epoch) * 4099 + trainer.global_rank
        )
        trainer.train_dataloader.set_epoch(trainer.current_epoch)
        self._losses = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._valid = pl_module.scores()  # type: ignore[operator]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch
        phase = self._plan.at(epoch)
        loss = trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now
        options: Any = pl_module.options
        self.examples += (
            int(trainer.num_training_batches) * options.batch // trainer.accumulate_grad_batches
        )
        row = {
            "epoch": epoch + 1,
            "phase": phase.name,
            "lr": trainer.optimizers[0].param_groups[0]["initial_lr"] * self._plan.lr_factor(epoch),
            "sparsity": _zeros(trainer.callbacks[0], pl_module),  # type: ignore[attr-defined]
            "train_loss": float(loss),
            **{f"valid_{name}": value for name, value in self._valid.items()},
            "seconds": self.seconds,
        }
        self.rows.append(row)
        trainer.save_checkpoint(self._run.epoch_file(epoch + 1))
        if not trainer.is_global_zero:
            return
        if epoch + 1 in (*self._plan.starts[1:], len(self._plan)):
            self._run.mark_phase(epoch + 1, phase.name)
            if hasattr(pl_module, "phase_ended"):
                pl_module.phase_ended(phase.name, self._run.path)
        self._run.keep_last(2)
        write_text(self._run.path / "metrics.csv", _as_csv(self.rows))
        for name, value in row.items():
            if isinstance(value, float) and self._board is not None:
                self._board.add_scalar(name, value, epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._board is not None:
            self._board.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "seconds": self.seconds,
            "examples": self.examples,
            "data_sha256": self.data["sha256"],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self.seconds, self.examples = state_dict["seconds"], state_dict["examples"]

    def check_data(self, file: Path, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint that was trained on other data; one from before this
        was kept passes."""
        mine = self.data["sha256"]
        theirs = checkpoint["callbacks"][self.state_key].get("data_sha256", mine)
        if theirs != mine:
            raise ValueError(
                f"{file} was trained on other data than {self.data['name']} holds now: its sha256 "
                f"was {theirs}, now it "
                f"is {mine}; bring the data back as they were, or start a new run"
            )


def patterns_of(config: dict[str, Any]) -> tuple[list[str] | None, list[str]]:
    """Include and exclude as names inside the task, whose network is called ``model``."""
    asked = config["include"] or RECIPES[config["recipe"]].prunes, config["exclude"]
    include, exclude = (
        [f"model.{p.removeprefix('model.')}" for p in patterns] for patterns in asked
    )
    return include or None, exclude


def _record(run: RunFolder, plan: Plan, task: Any, history: _History) -> dict[str, Any]:
    config = run.config
    phases = []
    for phase, start in zip(plan, plan.starts, strict=True):
        last = history.rows[start + phase.length - 1]
        phases.append(
            {
                "name": phase.name,
                "epochs": phase.length,
                "lr": history.rows[start]["lr"],
                "sparsity": phase.sparsity,
                "sparsity_measured": last["sparsity"],
                "train_loss": last["train_loss"],
                "valid": {
                    name[6:]: value for name, value in last.items() if name.startswith("valid_")
                },
            }
        )
    return {
        "recipe": config["recipe"],
        "method": config["method"],
        "seed": config["seed"],
        "plan": plan.to_records(),
        "phases": phases,
        "metric": {
            "name": task.metric,
            "higher_is_better": task.higher_is_better,
            "unit": task.unit,
        },
        "released": released(run, plan),
        "mask_overlap": mask_overlap(run, plan),
        "data": history.data,
        "options": asdict(task.options),
        "selection": "the last epoch's weights; the test split was read once, after training",
        **environment(),
        "seconds": history.seconds,
        "cost": {"epochs": len(plan), "examples": history.examples},
        "history": history.rows,
    }


def _zeros(callback: DSDCallback, module: LightningModule) -> float:
    """Share of zeros among the weights that may be pruned."""
    weights = prunable(module, callback.include, callback.exclude).values()
    return sum(map(count_zeros, weights)) / sum(weight.numel() for weight in weights)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
