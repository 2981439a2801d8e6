"""Steps and masks beside those of an older commit, by turns on the same machine in the same
minutes: ``python -m benchmarks.beside ab78bb3``.

Each commit is installed into a folder of its own, compiled as it was meant to be, and works in a
process of its own, which does one round whenever it is asked: the processes never work at the same
time. A ratio is the newer commit's time over the older one's of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, spread

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results/bench/beside.json"
WORK = {
    "VGG-16, batch 4 at 64 px": ("vgg16", 2),
    "ResNet-50, batch 8 at 112 px": ("resnet50", 2),
    "3 x Linear(4096), batch 32": ("linear", 6),
}
"""What is trained, and how many steps make a round."""

WORKER = """
import json, sys, time
import torch, redense
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
name, steps = sys.argv[1], int(sys.argv[2])
SPARSITY = 0.3
if name == "linear":
    model = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(3)))
    inputs, targets = torch.randn(32, 4096), torch.randint(4096, (32,))
else:
    import torchvision
    model = getattr(torchvision.models, name)()
    side, batch = (64, 4) if name == "vgg16" else (112, 8)
    inputs, targets = torch.randn(batch, 3, side, side), torch.randint(1000, (batch,))
optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
weights = redense.prunable(model)

def clock(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

def step():
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()

def median(call, many):
    return sorted(clock(call) for _ in range(many))[many // 2]

print(redense.__file__, flush=True)
for _ in sys.stdin:
    took = {"masks, layerwise": clock(lambda: redense.build_masks(weights, SPARSITY))}
    took["masks, global"] = clock(lambda: redense.build_masks(weights, SPARSITY, "global"))
    step()
    took["dense step"] = median(step, steps)
    held = redense.Constraint(model, optimizer, redense.build_masks(weights, SPARSITY))
    step()
    took["sparse step"] = median(step, steps)
    held.detach()
    print(json.dumps(took), flush=True)
"""


def beside(older: str, rounds: int) -> dict[str, Any]:
    """Ratios of this commit to ``older``, and each one's own seconds."""
    with tempfile.TemporaryDirectory(prefix="redense-beside-") as folder:
        paths = {commit: _installed(commit, Path(folder)) for commit in (older, "HEAD")}
        return {name: _race(paths, *work, rounds) for name, work in WORK.items()}


def _race(paths: dict[str, Path], name: str, steps: int, rounds: int) -> dict[str, Any]:
    took: dict[str, list[dict[str, float]]] = {commit: [] for commit in paths}
    with _workers(paths, name, steps) as workers:
        for number in range(-1, rounds):  # the first one warms up
            order = list(workers) if number % 2 else list(workers)[::-1]
            for commit in order:
                found = _ask(workers[commit])
                if number >= 0:
                    took[commit].append(found)
    old, new = took.values()
    return {
        what: {
            "ratio": spread(
                [mine[what] / theirs[what] for mine, theirs in zip(new, old, strict=True)]
            ),
            "older": spread([one[what] for one in old]),
            "newer": spread([one[what] for one in new]),
        }
        for what in new[0]
    }


def _ask(worker: subprocess.Popen[str]) -> dict[str, float]:
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write("\n")
    worker.stdin.flush()
    found: dict[str, float] = json.loads(worker.stdout.readline())
    return found


@contextmanager
def _workers(
    paths: dict[str, Path], name: str, steps: int
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    workers = {}
    try:
        for commit, path in paths.items():
            workers[commit] = subprocess.Popen(
                [sys.executable, "-c", WORKER, name, str(steps)],
                env={**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"},
                cwd=path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            found = workers[commit].stdout.readline().strip()  # type: ignore[union-attr]
            if not found.startswith(str(path)):
                raise RuntimeError(f"{commit} was to be imported from {path}, not {found}")
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _installed(commit: str, folder: Path) -> Path:
    """A commit's package, compiled, in a folder of its own."""
    source, target = folder / f"{commit}-source", folder / f"{commit}-installed"
    source.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    subprocess.run(["tar", "x", "-C", str(source)], input=archive, check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"),
            *(str(target), str(source)),
        ],
        check=True,
    )
    return target


def main() -> None:
    """Race, print a line per row, write the record."""
    parser = argparse.ArgumentParser(description="steps and masks beside an older commit's")
    parser.add_argument("older", nargs="?", default="ab78bb3", help="a commit")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = beside(asked.older, asked.rounds)
    for work, rows in found.items():
        for what, row in rows.items():
            ratio = row["ratio"]
            print(
                f"{work}, {what}: {ratio['median']:.3f} times the older one's "
                f"[{ratio['quartile1']:.3f}, {ratio['quartile3']:.3f}], "
                f"{row['newer']['median']:.3f} s"
            )
    content = {"older": asked.older, "rounds": asked.rounds, "work": found, **machine()}
    OUT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
