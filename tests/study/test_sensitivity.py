"""One layer pruned at a time, against the plain way to do it."""

import shlex
import shutil
from dataclasses import replace

import pytest
import torch
from test_study import PLAN, WORK, config, jobs_of, own_cache, pictures  # noqa: F401  (fixtures)

from redense.masks import magnitude_mask
from redense.recipes import build_task
from redense.recipes.images.data import Batches
from redense.recipes.schedule import read_plan
from redense.runs.checkpoints import read
from redense.runs.folder import RunFolder
from redense.study.running import run_study
from redense.study.sensitivity import measure, proposed_plan, save, save_plan


@pytest.fixture
def run(tmp_path):
    assert run_study(tmp_path, jobs_of(["dense"]), WORK)[0].error is None
    return RunFolder(tmp_path / "dense--0")


def plain_accuracy(task):
    task.eval()
    right = 0
    with torch.no_grad():
        for images, labels in Batches(task.data, task.data.valid, 500):
            right += int((task.model(images).argmax(1) == labels).sum())
    return 100 * right / len(task.data.valid)


def test_each_score_is_the_networks_with_that_layer_pruned_alone(run):
    found = measure(run, build_task(run.config), (0.5, 0.9), tolerance=2.0)
    task = build_task(run.config)
    state = read(run.phase_file("dense"))["state_dict"]
    task.load_state_dict(state)
    assert found.dense == pytest.approx(plain_accuracy(task))
    assert list(found.scores) == [
        "features.4.weight",
        "features.8.weight",
        "hidden.weight",
        "classifier.weight",
    ]
    for layer, scores in found.scores.items():
        for level, score in zip(found.levels, scores, strict=True):
            task.load_state_dict(state)
            weight = task.model.get_parameter(layer)
            with torch.no_grad():
                weight.mul_(magnitude_mask(weight, level))
            assert score == pytest.approx(plain_accuracy(task)), (layer, level)


def test_the_proposal_is_the_highest_level_within_the_tolerance(run):
    free = measure(run, build_task(run.config), (0.2, 0.9), tolerance=1000.0)
    assert set(free.proposal.values()) == {0.9}
    strict = measure(run, build_task(run.config), (0.2, 0.9), tolerance=-1000.0)
    assert set(strict.proposal.values()) == {0.0}
    table, picture = save(free, run)
    assert table.stat().st_size > 100
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_proposal_is_a_plan_that_train_and_prove_take(
    run,
    pictures,  # noqa: F811
    redense,
    tmp_path,
):
    measured = measure(run, build_task(run.config), (0.2, 0.9), tolerance=1000.0)
    measured = replace(measured, proposal=measured.proposal | {"hidden.weight": 0.5})
    run = RunFolder.create(tmp_path / "walked", replace(run.config, plan=PLAN.to_records()))
    file = save_plan(measured, run)
    plan = read_plan(file)
    assert [phase.length for phase in plan] == [phase.length for phase in PLAN]
    assert plan.phases[1].sparsity == {
        "features.4.weight": 0.9,
        "features.8.weight": 0.9,
        "hidden.weight": 0.5,
        "classifier.weight": 0.9,
    }
    for command in ("train", "prove"):
        flags = "--print-plan" if command == "train" else "--dry-run"
        answer = redense(command, "images", "--plan", file, flags)
        assert answer.code == 0, answer.err
        assert "sparse holds 90 % of features.4.weight" in answer.out


def test_the_command_that_is_printed_trains_on_the_same_data(
    run,
    redense,
    tmp_path,
):
    walked = RunFolder.create(tmp_path / "walked", replace(run.config, plan=PLAN.to_records()))
    shutil.copytree(run.path / "checkpoints", walked.path / "checkpoints", dirs_exist_ok=True)
    answer = redense("sensitivity", walked.path, "--tolerance", 1000)
    assert answer.code == 0, answer.err
    assert "so the proposal tells nothing: the network has hardly learned" in " ".join(
        answer.out.split()
    )
    command = shlex.split(answer.out.splitlines()[-1].partition("as a plan, redense ")[2])
    again = redense(*command, "--print-plan")
    assert again.code == 0, again.err
    printed = {line.split()[0]: line.split()[1:] for line in again.out.splitlines() if line.split()}
    assert run.config.options.keys() == {"batch", "lr", "augment"}
    for name, value in run.config.options.items():
        assert printed[name.replace("_", "-")] == [str(value)]


def test_where_there_is_no_plan_to_propose_the_reason_is_said(run):
    strict = measure(run, build_task(run.config), (0.2,), tolerance=-1000.0)
    with pytest.raises(ValueError, match="holds nothing in any phase"):
        proposed_plan(strict, run.config.to_plan())
    with pytest.raises(ValueError, match=r"no layer bears 20 % at -1000 points; try lower levels"):
        proposed_plan(strict, PLAN)
    (run.path / "sensitivity.toml").write_text("an earlier one's")
    with pytest.raises(ValueError, match="holds nothing in any phase"):
        save_plan(strict, run)
    assert not (run.path / "sensitivity.toml").exists()


def test_a_run_without_a_finished_first_phase_is_named(run):
    run.phase_file("dense").unlink()
    with pytest.raises(FileNotFoundError, match="first phase is not finished"):
        measure(run, build_task(run.config))
