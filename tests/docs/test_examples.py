"""The examples run as a user runs them, each in a process of its own, and show what they say they
show."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

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
PROOFS = ("prove", "prove_huggingface", "prove_lightning")
LAUNCHERS = {"torchrun_ddp": ["-m", "torch.distributed.run", "--nproc-per-node", "2"]}


def test_every_example_is_here():
    here = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
    assert sorted([*EXAMPLES, *PROOFS]) == here


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_ends_with_a_table_and_a_verdict(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "lower_lr" in done.stdout
    assert "Pick " in done.stdout
    if name == "prove":  # README shows it; other processors may differ in the last digits
        readme = (ROOT / "README.md").read_text("utf-8")
        for method in ("dense", "lower_lr", "dsd"):
            shown, made = (
                float(re.search(rf"^{method} +\d+ +([\d.]+)", text, re.MULTILINE)[1])
                for text in (readme, done.stdout)
            )
            assert made == pytest.approx(shown, abs=1), method
    assert ("Every run was trained in full" in done.stdout) == (name != "prove")


def test_the_tutorial_runs_and_answers_as_it_is_printed(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    printed = [answer(cell) for cell in notebook.cells]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    made = [answer(cell) for cell in notebook.cells]
    assert made == printed
    assert any(said.startswith("Does dense-sparse-dense (dsd) help here?") for said in made)
    assert (tmp_path / "tutorial.html").exists()


def answer(cell):
    """The first sentence of a cell's verdict; other processors may differ in the numbers."""
    for output in cell.get("outputs", []):
        html = output.get("data", {}).get("text/html", "")
        if found := re.search(r"Does [^?]+\? [^:]+", html):
            return found[0]
    return ""


ONE_RUN = """
import os, sys, threading, time
from pathlib import Path

sys.path.insert(0, sys.argv[2])
train = __import__(sys.argv[3]).train
import redense
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out

folder, plan = Path(sys.argv[1]), redense.dsd(6, 4, 4, 0.5)

def kill_itself():
    ends = ("lightning/epoch=8-step=90.ckpt", "huggingface/checkpoint-80/redense.pt")
    while not any((folder / end).exists() for end in ends):
        time.sleep(0.005)
    os.kill(os.getpid(), 9)

if sys.argv[4:]:
    threading.Thread(target=kill_itself, daemon=True).start()
config = RunConfig(function="train", plan=plan.to_records())
there = (folder / "config.json").exists()
run = RunFolder(folder) if there else RunFolder.create(folder, config)
carry_out(train, redense.Run(run))
"""


@pytest.mark.parametrize("name", ["prove_lightning", "prove_huggingface"])
def test_a_killed_run_of_a_trainers_goes_on_from_its_own_checkpoint(name, tmp_path):
    def run(folder, *more):
        command = [sys.executable, "-c", ONE_RUN, tmp_path / folder, ROOT / "examples", name, *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert run("killed", "kill").returncode == -signal.SIGKILL
    again = run("killed")
    assert again.returncode == 0, again.stderr
    assert "sparse from" not in again.stdout + again.stderr  # that was before
    record = json.loads((tmp_path / "killed" / "record.json").read_text())
    assert record["cost"]["epochs"] == 14
    if name == "prove_huggingface":  # its trainer draws the same order again; Lightning's does not
        assert run("whole").returncode == 0
        whole = json.loads((tmp_path / "whole" / "record.json").read_text())
        assert whole["valid"] == record["valid"]


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


def test_accelerate_launch_holds_the_same_on_two_processes(tmp_path):
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    machine = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    example = str(ROOT / "examples" / "accelerate_loop.py")
    done = subprocess.run(
        [sys.executable, "-m", *launch, *machine, "--main_process_port", "0", example],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("processes: 2") == 1
    zeros, accuracy = EXAMPLES["accelerate_loop"]
    rows = re.findall(r"(\d+)% zeros, .*accuracy ([\d.]+)%", done.stdout)
    assert [int(share) for share, _ in rows] == zeros
    assert all(float(reached) >= accuracy for _, reached in rows)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_what_you_should_see(name):
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert "ou should see" in text.split('"""')[1]
    assert not re.search(r"redense[\w.]* import _|redense\.\w+\._|\._[a-z]", text)
