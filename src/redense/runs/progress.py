"""What a person sees while a run trains, and the table at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from redense.plan import Plan, in_percent
from redense.runs.growing import said_of, share_grown
from redense.runs.run import Run
from redense.runs.task import Task


class Progress(Callback):
    """One bar over the whole plan: phase, loss, score, time left; without a terminal, one line an
    epoch."""

    def __init__(self, plan: Plan, run: Run) -> None:
        self._plan, self._run = plan, run
        self._bar: Any = None
        self._score = ""
        self._noted: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and sys.stderr.isatty():
            each = int(trainer.num_training_batches)
            self._bar = tqdm(
                total=each * len(self._plan),
                initial=each * trainer.current_epoch,
                unit="step",
                leave=False,
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.set_description(
                f"{self._plan.at(trainer.current_epoch).name} "
                f"{trainer.current_epoch + 1}/{len(self._plan)}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.update()
            if batch_idx % 20 == 0:
                self._bar.set_postfix_str(f"loss {float(outputs['loss']):.3f}{self._score}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row = self._run.rows[-1]
        name = self._judged()
        self._score = f", valid {name} {row[f'valid_{name}']:.2f}"
        if self._bar is None and trainer.is_global_zero:
            valid = {key[6:]: value for key, value in row.items() if key.startswith("valid_")}
            scores = ", ".join(f"{score} {valid[score]:.2f}" for score in _shown(valid, name))
            print(
                f"epoch {row['epoch']}/{len(self._plan)} {row['phase']}: "
                f"loss {row['train_loss']:.3f}, valid {row['valid_loss']:.3f}, {scores}, "
                f"{100 * row['sparsity']:.0f} % zeros, {row['seconds']:.0f} s",
                flush=True,
            )

        if trainer.is_global_zero and row["epoch"] in (*self._plan.starts[1:], len(self._plan)):
            self._note(cast("Task", pl_module).notes(), row["phase"])

    def _note(self, notes: Iterable[str], phase: str) -> None:
        """At the end of a phase, once each."""
        for note in notes:
            if note not in self._noted:
                tqdm.write(f"after the {phase} phase {note}", file=sys.stderr)
        self._noted.update(notes)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _judged(self) -> str:
        if self._run.metric is None:
            raise RuntimeError("a recipe's run knows its metric before it trains")
        return self._run.metric.name

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _shown(scores: Mapping[str, float], judged: str) -> list[str]:
    """What fits a line: the judged score and one beside it, such as CER beside WER."""
    return [judged, *(name for name in scores if name not in ("loss", judged))][:2]


def print_result(record: dict[str, Any], console: Console | None = None) -> None:
    """The run as a table, a row a phase, then the released weights and the test scores."""
    console = console or Console(width=80)
    metric = record["metric"]["name"]
    scores = _shown(record["phases"][0]["valid"], metric)
    table = Table(
        "phase",
        box=SIMPLE,
        title=f"{record['recipe']}, {record['data']['name']}, seed {record['seed']}",
    )
    for title in (
        "epochs",
        "rate",
        "held",
        "zeros",
        "train\nloss",
        "valid\nloss",
        *(f"valid\n{s}" for s in scores),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for phase in record["phases"]:
        table.add_row(
            phase["name"],
            str(phase["epochs"]),
            f"{phase['rate']:.3g}",
            in_percent(phase["sparsity"]),
            f"{100 * phase['sparsity_measured']:.2f} %",
            f"{phase['train_loss']:.4f}",
            f"{phase['valid']['loss']:.4f}",
            *(f"{phase['valid'][score]:.2f}" for score in scores),
        )
    console.print(table)
    say = partial(console.print, soft_wrap=True)
    for grown in record["released"]:
        share = share_grown(grown)
        say(
            f"{grown['released']:,} weights released after {grown['phase']}: "
            f"{100 * grown['moved']:.1f} % have left "
            f"zero, mean |w| {grown['mean_released']:.3g}, {100 * share:.1f} % of the survivors' "
            f"{grown['mean_survivors']:.3g}"
        )
        if hardly := said_of(grown["until"], share):
            say(hardly)
    if record["test"]:
        scores_text = ", ".join(
            f"{name} {value:.2f}" for name, value in record["test"].items() if name != "loss"
        )
        say(f"test, read once at the end: {scores_text} (loss {record['test']['loss']:.4f})")
    if plain := record["data"].get("plain"):
        said = ", ".join(f"{name} {value:.2f}" for name, value in plain.items())
        say(f"the plainest answers, valid {metric}: {said}")
    for note in record["data"].get("notes", ()):
        say(note)
    if not any(phase["sparsity"] for phase in record["phases"]):
        return
    first, last = record["phases"][0], record["phases"][-1]
    difference = last["valid"][metric] - first["valid"][metric]
    say(
        f"valid {metric} {difference:+.2f} {record['metric']['unit']} since the first phase, at "
        "more training; "
        f"whether the sparse phase is the reason, `redense prove {record['recipe']}` tells"
    )
