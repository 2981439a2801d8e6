"""Where the time goes from ``redense train images`` to its first optimizer step, in seconds of the
processor (on an idle machine seconds): ``python -m benchmarks.start``.

Each start is a process of its own that trains the default run until its first step, with Lightning
as `redense` imports it and as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, spread

OUT = Path(__file__).parents[1] / "results/bench/start.json"
WAYS = ("as redense imports it", "as it comes")
CODE = """
import json, os, sys, time
marks = [("Python", time.process_time())]
def mark(name): marks.append((name, time.process_time()))
import torch; mark("import torch")
if sys.argv[1] == "as it comes": import torchmetrics
from redense.runs.lean import import_lightning
import_lightning(); mark("import Lightning")
import redense.runs.training
from redense.recipes.images import task
mark("import the recipe")
load, build = task.load, task.ImageTask.__init__
def loaded(*given, **named):
    data = load(*given, **named); mark("flags and data"); return data
def built(*given):
    build(*given); mark("network")
task.load, task.ImageTask.__init__ = loaded, built
def stepped(optimizer, given, named):
    mark("trainer and first step")
    print(json.dumps(marks), flush=True)
    os._exit(0)
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(stepped)
from redense.cli import main
main(["train", "images", "--out", sys.argv[2], *sys.argv[3:]])
"""


def start(way: str, flags: Sequence[str] = ()) -> dict[str, float]:
    """Seconds of each part of one start, in order."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CODE, way, f"{folder}/run", *flags],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    marks = json.loads(done.stdout.splitlines()[-1])
    parts, before = {}, 0.0
    for name, seconds in marks:
        parts[name] = seconds - before
        before = seconds
    return parts | {"in all": before}


def measure(times: int, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Median and quartiles of every part, of both ways by turns."""
    starts: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(times):
        for way in WAYS:
            starts[way].append(start(way, flags))
    return {
        way: {part: spread([one[part] for one in taken]) for part in taken[0]}
        for way, taken in starts.items()
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    starts = measure(parser.parse_args().times)
    for way, parts in starts.items():
        said = ", ".join(f"{part} {row['median']:.2f}" for part, row in parts.items())
        print(f"Lightning {way}: {said}")
    OUT.write_text(json.dumps({"starts": starts, **machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
