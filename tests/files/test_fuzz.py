"""A seeded share of the fuzzing: ``python -m benchmarks.fuzz`` runs as much of it as one likes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = 260


@pytest.fixture(scope="module")
def base(trained_images, trained_captions, trained_speech, tmp_path_factory):
    """Undamaged files of every kind, the runs those of other tests."""
    runs = {one.recipe: one.run for one in (trained_images, trained_captions, trained_speech)}
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    program = (
        "import sys, json; from pathlib import Path; from benchmarks.fuzz_targets import prepare; "
        "prepare(Path(sys.argv[1]), {name: Path(run) for name, run in "
        "json.loads(sys.argv[2]).items()})"
    )
    given = json.dumps({name: str(run) for name, run in runs.items()})
    python("-c", program, str(folder), given)
    yield folder
    shutil.rmtree(folder)


def python(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"


def test_a_damaged_file_is_read_or_refused_in_one_line_that_names_it(base, tmp_path):
    out = tmp_path / "fuzz.json"
    python("-m", "benchmarks.fuzz", "--base", base, "--cases", str(CASES), "--out", str(out))
    counts = json.loads(out.read_text("utf-8"))
    assert counts["faults"] == []
    assert sum(counts["kinds"].values()) == CASES
    assert counts["kinds"]["refused"] > CASES / 2
