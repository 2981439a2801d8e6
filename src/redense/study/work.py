"""What a worker of a study does with a job: call the training function that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out, evaluate_again
from redense.runs.run import Run


@dataclass(frozen=True)
class FunctionWork:
    """A training function as it travels to workers: by value, with the folder, the import path and
    redense's own environment variables of the process that asked."""

    pickled: bytes
    directory: str
    import_path: tuple[str, ...]
    environment: dict[str, str]
    reads_test: bool
    data: dict[str, Any]

    @classmethod
    def of(
        cls, train: Callable[[Run], Any], *, reads_test: bool, data: dict[str, Any]
    ) -> FunctionWork:
        """Pack ``train``; closures and functions of notebooks and scripts are packed whole."""
        pickled = cloudpickle.dumps(train)
        ours = {name: value for name, value in os.environ.items() if name.startswith("REDENSE_")}
        return cls(pickled, str(Path.cwd()), tuple(sys.path), ours, reads_test, data)

    def __call__(self, folder: RunFolder) -> None:
        """Train one run to its record."""
        with self._at_home():
            carry_out(*self._unpacked(folder))

    def evaluate(self, folder: RunFolder) -> dict[str, dict[str, float]]:
        """Scores of a finished run whose last checkpoint is there, see `evaluate_again`."""
        with self._at_home():
            return evaluate_again(*self._unpacked(folder))

    @contextmanager
    def _at_home(self) -> Iterator[None]:
        """In the folder and with the import path of the process that asked; this one may be the
        same, and is left as it was."""
        path, folder, environment = list(sys.path), Path.cwd(), dict(os.environ)
        os.environ.update(self.environment)
        os.chdir(self.directory)
        sys.path[:] = self.import_path
        try:
            yield
        finally:
            sys.path[:] = path
            os.chdir(folder)
            for name in self.environment:
                os.environ.pop(name)
                if name in environment:
                    os.environ[name] = environment[name]

    def _unpacked(self, folder: RunFolder) -> tuple[Callable[[Run], Any], Run]:
        train = cloudpickle.loads(self.pickled)
        run = Run(folder, reads_test=self.reads_test, quiet=True)
        run.data = self.data
        return train, run
