"""What ``import redense`` adds to ``import torch``, in seconds of the processor:
``python -m benchmarks.imports``. Each measurement is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import machine, spread

OUT = Path(__file__).parents[1] / "results/bench/imports.json"
WHAT = {
    "import redense": "import redense",
    "and the core's names": (
        "import redense; redense.dsd, redense.sparse, redense.PhaseScheduler, redense.prunable"
    ),
}
CODE = (
    "import time, torch; start = time.process_time(); {}; print(time.process_time() - start, "
    "time.process_time())"
)


def measure(code: str, times: int) -> dict[str, dict[str, float]]:
    """Seconds on top of torch, and of all: medians and quartiles."""
    pairs = [
        tuple(
            map(
                float,
                subprocess.run(
                    [sys.executable, "-c", CODE.format(code)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split(),
            )
        )
        for _ in range(times)
    ]
    added, whole = zip(*pairs, strict=True)
    return {"added": spread(list(added)), "whole": spread(list(whole))}


def main() -> None:
    """Measure, print and write."""
    found = {name: measure(code, 9) for name, code in WHAT.items()}
    for name, row in found.items():
        print(f"{name}: {row['added']['median']:.3f} s of {row['whole']['median']:.2f} s")
    OUT.write_text(json.dumps({"imports": found, **machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
