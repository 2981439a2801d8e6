"""How much faster a study is with two processes than with one: ``python -m benchmarks.study_jobs``.

Real runs of the default recipe on 5,000 Fashion-MNIST images, the same jobs both times, start-up
included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from redense.runs.record import environment

OUT = Path(__file__).parents[1] / "results/bench/study_jobs.json"
COMMAND = (
    "prove images --seeds 4 --methods dense,lower_lr,dsd --dense 8 --sparse 4 --redense 4 "
    "--train-images 5000 --split valid"
)


def main() -> None:
    """Time both; print and write the ratio."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for jobs in (2, 1):
        folder = tempfile.mkdtemp(prefix="redense-jobs-")
        start = time.perf_counter()
        arguments = [
            sys.executable,
            "-m",
            "redense",
            *COMMAND.split(),
            "--jobs",
            str(jobs),
            "--out",
            folder,
        ]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        seconds[jobs].append(time.perf_counter() - start)
        shutil.rmtree(folder)
    ratio = min(seconds[1]) / min(seconds[2])
    print(
        f"one process {min(seconds[1]):.0f} s, two {min(seconds[2]):.0f} s: {ratio:.2f} times "
        "faster"
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(
        json.dumps(
            {"command": COMMAND, "seconds": seconds, "ratio": ratio, **environment()}, indent=2
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
