"""What a study costs outside the user's function: ``python -m benchmarks.study_overhead``.

Eight methods and eight seeds of a function whose epochs take two seconds each, in which it sleeps:
all time beyond those epochs is the study's own, start-up, checkpoints and records included.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

import redense
from redense.runs.record import environment

OUT = Path(__file__).parents[1] / "results/bench/study_overhead.json"
EPOCH = 2.0
PLAN = redense.dsd(dense=4, sparse=2, redense=2, sparsity=0.5)
METHODS = ("dense", "longer", "lower_lr", "swa", "pruned", "random_dsd", "dsd", "dsdsd")
SEEDS = 8


def train(run: redense.Run) -> float:
    """A small network, two seconds an epoch."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pictures = torch.randn(32, 64)
    for _ in run.epochs(model, optimizer):
        started = time.perf_counter()
        optimizer.zero_grad()
        model(pictures).square().mean().backward()
        optimizer.step()
        time.sleep(EPOCH - (time.perf_counter() - started))
    return float(model(pictures).mean().detach())


def main() -> None:
    """Time the study; print and write the share outside the function."""
    with tempfile.TemporaryDirectory(prefix="redense-overhead-") as folder:
        started = time.perf_counter()
        study = redense.prove(train, PLAN, seeds=SEEDS, methods=METHODS, out=folder, jobs=1)
        seconds = time.perf_counter() - started
    epochs = sum(record["cost"]["epochs"] for record in study.records)
    inside = EPOCH * round(epochs * (1 - study.spared))
    share = 1 - inside / seconds
    print(
        f"{len(study.records)} runs in {seconds:.0f} s, {inside:.0f} s of them in the function: "
        f"{100 * share:.1f} % outside it",
        file=sys.stderr,
    )
    content = {
        "runs": len(study.records),
        "seconds": seconds,
        "seconds_in_the_function": inside,
        "share_outside": share,
        **environment(),
    }
    OUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
