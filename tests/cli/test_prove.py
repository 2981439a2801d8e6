"""``redense prove`` of a function in a file: what it trains, what it says, and what it refuses."""

import json
from pathlib import Path

import pytest
from conftest import MINE, TINY

MORE = """

def forgets(run):
    return 1.0


def two(run, more):
    return 1.0


def nothing(run):
    for _ in run.plan:
        pass


NUMBER = 3
"""
SHORT = ("--dense", "1", "--sparse", "1", "--redense", "1", "--sparsity", "0.5", "--jobs", "1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE + MORE)


def test_a_function_of_a_file_is_proved_and_the_command_is_kept(redense):
    flags = (*SHORT, "--seeds", "2", "--methods", "dense,lower_lr,dsd")
    answer = redense("prove", "mine.py:train", *flags)
    assert answer.code == 0, answer.err
    assert "valid top1" in answer.out
    assert "Does dense-sparse-dense (dsd) help here? These runs cannot say: " in answer.out
    assert "warning: 2 seeds allow no verdict on 3 methods, pass --seeds 7" in answer.err
    study = json.loads(Path("runs/prove-train/study.json").read_text())
    assert study["command"] == ["redense", "prove", "mine.py:train", *flags]
    assert study["function"] == "mine.py:train"
    record = json.loads(Path("runs/prove-train/dsd--0/record.json").read_text())
    assert record["function"] == "mine.py:train"
    assert Path("runs/prove-train/summary.md").exists()
    again = redense("prove", "mine.py:train", *flags)
    assert (again.code, again.out) == (0, answer.out)


@pytest.mark.parametrize("out", ["/proc/study", "/dev/null/study", "mine.py"])
@pytest.mark.parametrize("target", ["mine.py:train", "images"])
def test_an_output_folder_that_cannot_be_written_is_named_before_training(redense, target, out):
    answer = redense("prove", target, *SHORT, "--seeds", "2", "--out", out)
    assert answer.code == 2
    *before, line = answer.err.splitlines()
    assert all(one.startswith("warning: 2 seeds allow no verdict") for one in before)
    assert line.startswith(f"redense: error: cannot write a study at {out}: ")
    assert line.endswith("choose another --out")


def test_a_part_of_the_seeds_is_trained_and_says_what_is_next(redense):
    flags = (*SHORT, "--seeds", "2", "--methods", "dense,lower_lr,dsd")
    answer = redense("prove", "mine.py:train", *flags, "--shard", "2/2")
    assert answer.code == 0
    assert "No verdict: this is part 2 of 2" in answer.out
    assert sorted(path.name for path in Path("runs/prove-train").glob("*--*")) == [
        "dense--1",
        "dsd--1",
        "lower_lr--1",
    ]
    again = redense("prove", "mine.py:train", *flags)
    assert again.code == 0
    assert "valid top1" in again.out


def test_a_dry_run_trains_nothing_and_says_what_it_would_cost(redense):
    answer = redense("prove", "mine.py:train", *SHORT, "--dry-run")
    assert answer.code == 0
    assert "random_dsd: as dsd, with weights held at random" in answer.out
    assert "6 methods x 8 seeds, 0 of 48 runs done, 96 epochs to train" in answer.out
    assert "a verdict on 5 comparisons takes at least 8 seeds" in answer.out
    assert not Path("runs").exists()


def test_the_default_number_of_seeds_allows_a_verdict(redense):
    answer = redense("prove", "images", "--dry-run")
    assert answer.code == 0
    assert "warning" not in answer.out + answer.err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine.py:trian", "mine.py has no function 'trian'; did you mean train?"),
        ("mine.py:NUMBER", "mine.py:NUMBER must be a function, got int"),
        ("mine.py:two", "train must take one argument, a run"),
        ("mine.py", "name its training function, mine.py:train"),
        ("no.py:train", "no.py: no such file"),
        ("no.module:train", "no.module could not be imported: ModuleNotFoundError"),
        ("broken.py:train", "broken.py could not be imported: SyntaxError"),
        ("image", "there is no recipe 'image'; did you mean images?"),
    ],
)
def test_what_is_no_function_is_one_line(redense, target, said):
    Path("broken.py").write_text("def train(run:\n")
    answer = redense("prove", target, *SHORT)
    assert answer.code == 2
    assert answer.err.startswith("redense: error: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sparsity", "0"), "a study needs a plan that holds weights"),
        (("--sparsity", "half"), "--sparsity takes numbers such as 0.3"),
        (("--seeds", "1"), "seeds must be auto, or at least 2, got 1"),
        (("--seeds", "many"), "seeds must be auto, or at least 2, got many"),
        (("--seeds", "auto", "--most", "9"), "most must be a whole number of at least 10 seeds"),
        (("--within", "0.5"), "within is a width above 0 that goes with --seeds auto"),
        (("--backend", "slurm"), "backend must be one of loky, dask, ray, got 'slurm'"),
        (("--methods", "dense,dds"), "there is no method 'dds'"),
        (("--shard", "2"), "shard must be a part of the seeds such as 2/4, got '2'"),
        (("--shard", "3/2"), "got 3 of 2"),
        (("--shard", "1/2", "--seeds", "auto"), "cannot be a part of them"),
    ],
)
def test_bad_flags_are_one_line_before_any_training(redense, flags, said):
    answer = redense("prove", "mine.py:train", *SHORT, *flags)
    assert answer.code == 2
    assert said in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("forgets", "asked for neither run.epochs(), run.steps() nor run.plan"),
        ("nothing", "score must be a number, got None"),
    ],
)
def test_a_function_that_fails_in_every_run_says_why_and_ends_with_1(redense, function, said):
    flags = ("--seeds", "2", "--methods", "dense,lower_lr,dsd")
    answer = redense("prove", f"mine.py:{function}", *SHORT, *flags)
    assert answer.code == 1
    assert said in answer.out
    assert "error.txt" in answer.out


def test_a_recipes_baseline_from_a_trained_network_is_that_network_as_it_came(pictures, redense):
    flags = ("--data", pictures, *TINY)
    lengths = ("--dense", "1", "--sparse", "0", "--redense", "0")
    assert redense("train", "images", *flags, *lengths, "--out", "trained").code == 0
    came = json.loads(Path("trained/record.json").read_text())
    methods = ("--methods", "dense,longer,lower_lr,shrink_perturb,dsd")
    asked = ("--sparse", "1", "--redense", "1", "--seeds", "2", *methods)
    init = ("--init", "trained/model.safetensors", "--jobs", "1", "--out", "proof")
    answer = redense("prove", "images", *flags, *asked, *init)
    assert answer.code == 0, answer.out
    baseline = json.loads(Path("proof/dense--0/record.json").read_text())
    assert baseline["plan"] == []
    assert baseline["test"] == came["test"]
    assert baseline["weights_sha256"] == came["weights_sha256"]
    assert Path("proof/dense--0/network.json").exists()
    ends = [
        json.loads(Path(f"proof/{name}--0/record.json").read_text())["weights_sha256"]
        for name in ("longer", "shrink_perturb")
    ]
    assert ends[0] != ends[1]


def test_a_file_may_be_called_as_a_module_of_pythons_is(redense):
    Path("random.py").write_text(MINE)
    flags = ("--seeds", "2", "--methods", "dense,lower_lr,dsd")
    answer = redense("prove", "random.py:train", *SHORT, *flags)
    assert answer.code == 0, answer.out + answer.err
    import random

    assert random.Random(0).random()
