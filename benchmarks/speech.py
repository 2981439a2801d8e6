"""How fast speech trains: `redense train speech` against a plain PyTorch loop of the same network,
in one run.

    python -m benchmarks.speech

Each epoch of the recipe is followed by the same epoch (same batches, loss, clipping, AdamW) in a
plain loop, so both meet the same weather. Claims: at least 0.95 of the plain loop's seconds of
audio a second of CPU time, in dense and in sparse epochs; features are made much faster than they
are trained on; the recurrence is no slower than torch.nn.RNN.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from redense.plan import dsd
from redense.recipes.speech import features
from redense.recipes.speech.data import Split
from redense.recipes.speech.options import SpeechOptions
from redense.recipes.speech.recurrent import SharedRecurrent
from redense.recipes.speech.task import SpeechTask, ctc
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out
from redense.runs.run import Run
from redense.runs.training import fit

from .measure import machine

OUT = Path(__file__).parents[1] / "results/bench/speech.json"
PLAN = dsd(3, 2, 2, 0.5)
OPTIONS = SpeechOptions(train_utterances=128)


class Timed(SpeechTask):
    """The recipe's task, with a plain loop's epoch after each of its own."""

    def __init__(self, options: SpeechOptions, seed: int) -> None:
        super().__init__(options, seed)
        valid = self.data.valid  # validation is not measured
        few = Split(valid.utterances[:32], valid.sounds.pick(range(32)), valid.symbols[:32])
        self.data = replace(self.data, valid=few, test=few)
        self.own: list[float] = []
        self.plain: list[float] = []
        self._twin = [copy.deepcopy(self.model)]
        self._optimizer = torch.optim.AdamW(self._twin[0].parameters(), lr=options.lr)

    def on_train_epoch_start(self) -> None:
        """The clock of the recipe's epoch."""
        self._since = time.process_time()

    def on_validation_epoch_start(self) -> None:
        """The recipe's epoch is over: the plain one."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.own.append(time.process_time() - self._since)
        batches = self.train_dataloader()
        batches.set_epoch(self.current_epoch)
        since = time.process_time()
        with torch.enable_grad():
            for sounds, spoken in batches:
                self._optimizer.zero_grad()
                ctc(self._twin[0](sounds), spoken).backward()
                nn.utils.clip_grad_norm_(self._twin[0].parameters(), self.options.clip)
                self._optimizer.step()
        self.plain.append(time.process_time() - since)


def recipe_against_plain_loop() -> dict[str, Any]:
    """Print and return seconds of audio a second of CPU time of both in each phase, and their
    ratio."""
    torch.manual_seed(0)
    task = Timed(OPTIONS, 0)
    seconds = 0.01 * int(task.data.train.sounds.lengths.sum())
    config = RunConfig(recipe="speech", plan=PLAN.to_records(), accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(RunFolder.create(Path(folder) / "run", config), quiet=True)
        carry_out(lambda run: fit(run, task), run)
    print(f"{len(task.data.train)} utterances, {seconds:.0f} s of audio, small network, one thread")
    found: dict[str, Any] = {
        "utterances": len(task.data.train),
        "audio_seconds": seconds,
        "phases": {},
    }
    for phase, start in zip(PLAN, PLAN.starts, strict=True):
        measured = slice(max(start, 1), start + phase.length)  # the very first epoch warms up
        own, plain = (statistics.mean(times[measured]) for times in (task.own, task.plain))
        found["phases"][phase.name] = {
            "ours": seconds / own,
            "plain": seconds / plain,
            "ratio": plain / own,
        }
        print(
            f"{phase.name:8} redense {seconds / own:6.0f}, plain loop {seconds / plain:6.0f} s of "
            "audio a second of "
            f"CPU time; {plain / own:.3f} of it"
        )
    made = median_time(lambda: features.features(torch.randn(11_025 * 10).numpy(), 11_025))
    print(
        f"features {10 / made:6.0f} s of audio a second in one process (and only once: they are "
        "kept)"
    )
    return found | {"features": 10 / made}


def recurrence_against_torch(width: int = 512, batch: int = 16, times: int = 150) -> float:
    """Print forward and backward time of the shared-input layer and of a bidirectional
    torch.nn.RNN."""
    ours = SharedRecurrent(width, width, norm=False)
    theirs = nn.RNN(width, width, nonlinearity="relu", bidirectional=True)
    packed = pack_padded_sequence(torch.randn(times, batch, width), torch.full((batch,), times))
    mine = median_time(lambda: ours(packed).data.sum().backward())
    torchs = median_time(lambda: theirs(packed)[0].data.sum().backward())
    print(
        f"recurrent layer of {width}, {batch} x {times} frames: {1000 * mine:.0f} ms, torch.nn.RNN "
        "(two input "
        f"matrices) {1000 * torchs:.0f} ms: {torchs / mine:.2f} times as fast"
    )
    return torchs / mine


def median_time(work: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU seconds of ``work``, after one that does not count."""
    work()
    found = []
    for _ in range(repeats):
        since = time.process_time()
        work()
        found.append(time.process_time() - since)
    return statistics.median(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {
        "recurrence_times_as_fast_as_torch": recurrence_against_torch()
    } | recipe_against_plain_loop()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result | {"machine": machine()}, indent=2) + "\n")
