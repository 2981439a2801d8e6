"""One run of anything: what a training function is given, and the loop that it may use.

def train(run):
    model, optimizer = build(run.seed)
    for epoch in run.epochs(model, optimizer):
        train_one_epoch(model, optimizer)
    return {"valid": {"top1": accuracy(model)}}
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn
from torch.optim import Optimizer

from redense.plan import Plan
from redense.prunable import Patterns
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.loop import Loop, own_numbers
from redense.runs.task import Metric

Scores = Mapping[str, float]
Trained = float | Mapping[str, "Scores | Callable[[], Scores] | float"]
"""What a training function returns: a number, scores by metric, or those by split."""


class Stateful(Protocol):
    """Anything that can be saved and gone on with."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Go on from what `state_dict` gave."""


class Run:
    """What a training function is given: a plan, a seed, a folder, and a loop that can be resumed.

    Args:
        folder: where the run's files lie. config: the folder's own, unless the data lie elsewhere
            by now; it is written down once they are known to be the same.
        reads_test: whether the test split may be read; a search never does.
        quiet: print nothing.

    >>> def train(run):
    ...     model, optimizer = build(run.seed)
    ...     for epoch in run.epochs(model, optimizer):
    ...         train_one_epoch(model, optimizer)
    ...     return accuracy(model)
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        config: RunConfig | None = None,
        reads_test: bool = True,
        quiet: bool = False,
    ) -> None:
        self.files = folder
        self.config = config or folder.config
        self.reads_test, self.quiet = reads_test, quiet
        self.rows: list[dict[str, Any]] = []
        """One per epoch: what `log` was given, loss and scores."""
        self.seconds = 0.0
        self.examples: int | None = None
        self.network: nn.Module | None = None
        """The network whose weights are saved in the end; `epochs` and `steps` set it."""
        self.main = True
        """Whether this process writes; of several ranks the first does."""
        self.data: dict[str, Any] = {}
        """Name, sizes and sha256 of what it is trained on."""
        self.metric: Metric | None = None
        """What is judged; None for the first score that the training function returns."""
        self.selection = "what the training function returned"
        """Which weights are scored, in words."""
        self.prunable: dict[str, tuple[int, ...]] = {}
        """Names and shapes of the weights that may be held, in the network's order."""
        self.keeps_phases = False
        """Whether there is a checkpoint at each phase's end."""
        self.selected_row: int | None = None
        """Whose weights were kept, where that is the best epoch's."""
        self.selected_by = ""
        """The logged number that chose it; empty where a recipe's own metric did."""
        self.evaluates = False
        """Whether only scores are asked for, of what the last checkpoint holds."""
        self._plan = self.config.to_plan()
        self.asked_for_plan = False
        self._loop: Loop | None = None

    @property
    def plan(self) -> Plan:
        """The phases to train through; ``len(run.plan)`` is 0 for a network scored as it came.

        Whoever looks at it may train its first epochs by what comes after them (a schedule over
        ``len(run.plan)``, say), so such a run shares no epochs with others.
        """
        self.asked_for_plan = True
        return self._plan

    @property
    def branches(self) -> bool:
        """Whether other runs may start from this one's phases."""
        return self.keeps_phases and not self.files.alone.exists()

    @property
    def seed(self) -> int:
        """Of everything random in this run."""
        return self.config.seed

    @property
    def folder(self) -> Path:
        """The run's own folder; files of yours may lie in it."""
        return self.files.path

    def epochs(
        self,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer],
        *,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        rates: Literal["plan", "own"] = "plan",
        loader: Iterable[Any] | None = None,
        **stateful: Stateful,
    ) -> Iterator[int]:
        """Walk the plan, one epoch after another: give the number of each and save after it.

        Phases open and close, each parameter group trains at its own rate times the plan's factor,
        Python, NumPy and torch are seeded from (seed, epoch), and after a kill the loop goes on
        behind the last finished epoch with the same bits as if nothing had happened.

        Args:
            model, optimizer: as for `redense.sparse`; several optimizers as a list.
            include, exclude: which weights may be held, as for `redense.prunable`.
            rates: ``plan`` multiplies the rates of your own schedule by the plan's factor in each
                optimizer step; ``own`` leaves them alone.
            loader: training batches, for batch-norm statistics of averaged weights (SWA) and for
                the generator that it shuffles by, if it has one of its own.
            stateful: schedules, scalers, samplers: whatever has a ``state_dict`` to be resumed, and
                random generators of your own.

        Raises:
            ValueError: two loops in one run, averaged batch-norm without a loader, or a schedule or
                a shuffling loader that no checkpoint would hold.
        """
        return self._walk(
            Loop(
                self,
                model,
                optimizer,
                include,
                exclude,
                rates,
                loader,
                stateful,
                1,
                "epoch",
                sys._getframe(1),
            )
        )

    def steps(
        self,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer],
        *,
        save_every: int = 500,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        rates: Literal["plan", "own"] = "plan",
        loader: Iterable[Any] | None = None,
        **stateful: Stateful,
    ) -> Iterator[int]:
        """The same for a plan that counts optimizer steps; a checkpoint every ``save_every``.

        The batch of a step must follow from its number or from a loader that is saved with the run
        (``stateful``): a resumed loop starts at the step that it gives first.
        """
        if isinstance(save_every, bool) or not isinstance(save_every, int) or save_every < 1:
            raise ValueError(f"save_every must be a whole number of at least 1, got {save_every!r}")
        return self._walk(
            Loop(
                self,
                model,
                optimizer,
                include,
                exclude,
                rates,
                loader,
                stateful,
                save_every,
                "step",
                sys._getframe(1),
            )
        )

    def log(self, **values: float) -> None:
        """Add numbers to the row of the epoch (or checkpoint) that is being trained."""
        if self._loop is None:
            raise RuntimeError("run.log() adds to an epoch's row: call it inside run.epochs()")
        self._loop.log(values)

    @property
    def finished(self) -> bool:
        """Whether the plan was walked to its end, as far as this run can know."""
        return self._loop is None or self._loop.finished

    @property
    def used(self) -> bool:
        """Whether the training function asked for the plan in any way."""
        return self.keeps_phases or self.asked_for_plan

    def show(self, row: Mapping[str, Any], unit: str) -> None:
        """Print a finished row, unless the run is quiet."""
        if self.quiet or not self.main:
            return
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in own_numbers(row).items())
        print(
            f"{unit} {row['epoch']}/{len(self._plan)} {row['phase']}: "
            f"{numbers + ', ' if numbers else ''}sparsity {row['sparsity']:.3f}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )

    def _walk(self, loop: Loop) -> Iterator[int]:
        if self._loop is not None:
            raise ValueError("a run has one loop: call run.epochs() or run.steps() once")
        self._loop, self.keeps_phases = loop, True
        return loop.walk()
