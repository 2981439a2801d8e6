"""The study: methods as data, exact branches, restarts, crashes, records."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import redense
from redense.recipes import train
from redense.recipes.images import data
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.study.folder import open_study, records
from redense.study.jobs import Job, branch, plan_jobs, saved_share
from redense.study.methods import METHODS, Method, build_methods, shared_epochs
from redense.study.running import run_study
from redense.study.summary import as_markdown, summarize_records
from redense.study.work import FunctionWork

WORK = FunctionWork.of(train, reads_test=True, data={})
PLAN = redense.dsd(dense=2, sparse=2, redense=2, sparsity=0.5, sparse_lr=0.5, decay="cosine")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A packaged set of 240 noisy stripes, 12 px, in a cache of its own."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "fashion-mnist"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for kind, n in (("train", 240), ("test", 60)):
        labels = torch.randint(3, (n,), generator=generator)
        images = torch.randint(0, 90, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, :, label :: int(label) + 2] += 120
        save_file({"images": images, "labels": labels}, folder / f"{kind}.safetensors")
    card = {"name": "fashion-mnist", "task": "images", "classes": ["a", "b", "c"]}
    (folder / "card.json").write_text(json.dumps(card))
    return root


@pytest.fixture(autouse=True)
def own_cache(pictures, monkeypatch):
    monkeypatch.setenv("REDENSE_DATA", str(pictures))
    data.load.cache_clear()


def config(**options):
    settings = {"batch": 24, "lr": 0.05, "augment": "flip"} | options
    return RunConfig(recipe="images", options=settings, accelerator="cpu")


METHODS_OF_TWO = build_methods(["dense", "dsd"], {"": PLAN})


def jobs_of(names, seeds=(0,), **options):
    return plan_jobs(build_methods(names, {"0.5": PLAN}), seeds, config(**options))


def test_methods_are_plans_of_equal_budget():
    from_a_trained_network = "shrink_perturb"
    built = build_methods(
        [name for name in METHODS if name != from_a_trained_network], {"0.5": PLAN}
    )
    assert len(built.pop("dense").plan) == 2
    assert {len(method.plan) for method in built.values()} == {6}
    control = built["lower_lr"].plan
    assert [(p.length, p.lr, p.decay) for p in control] == [(p.length, p.lr, p.decay) for p in PLAN]
    assert not any(phase.sparsity for phase in control)
    assert [phase.sparsity for phase in built["pruned"].plan] == [0.0, 0.5, 0.5]
    assert [phase.mask for phase in built["random_dsd"].plan] == [
        "magnitude",
        "random",
        "magnitude",
    ]
    assert [phase.length for phase in built["dsdsd"].plan] == [2, 1, 1, 1, 1]
    assert built["swa"].average == "swa"


def test_several_sparsities_mark_only_the_methods_that_differ():
    plans = {"0.2": redense.dsd(2, 2, 2, 0.2), "0.5": redense.dsd(2, 2, 2, 0.5)}
    assert list(build_methods(["dense", "lower_lr", "dsd"], plans)) == [
        "dense",
        "lower_lr",
        "dsd@0.2",
        "dsd@0.5",
    ]


def test_an_unknown_method_and_a_plan_without_a_sparse_phase_are_refused():
    with pytest.raises(ValueError, match="no method 'dds'"):
        build_methods(["dds"], {"": PLAN})
    with pytest.raises(ValueError, match="needs a plan that holds weights"):
        build_methods(["pruned"], {"": redense.dsd(2, 2, 2, 0.0)})


def test_branching_shares_whole_phases_and_spares_a_third_of_the_epochs():
    jobs = {
        job.name: job
        for job in jobs_of(["dense", "longer", "lower_lr", "pruned", "random_dsd", "dsd"])
    }
    assert jobs["longer--0"].parent is None
    assert jobs["lower_lr--0"].parent == "dense--0"
    assert jobs["pruned--0"].shared == 4 or jobs["dsd--0"].shared == 4
    assert saved_share(list(jobs.values())) > 0.3
    swa = Method(PLAN, average="sparse")
    assert shared_epochs(swa, Method(PLAN)) == 2


def test_a_branch_ends_with_the_bits_of_a_run_of_its_own(tmp_path):
    names = ["dense", "lower_lr", "early_stop", "pruned", "dsd"]
    assert not any(
        outcome.error for outcome in run_study(tmp_path / "branched", jobs_of(names), WORK)
    )
    alone = [replace(job, parent=None, shared=0) for job in jobs_of(names)]
    assert not any(outcome.error for outcome in run_study(tmp_path / "alone", alone, WORK))
    for one, other in zip(records(tmp_path / "branched"), records(tmp_path / "alone"), strict=True):
        assert one["weights_sha256"] == other["weights_sha256"], one["method"]
        assert (one["test"], one["phases"], one["released"]) == (
            other["test"],
            other["phases"],
            other["released"],
        )
    shas = {record["method"]: record["weights_sha256"] for record in records(tmp_path / "branched")}
    del shas["early_stop"]  # the control's own weights where its last epoch is its best
    assert len(set(shas.values())) == len(names) - 1


def test_a_branch_from_another_seed_or_plan_is_refused(tmp_path):
    run_study(tmp_path, jobs_of(["dense"], seeds=(0,)), WORK)
    parent = RunFolder(tmp_path / "dense--0")
    for wrong in ({"seed": 1}, {"plan": redense.dsd(2, 2, 2, decay="linear").to_records()}):
        child = RunFolder.create(
            tmp_path / f"x{len(wrong)}{next(iter(wrong))}", replace(parent.config, **wrong)
        )
        with pytest.raises(ValueError, match="cannot branch"):
            branch(parent, child, 2)


def test_averaging_equals_the_mean_of_the_epochs_weights(tmp_path):
    plan = redense.Plan((redense.Phase("dense", 1), redense.Phase("swa", 2, lr=0.5)))
    job = Job(
        "swa--0",
        replace(config(), method="swa", plan=plan.to_records(), average="swa"),
        None,
        0,
        3,
    )
    assert run_study(tmp_path, [job], WORK)[0].error is None
    from safetensors.torch import load_file

    from redense.runs.checkpoints import read

    ends = [
        read(tmp_path / f"swa--0/checkpoints/epoch-000{epoch}.ckpt")["state_dict"]
        for epoch in (2, 3)
    ]
    final = load_file(tmp_path / "swa--0/model.safetensors")
    for name in ("hidden.weight", "features.0.weight"):
        torch.testing.assert_close(
            final[name], (ends[0][f"model.{name}"] + ends[1][f"model.{name}"]) / 2
        )
    assert not torch.equal(
        final["features.1.running_mean"], ends[1]["model.features.1.running_mean"]
    )


def test_a_crashed_run_is_reported_and_sinks_no_other(tmp_path):
    jobs = jobs_of(["dense", "longer", "lower_lr"])
    broken = [
        replace(job, config=replace(job.config, options={"data": "/nowhere/x"}))
        if job.name == "dense--0"
        else job
        for job in jobs
    ]
    outcomes = {outcome.job.name: outcome.error for outcome in run_study(tmp_path, broken, WORK)}
    assert "no such folder" in outcomes["dense--0"]
    assert outcomes["lower_lr--0"] is None  # it trained the shared epochs itself
    assert outcomes["longer--0"] is None
    assert "FileNotFoundError" in (tmp_path / "dense--0/error.txt").read_text()


COMMAND = (
    "prove images --seeds 2 --methods dense,lower_lr,dsd --dense 1 --sparse 2 --redense 2 "
    "--sparsity 0.5 --jobs 1"
)


def study_process(folder):
    arguments = [
        sys.executable,
        "-m",
        "redense",
        *COMMAND.split(),
        "--batch",
        "8",
        "--lr",
        "0.05",
        "--out",
        str(folder),
    ]
    return subprocess.Popen(
        arguments,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_study_killed_at_any_moment_and_restarted_gives_the_same_records(tmp_path):
    whole = study_process(tmp_path / "whole")
    output = whole.communicate(timeout=240)[0]
    assert whole.returncode == 0, output
    assert "Does dense-sparse-dense (dsd) help here? These runs cannot say: " in output
    killed = study_process(tmp_path / "killed")
    deadline = time.monotonic() + 200
    while (
        not list((tmp_path / "killed").glob("dsd--*/config.json")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    assert (
        not (tmp_path / "killed/dsd--0/record.json").exists()
        or not (tmp_path / "killed/dsd--1/record.json").exists()
    )
    again = study_process(tmp_path / "killed")
    output = again.communicate(timeout=240)[0]
    assert again.returncode == 0, output
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "killed"), strict=True):
        assert one["weights_sha256"] == other["weights_sha256"]
        assert (one["method"], one["seed"], one["test"], one["valid"]) == (
            (other["method"], other["seed"], other["test"], other["valid"])
        )
    assert (tmp_path / "whole/summary.md").read_text() == (
        tmp_path / "killed/summary.md"
    ).read_text()


def test_another_studys_folder_is_refused(tmp_path):
    settings = {"options": {"lr": 0.1}, "command": ["one"], "methods": {"dsd": PLAN.to_records()}}
    open_study(tmp_path, settings)
    open_study(tmp_path, settings | {"command": ["another"]})
    with pytest.raises(ValueError, match=r"other settings: options was lr 0\.1, now lr 0\.2"):
        open_study(tmp_path, settings | {"options": {"lr": 0.2}})
    other = {"dsd": redense.dsd(3, 2, 2, 0.5).to_records()}
    with pytest.raises(ValueError, match="dsd had another plan"):
        open_study(tmp_path, settings | {"methods": other})


def test_a_new_flag_orphans_no_study(tmp_path):
    settings = {"options": {"lr": 0.1}, "methods": {"dsd": PLAN.to_records()}}
    open_study(tmp_path, settings)
    newer = settings | {"options": {"lr": 0.1, "warmup": 0}, "strategy": "ddp"}
    defaults = {"options": {"lr": 1.0, "warmup": 0}, "strategy": "ddp"}
    open_study(tmp_path, newer, defaults)
    with pytest.raises(ValueError, match="options was warmup 0, now warmup 5"):
        open_study(tmp_path, settings | {"options": {"lr": 0.1, "warmup": 5}}, defaults)


def test_one_method_more_goes_on_with_a_study(tmp_path):
    plans = {name: method.plan.to_records() for name, method in METHODS_OF_TWO.items()}
    open_study(tmp_path, {"methods": {"dense": plans["dense"]}})
    open_study(tmp_path, {"methods": {"dsd": plans["dsd"]}})
    assert json.loads((tmp_path / "study.json").read_text())["methods"] == plans


def fake(method, seed, score, **changed):
    record = {
        "recipe": "images",
        "method": method,
        "seed": seed,
        "data": {"sha256": "x"},
        "options": {},
    }
    record |= {
        "test": {"top1": score},
        "valid": {"top1": score},
        "cost": {"epochs": 1 if method == "dense" else 3},
    }
    record["metric"] = {"name": "top1", "higher_is_better": True, "unit": "points"}
    return record | changed


def test_a_summary_pairs_by_seed_and_says_which_method_to_pick():
    scores = {"dense": 80.0, "lower_lr": 85.0, "dsd": 86.0}
    made = [
        fake(m, s, base + 0.1 * s + 0.01 * (s * len(m) % 3))
        for m, base in scores.items()
        for s in range(10)
    ]
    summary = summarize_records(made)
    assert summary.comparison.to_control["dsd"].outcome == "helps"
    assert summary.choice.method == "dsd"
    text = as_markdown(summary)
    assert "| dsd | 3 | 10 |" in text
    assert summary.choice.sentence in text


def test_records_of_different_data_are_not_compared():
    made = [fake(m, s, 1.0 + s) for m in ("dense", "lower_lr") for s in range(3)]
    made.append(fake("dsd", 0, 1.0, data={"sha256": "y"}))
    with pytest.raises(ValueError, match="differ in data"):
        summarize_records(made)


CLOSURE = """
import sys
import torch
from torch.nn.functional import mse_loss
import redense

