"""The run folder on any file system, after any number of epochs."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from redense.plan import Phase, Plan
from redense.runs import record
from redense.runs.checkpoints import read, save_whole
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder, next_folder


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", RunConfig())


def test_the_command_that_goes_on_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    RunFolder.create(tmp_path / "c d", RunConfig())
    with pytest.raises(ValueError, match=f"resume it with --resume '{tmp_path}/c d' or choose"):
        RunFolder.create(tmp_path / "c d", RunConfig())


def test_epoch_10000_comes_after_epoch_9999(run):
    for epoch in (9_999, 10_000):
        save_whole({"epoch": epoch}, run.epoch_file(epoch))
    assert run.newest() == (run.epoch_file(10_000), {"epoch": 10_000})
    run.keep_last(1)
    assert [file.name for file in (run.path / "checkpoints").iterdir()] == ["epoch-10000.ckpt"]


NAMES = (
    *("плотная", "разреженная", "снова плотная", "密", "疎", "a b", "a-b", "A_B", "!", "?", "…"),
    *(
        "phase 9",
        "epoch 1",
        "epoch-0003",
        "dense",
        "Dense",
        "é" * 120,
        "é" * 119 + "e",
        "../x",
        "/",
    ),
)


def test_every_phase_has_a_file_of_its_own_whatever_it_is_called(tmp_path):
    plan = Plan(tuple(Phase(name, 1) for name in NAMES))
    run = RunFolder.create(tmp_path / "run", RunConfig(plan=plan.to_records()))
    save_whole({"epoch": 3}, run.epoch_file(3))
    for phase in plan:
        save_whole({"phase": phase.name}, run.phase_file(phase.name))
    assert [read(run.phase_file(name))["phase"] for name in NAMES] == list(NAMES)
    files = list((run.path / "checkpoints").iterdir())
    assert len({file.name.casefold() for file in files}) == len(NAMES) + 1
    assert all(file.parent == run.path / "checkpoints" for file in files)
    assert run.newest() == (run.epoch_file(3), {"epoch": 3})
    assert run.phase_file("dense").name == "dense.ckpt"  # as it always was
    assert run.phase_file("a b").name == "a-b.ckpt"


def _take_one(together, root):
    together.wait(timeout=60)
    return str(next_folder("images", Path(root)))


def test_trainings_that_start_together_have_a_folder_each(tmp_path):
    spawned = ProcessPoolExecutor(4, multiprocessing.get_context("spawn"))
    with (
        multiprocessing.Manager() as manager,
        spawned as pool,
    ):  # one that dies ends it, unlike Pool
        for turn in range(30):
            together, root = manager.Barrier(4), str(tmp_path / f"{turn}")
            taken = list(pool.map(_take_one, [together] * 4, [root] * 4))
            assert len(set(taken)) == 4


def test_a_phase_is_marked_where_the_file_system_has_no_hard_links(run, monkeypatch):
    def no_links(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    save_whole({"epoch": 3}, run.epoch_file(3))
    run.mark_phase(3, "dense")
    assert run.phase_file("dense").read_bytes() == run.epoch_file(3).read_bytes()


def test_an_installed_copy_names_no_commit_of_the_repository_around_it(tmp_path, monkeypatch):
    installed = tmp_path / "lib" / "site-packages" / "redense" / "__init__.py"
    monkeypatch.setattr(record.redense, "__file__", str(installed))
    assert record.environment()["commit"] is None
    monkeypatch.undo()
    assert (Path(record.redense.__file__).parents[2] / ".git").exists() is (
        record.environment()["commit"] is not None
    )
