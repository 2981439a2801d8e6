"""Train a recipe's task with Lightning through a run's plan: one checkpoint per epoch, one for each
finished phase, and the same bits after any stop."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.tensorboard import SummaryWriter

from redense.files.records import with_rate
from redense.lightning import DSDCallback
from redense.masks import check_choosable
from redense.plan import Plan
from redense.prunable import prunable
from redense.runs.averaging import Averaging, MovingAverage
from redense.runs.checkpoints import read, save_whole, write_text
from redense.runs.configuration import RunConfig
from redense.runs.decay import WeightDecay
from redense.runs.loop import DivergedError, best_row
from redense.runs.progress import Progress
from redense.runs.restoring import check_fits, check_settings, check_whole
from redense.runs.run import Run, Scores
from redense.runs.seeds import rank_seed
from redense.runs.shrinking import shrink_and_perturb
from redense.runs.task import Batches, Task
from redense.runs.trainer import build_trainer, evaluate, quiet_lightning
from redense.runs.weights import share_of_zeros


def fit(run: Run, task: Task) -> dict[str, Scores | Callable[[], Scores]]:
    """Train ``task`` through the run's plan, or go on where that stopped; its scores by split.

    Every epoch's order, augmentation and dropout are drawn from (seed, epoch) alone, so a run that
    was stopped at any moment ends with the same bits as one that was not.
    """
    config, plan, module = run.config, run.config.to_plan(), cast("LightningModule", task)
    include, exclude = patterns_of(config, task)
    run.data, run.metric, run.network, run.keeps_phases = (
        task.fingerprint(),
        task.metric,
        task.model,
        True,
    )
    weights = prunable(module, include, exclude)
    run.prunable = {name: tuple(weight.shape) for name, weight in weights.items()}
    run.selection = "the last epoch's weights; the test split was read once, after training"
    if config.select == "best" and task.moving_average is not None:
        raise ValueError("early stopping keeps one epoch's own weights; leave out --ema")
    if not run.evaluates:
        run.files.mark_ended(plan)
    found = run.files.newest()
    history = _History(run, plan, task)
    if found is not None:
        check_whole(*found, ["DSDCallback", history.state_key])
        history.check_data(*found)
        history.check_settings(*found)
        check_fits(*found, module)
    elif config != run.files.config:
        raise ValueError(
            f"{run.folder} has no checkpoint yet, so nothing says on which data it was begun: "
            "start it anew"
        )
    if found is None and config.shrink < 1:
        shrink_and_perturb(task.model, config.shrink, run.seed)
    averaging: list[Averaging | MovingAverage] = []
    if task.moving_average is not None:
        averaging.append(MovingAverage(plan, task.moving_average))
    if config.average:
        averaging.append(Averaging(plan, config.average))  # SWA has the last word
    callbacks: list[Callback] = [
        DSDCallback(plan_within(plan), include=include, exclude=exclude, smooth=True),
        *averaging,
        history,
    ]
    if config.weight_decay:
        callbacks.append(_Decay(plan, config.weight_decay))
    if not run.quiet:
        callbacks.append(Progress(plan, run))
    trainer = build_trainer(config, len(plan), callbacks)
    run.main = trainer.is_global_zero
    if run.main and config != run.files.config:
        run.files.move(config)
    if found is not None and not run.quiet and run.main:
        print(f"going on from {found[0]}")
    if len(plan):
        _fit(trainer, module, None if found is None else str(found[0]))
    else:
        module.trainer = trainer  # what fitting would have done; it is scored as it came
    if config.select == "best" and len(plan):
        task.model.load_state_dict(read(run.files.best_file)["state_dict"])
        judged = f"valid_{task.metric.name}"
        run.selected_row = best_row(run.rows, judged, task.metric.higher_is_better)
        run.selection = "the weights of the best validation epoch; the test split was read once"
    for callback in averaging if len(plan) else ():
        callback.take_over(task)
    if run.main and len(plan):
        from redense.runs.pictures import draw_curves, draw_histograms  # matplotlib, now needed

        draw_curves(run.folder / "curves.png", run.rows, plan, task.metric)
        draw_histograms(run.files, plan)
    elif run.main:  # a network scored as it came
        task.keep(run.folder, {})

    def judged_first(split: str) -> Scores:
        loader = task.val_dataloader() if split == "valid" else task.test_dataloader()
        scores = evaluate(trainer, task, loader)
        return {task.metric.name: scores[task.metric.name], **scores} if scores else {}

    valid = judged_first("valid")
    if notes := task.notes():
        run.data["notes"] = [*run.data.get("notes", ()), *notes]
    return {"valid": valid, "test": lambda: judged_first("test")}


def _fit(trainer: Trainer, module: LightningModule, start: str | None) -> None:
    try:
        with quiet_lightning():
            trainer.fit(module, ckpt_path=start, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None


def patterns_of(config: RunConfig, task: Task) -> tuple[list[str] | None, list[str]]:
    """Include and exclude as names inside the task, whose network is called ``model``."""
    include, exclude = (
        [_inside(pattern) for pattern in patterns]
        for patterns in (config.include or task.prunes, config.exclude)
    )
    return include or None, exclude


def check_plan(config: RunConfig, task: Task) -> None:
    """Raise what the plan's phases would raise once they open: a pattern without effect, say."""
    weights = prunable(cast("LightningModule", task), *patterns_of(config, task))
    for phase in plan_within(config.to_plan()):
        check_choosable(weights, phase.sparsity, phase.mask)