def training(rows):
    def train(run):
        torch.manual_seed(run.seed)
        model = torch.nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in run.epochs(model, optimizer):
            optimizer.zero_grad()
            mse_loss(model(rows), rows[:, :1] * 2).backward()
            optimizer.step()
        return mse_loss(model(rows), rows[:, :1] * 2).item()
    return train

if __name__ == "__main__":  # dask spawns its workers
    rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    out, backend, jobs = sys.argv[1:]
    study = redense.prove(
        training(rows), redense.dsd(2, 2, 2, 0.5), seeds=2, methods=("dense", "dsd"),
        higher_is_better=False, out=out, backend=backend, jobs=int(jobs),
    )
    sys.exit("; ".join(failure.why for failure in study.failed) or 0)
"""


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """What the closure's study comes to in one process."""
    folder = tmp_path_factory.mktemp("near")
    (folder / "study.py").write_text(CLOSURE)
    done = subprocess.run([sys.executable, folder / "study.py", folder / "out", "loky", "1"])
    assert done.returncode == 0
    return records(folder / "out")


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_a_closures_study_has_the_same_records_on_two_workers_of_each_engine(
    tmp_path, backend, near
):
    script = tmp_path / "study.py"
    script.write_text(CLOSURE)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "out", backend, "2"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        errors = process.communicate(timeout=300)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the engine's daemons too
    assert process.returncode == 0, errors[-2000:]
    far = records(tmp_path / "out")
    same = ("method", "seed", "weights_sha256", "valid", "phases")
    assert len(far) == 6
    assert [[one[key] for key in same] for one in far] == [
        [one[key] for key in same] for one in near
    ]
