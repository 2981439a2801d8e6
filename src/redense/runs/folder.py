"""The run folder: what lies where, and which checkpoint a run goes on from.

config.json       what was asked for: recipe, method, seed, options, plan
plan.txt          the plan as a table
metrics.csv       one row an epoch; tensorboard/ the same for TensorBoard
checkpoints/      epoch-0003.ckpt (the last two) and one for each finished phase, dense.ckpt
model.safetensors the final network under the architecture's ordinary keys
record.json       the result, written last; curves.png, histograms.png; histograms.json for the
report
"""

from __future__ import annotations

import re
import sys
import time
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from redense.files.text import read_text
from redense.plan import Plan
from redense.runs.checkpoints import (
    DamagedCheckpointError,
    copy_whole,
    make_folder,
    read,
    write_text,
)
from redense.runs.configuration import RunConfig


class RunFolder:
    """Paths of one run; ``create`` makes a new folder, ``RunFolder(path)`` opens one.

    Raises:
        FileNotFoundError: there is no run at ``path``.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise FileNotFoundError(
                f"{self.path} is no run folder: it has no config.json; redense train makes one"
            )

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make ``path`` a run folder; one that already holds a run is refused."""
        check_new(path)
        make_folder(path, "a run folder")
        (path / "checkpoints").mkdir(exist_ok=True)
        write_text(path / "plan.txt", f"{config.to_plan()}\n")
        write_text(path / "config.json", config.to_json())
        return cls(path)

    def move(self, config: RunConfig) -> None:
        """Go on by ``config``, in which the same data lie elsewhere."""
        write_text(self.path / "config.json", config.to_json())

    @classmethod
    def wait_for(cls, path: Path, seconds: float = 600) -> RunFolder:
        """Open the run folder that another process of this run is about to make."""
        deadline = time.monotonic() + seconds
        while not (path / "config.json").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no run folder at {path} after {seconds:.0f} s; do all processes see the same "
                    "--out?"
                )
            time.sleep(0.1)
        return cls(path)

    @property
    def config(self) -> RunConfig:
        """What `create` stored."""
        file = self.path / "config.json"
        text = read_text(file)
        try:
            return RunConfig.from_json(text, file)
        except ValueError as error:
            if '"architecture"' not in text:
                raise
            raise ValueError(
                f"{self.path} is what redense export made of a run; this needs the run's own folder"
            ) from error

    @property
    def record(self) -> Path:
        """The result's file, there once the run is done."""
        return self.path / "record.json"

    @property
    def model(self) -> Path:
        """The final network's weights under the architecture's ordinary keys."""
        return self.path / "model.safetensors"

    @property
    def best_file(self) -> Path:
        """The best epoch's weights, of a run that keeps them; no phase's file has this ending."""
        return self.path / "checkpoints" / "best.weights"

    def epoch_file(self, epoch: int) -> Path:
        """The checkpoint after ``epoch`` epochs."""
        return self.path / "checkpoints" / f"epoch-{epoch:04d}.ckpt"

    def phase_file(self, phase: str) -> Path:
        """The checkpoint at the end of a phase; every phase of the plan has a file of its own."""
        return self.path / "checkpoints" / f"{self._stems.get(phase) or _stem(phase)}.ckpt"

    @cached_property
    def _stems(self) -> dict[str, str]:
        """What the phases' files are called: as the phases, in letters and digits of any script,
        and with their number where two would be alike, an epoch's, or nothing."""
        stems: dict[str, str] = {}
        for number, phase in enumerate(self.config.to_plan(), start=1):
            stem, taken = _stem(phase.name), {one.casefold() for one in stems.values()}
            if not stem.strip("-") or stem.casefold() in taken or stem.startswith("epoch-"):
                stem = f"phase-{number}-{stem.strip('-')}"
            while stem.casefold() in taken:
                stem += "-"
            stems[phase.name] = stem
        return stems

    def best_of(self, phase: str) -> Path:
        """The best epoch's weights as they were at the end of a phase."""
        return self.phase_file(phase).with_suffix(".best.weights")

    @property
    def alone(self) -> Path:
        """Where a run stands from whose phases no other run may start: it says why."""
        return self.path / "alone.txt"

    def newest(self, *, before: int | None = None) -> tuple[Path, dict[str, Any]] | None:
        """The last epoch's checkpoint that is whole, and its content; a damaged one is named and
        passed over.

        Args:
            before: this epoch and those behind it do not count.

        Raises:
            DamagedCheckpointError: there are checkpoints, and all are damaged.
        """
        files = self._epoch_files()[::-1]
        if before is not None:
            files = [file for file in files if _epoch_of(file) < before]
        for file in files:
            try:
                return file, read(file)
            except DamagedCheckpointError as error:
                print(f"{error}; trying the one before it", file=sys.stderr)
        if files:
            raise DamagedCheckpointError(
                f"no checkpoint in {self.path / 'checkpoints'} is whole; start the run anew"
            )
        return None

    def keep_last(self, many: int) -> None:
        """Remove the epochs' checkpoints but the last ``many``, and what a killed process left
        half-written."""
        folder = self.path / "checkpoints"
        for file in (*self._epoch_files()[:-many], *folder.glob(".*.part")):
            file.unlink()

    def mark_phase(self, epoch: int, phase: str) -> None:
        """Keep the checkpoint after ``epoch`` epochs as the phase's, and the best weights so far,
        without a second copy on disk."""
        copy_whole(self.epoch_file(epoch), self.phase_file(phase))
        if self.best_file.exists():
            copy_whole(self.best_file, self.best_of(phase))

    def mark_ended(self, plan: Plan) -> None:
        """Keep the newest checkpoint as its phase's where a kill came between the two."""
        files = self._epoch_files()
        if not files:
            return
        epoch = _epoch_of(files[-1])
        ends = dict(zip((*plan.starts[1:], len(plan)), plan, strict=True))
        if epoch in ends and not self.phase_file(ends[epoch].name).exists():
            self.mark_phase(epoch, ends[epoch].name)

    def _epoch_files(self) -> list[Path]:
        """The epochs' checkpoints by their number: 10,000 comes after 9,999."""
        return sorted((self.path / "checkpoints").glob("epoch-*.ckpt"), key=_epoch_of)


def _stem(phase: str) -> str:
    """A file's name, without its ending, in at most 150 bytes."""
    return re.sub(r"[\W_]+", "-", phase).encode()[:150].decode(errors="ignore")


def _epoch_of(file: Path) -> int:
    return int(file.stem.removeprefix("epoch-"))


def check_new(path: Path) -> None:
    """Raise ValueError where ``path`` already holds a run."""
    if (path / "config.json").exists():
        raise ValueError(
            f"{path} already holds a run; resume it with --resume {quote(str(path))} or choose "
            "another --out"
        )


def next_folder(recipe: str, root: Path = Path("runs")) -> Path:
    """runs/images-1, -2, ...: the first number that is free, made at once, so that trainings that
    start together have one each."""
    make_folder(root, "a run folder")
    number = 1
    while not _taken_by_us(root / f"{recipe}-{number}"):
        number += 1
    return root / f"{recipe}-{number}"


def _taken_by_us(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
