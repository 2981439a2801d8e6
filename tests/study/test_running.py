"""Carrying out a study: killed workers, busy neighbours, chains of branches."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import redense
from redense.runs.configuration import RunConfig
from redense.runs.lock import BusyError, sole
from redense.study.folder import records
from redense.study.jobs import plan_jobs
from redense.study.methods import build_methods
from redense.study.running import run_study
from redense.study.work import FunctionWork

PLAN = redense.dsd(2, 1, 1, 0.5)


def jobs_of(names, seeds=(0, 1)):
    return plan_jobs(build_methods(names, {"": PLAN}), seeds, RunConfig(function="train"))


def work_of(train):
    return FunctionWork.of(train, reads_test=True, data={"name": "none", "sha256": "0"})


def test_a_killed_worker_costs_its_run_alone(tmp_path):
    def train(run):
        if (run.config.method, run.seed) == ("longer", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return float(len(run.plan))

    jobs = jobs_of(["dense", "longer", "lower_lr", "dsd"])
    outcomes = run_study(tmp_path, jobs, work_of(train), workers=2)
    failed = {outcome.job.name: outcome.error for outcome in outcomes if outcome.error}
    assert list(failed) == ["longer--1"]
    assert "was killed" in failed["longer--1"]
    assert "was killed" in (tmp_path / "longer--1/error.txt").read_text()
    assert len(records(tmp_path)) == len(jobs) - 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_that_calls_exit_costs_its_run_alone(tmp_path, workers):
    def train(run):
        if run.seed == 1:
            sys.exit(3)
        return float(len(run.plan))

    outcomes = run_study(tmp_path, jobs_of(["dense"]), work_of(train), workers=workers)
    assert {one.job.name: one.error for one in outcomes} == {
        "dense--0": None,
        "dense--1": "SystemExit: 3",
    }


def test_ctrl_c_inside_a_trainer_that_turns_it_into_an_exit_ends_the_study(tmp_path):
    def train(run):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    with pytest.raises(SystemExit):
        run_study(tmp_path, jobs_of(["dense"]), work_of(train))


def test_a_worker_killed_once_goes_on_with_its_run(tmp_path):
    def train(run):
        mark = run.folder / "killed"
        if (run.config.method, run.seed) == ("dense", 0) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return float(len(run.plan))

    outcomes = run_study(tmp_path, jobs_of(["dense", "lower_lr"]), work_of(train), workers=2)
    assert not [outcome for outcome in outcomes if outcome.error]
    assert len(records(tmp_path)) == 4


def test_a_failed_run_takes_its_branches_and_theirs_along(tmp_path):
    def train(run):
        model = torch.nn.Linear(4, 4)
        for epoch in run.epochs(model, torch.optim.SGD(model.parameters(), 0.1)):
            if epoch:
                raise RuntimeError("no")

    jobs = jobs_of(["dense", "lower_lr", "pruned", "dsd"], seeds=(0,))
    assert {job.parent for job in jobs} > {None, "dense--0"}
    outcomes = run_study(tmp_path, jobs, work_of(train))
    errors = {outcome.job.name: outcome.error for outcome in outcomes}
    assert errors.pop("dense--0") == "RuntimeError: no"
    assert len(errors) == 3
    said = "failed in the epochs that both share"
    assert all(error.endswith(said) for error in errors.values())


def test_a_run_that_fails_after_the_shared_epochs_takes_no_branch_along(tmp_path):
    def train(run):
        model = torch.nn.Linear(4, 4)
        for _ in run.epochs(model, torch.optim.SGD(model.parameters(), 0.1)):
            pass
        if run.config.method == "dense":
            raise RuntimeError("no")
        return 1.0

    jobs = jobs_of(["dense", "lower_lr", "dsd"], seeds=(0,))
    outcomes = run_study(tmp_path, jobs, work_of(train))
    assert [outcome.job.name for outcome in outcomes if outcome.error] == ["dense--0"]
    dsd = next(record for record in records(tmp_path) if record["method"] == "dsd")
    assert len(dsd["history"]) == 4


def test_a_run_that_another_process_trains_is_waited_for(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from redense.runs.lock import sole\n"
        "with sole(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(4)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "dense--0")], stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(BusyError, match=f"process {other.pid} on "), sole(tmp_path / "dense--0"):
        pass
    start = time.monotonic()
    outcomes = run_study(
        tmp_path, jobs_of(["dense", "lower_lr"], seeds=(0,)), work_of(lambda run: len(run.plan))
    )
    assert time.monotonic() - start > 1
    assert other.wait(timeout=10) == 0
    other.stdout.close()
    assert not [outcome for outcome in outcomes if outcome.error]


def test_a_worker_ends_with_the_process_that_asked_for_it(tmp_path):
    script = tmp_path / "study.py"
    script.write_text(
        "import os, time, redense\n"
        "from pathlib import Path\n"
        "def train(run):\n"
        f"    Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n"
        "    time.sleep(600)\n"
        f"redense.prove(train, redense.dsd(1, 1, 1, 0.5), seeds=2, out={str(tmp_path / 'out')!r}, "
        "jobs=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(file.stem) for file in tmp_path.glob("*.pid")]
    assert len(workers) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
