"""The examples run as a user runs them, each in a process of its own, and show what they say they
show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    # zeros in %, and the least accuracy in %, of each printed line
    "loop": ([0, 50, 0], 95),
    "lightning_trainer": ([0, 0, 50, 0], 80),
    "huggingface_trainer": ([0, 0, 0, 0, 30, 30, 0, 0], 60),
    "accelerate_loop": ([0, 50, 0], 90),
    "timm_finetuning": ([30, 0], 90),
    "torchrun_ddp": ([0, 50, 0], 90),
}
LAUNCHERS = {"torchrun_ddp": ["-m", "torch.distributed.run", "--nproc-per-node", "2"]}


def test_every_example_is_here():
    here = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
    assert sorted([*EXAMPLES, "prove"]) == here


def test_the_proof_of_a_loop_ends_with_a_table_and_a_verdict(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "prove.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "lower_lr" in done.stdout
    assert "Pick " in done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_zeros_in_its_sparse_phase_only(name, tmp_path):
    zeros, accuracy = EXAMPLES[name]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    launcher = LAUNCHERS.get(name, [])
    command = [sys.executable, *launcher, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the plan" not in done.stderr, (
        done.stderr
    )  # our warnings; those of Lightning and Transformers are theirs
    assert done.stdout.startswith("phase    steps")
    rows = re.findall(r"(\d+)% zeros, .*accuracy ([\d.]+)%", done.stdout)
    assert [int(share) for share, _ in rows] == zeros
    assert all(float(found) >= accuracy for _, found in rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_what_you_should_see(name):
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert "ou should see" in text.split('"""')[1]
    assert not re.search(r"redense[\w.]* import _|redense\.\w+\._|\._[a-z]", text)
