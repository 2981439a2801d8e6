"""Where the default image recipe's wall time goes: ``python -m benchmarks.recipe_profile``.

One epoch each of dense, sparse and re-dense on Fashion-MNIST with the default flags, through the
same `train` that the command calls. Wall time runs from the first epoch's start to the last one's
end: batches, checkpoints, metrics, masks and TensorBoard are in it. Wanted: at least 85 % in
forward, backward and optimizer.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redense.plan import dsd
from redense.recipes.images.options import ImageOptions
from redense.recipes.images.task import ImageTask
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out
from redense.runs.record import environment
from redense.runs.run import Run
from redense.runs.training import fit

OUT = Path(__file__).parents[1] / "results/bench/recipe_profile.json"
WANTED = 0.85


class TimedTask(ImageTask):
    """The recipe's task with a stop-watch on each of its steps."""

    def __init__(self, options: ImageOptions | None = None) -> None:
        super().__init__(options or ImageOptions(), seed=0)
        self.seconds: dict[str, float] = defaultdict(float)
        self._start = 0.0

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def on_train_start(self) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_end(self) -> None:
        """Stop the clock."""
        self.seconds["wall"] = time.perf_counter() - self._start

    def training_step(self, *args: Any) -> Any:
        """Forward and loss."""
        with self._timed("forward"):
            return super().training_step(*args)

    def backward(self, *args: Any, **named: Any) -> None:
        """Backward, with the hooks that hold weights at zero."""
        with self._timed("backward"):
            super().backward(*args, **named)

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Part of the optimizer's work."""
        with self._timed("optimizer"):
            super().optimizer_zero_grad(*args)

    def optimizer_step(
        self, epoch: int, index: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """The step, with the hooks that hold weights at zero; its closure runs forward and
        backward, timed above."""

        def closure() -> Any:
            with self._timed("closure"):
                return optimizer_closure()

        with self._timed("step"):
            super().optimizer_step(epoch, index, optimizer, closure)

    def validation_step(self, *args: Any) -> None:
        """Forward and scores."""
        with self._timed("validation"):
            super().validation_step(*args)


def main() -> None:
    """Print one line; write shares and seconds."""
    task, plan = TimedTask(), dsd(1, 1, 1, 0.3, sparse_lr=0.1)
    config = RunConfig(recipe="images", plan=plan.to_records(), accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(RunFolder.create(Path(folder), config), quiet=True)
        carry_out(lambda run: fit(run, task), run)
    seconds = task.seconds
    seconds["optimizer"] += seconds.pop("step") - seconds.pop("closure")
    wall = seconds.pop("wall")
    training = sum(seconds[name] for name in ("forward", "backward", "optimizer"))
    share = (training + seconds["validation"]) / wall
    parts = ", ".join(f"{name} {100 * value / wall:.1f} %" for name, value in seconds.items())
    print(
        f"{100 * share:.1f} % of {wall:.1f} s in the network and its optimizer ({parts}); wanted "
        f"{100 * WANTED:.0f} %"
    )
    result = {
        "share": share,
        "share_without_validation": training / (wall - seconds["validation"]),
        "wanted": WANTED,
        "wall_seconds": wall,
        "seconds": dict(seconds),
        "images_per_second": 3 * len(task.data.train) / (wall - seconds["validation"]),
        **environment(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