def plan_within(plan: Plan) -> Plan:
    """The plan with its patterns as names inside a task."""
    phases = []
    for phase in plan:
        if isinstance(phase.sparsity, Mapping):
            shares = {_inside(pattern): share for pattern, share in phase.sparsity.items()}
            phase = replace(phase, sparsity=shares)
        phases.append(phase)
    return Plan(tuple(phases))


def _inside(pattern: str) -> str:
    return f"model.{pattern.removeprefix('model.')}"


class _Decay(Callback):
    """A factor on the weight decay of each phase."""

    def __init__(self, plan: Plan, factors: Sequence[float]) -> None:
        self._plan, self._factors = plan, factors
        self._decay: WeightDecay | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._decay is None:
            self._decay = WeightDecay(trainer.optimizers)
        self._decay.factor = self._factors[self._plan.index(trainer.current_epoch)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._decay is not None:
            self._decay.remove()


class _History(Callback):
    """Reseeds every epoch, keeps its scores, and saves: one checkpoint per epoch, one for each
    finished phase."""

    def __init__(self, run: Run, plan: Plan, task: Task) -> None:
        self._run, self._plan, self._task = run, plan, task
        self._examples: dict[str, dict[str, Any]] = {}
        self._valid: dict[str, float] = {}
        self._since = time.perf_counter()
        self._losses: list[torch.Tensor] = []
        self._board: SummaryWriter | None = None
        run.examples = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()
        if trainer.is_global_zero:
            self._task.keep(self._run.folder, {})  # so that the newest checkpoint can be used
            self._board = SummaryWriter(
                str(self._run.folder / "tensorboard"), purge_step=len(self._run.rows)
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(rank_seed(self._run.seed, trainer.current_epoch, trainer.global_rank))
        self._batches(trainer).set_epoch(trainer.current_epoch)
        self._losses = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"].detach())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._valid = self._task.scores()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run, epoch = self._run, trainer.current_epoch
        phase = self._plan.at(epoch)
        loss = trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")
        now = time.perf_counter()
        run.seconds += now - self._since
        self._since = now
        batches = int(trainer.num_training_batches)
        seen = batches * self._task.batch // trainer.accumulate_grad_batches
        run.examples = (run.examples or 0) + seen
        weights = prunable(pl_module, *patterns_of(run.config, self._task)).values()
        row = {
            "epoch": epoch + 1,
            "phase": phase.name,
            "rate": trainer.optimizers[0].param_groups[0]["initial_lr"]
            * self._plan.lr_factor(epoch),
            "sparsity": share_of_zeros(weights),
            "train_loss": float(loss),
            **{f"valid_{name}": value for name, value in self._valid.items()},
            "seconds": run.seconds,
        }
        _check_finite(row, len(self._plan))
        run.rows.append(row)
        self._keep_best(trainer.is_global_zero)
        ends = epoch + 1 in (*self._plan.starts[1:], len(self._plan))
        if ends:
            self._examples[phase.name] = self._task.examples()
        trainer.save_checkpoint(run.files.epoch_file(epoch + 1))
        if not trainer.is_global_zero:
            return
        if ends:
            run.files.mark_phase(epoch + 1, phase.name)
            self._task.keep(run.folder, self._examples)
        run.files.keep_last(2)
        write_text(run.folder / "metrics.csv", _as_csv(run.rows))
        for name, value in row.items():
            if isinstance(value, float) and self._board is not None:
                self._board.add_scalar(name, value, epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._board is not None:
            self._board.close()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self._run.rows,
            "seconds": self._run.seconds,
            "examples": self._run.examples,
            "answers": self._examples,
            "data_sha256": self._run.data["sha256"],
            "settings": self._run.config.settings,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._run.rows = [with_rate(row) for row in state_dict["rows"]]
        self._run.seconds = state_dict["seconds"]
        self._run.examples = state_dict["examples"]
        self._examples = dict(state_dict.get("answers", {}))

    def check_data(self, file: Path, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint that was trained on other data; one from before this
        was kept passes."""
        mine = self._run.data["sha256"]
        theirs = checkpoint["callbacks"][self.state_key].get("data_sha256", mine)
        if theirs != mine:
            raise ValueError(
                f"{file} was trained on other data than {self._run.data['name']} holds now: its "
                f"sha256 was {theirs}, now it is {mine}; bring the data back as they were, or "
                "start a new run"
            )

    def check_settings(self, file: Path, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with other settings than it was trained with."""
        saved = checkpoint["callbacks"][self.state_key].get("settings", {})
        now = self._run.config.settings
        check_settings(file, saved, now, elsewhere=self._task.elsewhere)

    @staticmethod
    def _batches(trainer: Trainer) -> Batches:
        return cast("Batches", trainer.train_dataloader)

    def _keep_best(self, main: bool) -> None:
        """For early stopping: the weights of the best validation epoch so far."""
        if not self._run.config.keeps_best:
            return
        metric = self._task.metric
        name = f"valid_{metric.name}"
        best = best_row(self._run.rows, name, metric.higher_is_better)
        if main and best == len(self._run.rows) - 1:
            save_whole({"state_dict": self._task.model.state_dict()}, self._run.files.best_file)


def _check_finite(row: Mapping[str, Any], epochs: int) -> None:
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise DivergedError(
                f"training has diverged: {name} is {value} in epoch {row['epoch']} of {epochs}, "
                f"phase {row['phase']!r}; a lower rate or gradient clipping may help"
            )


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
