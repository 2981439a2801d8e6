"""What a worker of a study does with a job: train a recipe, or a function of the user's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out
from redense.runs.run import Run


@dataclass(frozen=True)
class FunctionWork:
    """A training function as it travels to workers: by value, with the folder and the import path
    of the process that asked."""

    pickled: bytes
    directory: str
    import_path: tuple[str, ...]
    reads_test: bool
    data: dict[str, Any]

    @classmethod
    def of(
        cls, train: Callable[[Run], Any], *, reads_test: bool, data: dict[str, Any]
    ) -> FunctionWork:
        """Pack ``train``; closures and functions of notebooks and scripts are packed whole."""
        pickled = cloudpickle.dumps(train)
        return cls(pickled, str(Path.cwd()), tuple(sys.path), reads_test, data)

    def __call__(self, folder: RunFolder) -> None:
        """Train one run to its record."""
        os.chdir(self.directory)
        sys.path[:] = self.import_path
        train = cloudpickle.loads(self.pickled)
        run = Run(folder, reads_test=self.reads_test, quiet=True)
        run.data = self.data
        carry_out(train, run)


def recipe_work(folder: RunFolder) -> None:
    """Train a recipe's run to its record."""
    from redense.runs.training import build_task, train

    train(folder, build_task(folder.config), quiet=True)
