"""``redense search`` of a recipe and of a function in a file: what it says, keeps and refuses."""

import json
from pathlib import Path

import pytest
from conftest import MINE, TINY

from redense.plan import dsd
from redense.recipes.schedule import read_plan, read_settings

SHORT = ("--dense", "1", "--epochs", "2", "--trials", "2", "--seeds", "1", "--confirm", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)


def test_a_function_of_a_file_is_searched_and_the_command_is_kept(redense):
    Path("space.toml").write_text('masks = ["random"]\nsparsity = [0.5, 0.5]\n')
    flags = (*SHORT, "--anyway", "--jobs", "1", "--space", "space.toml")
    answer = redense("search", "mine.py:train", *flags)
    assert answer.code == 0, answer.err
    assert "the best of 2 plans" in answer.out
    assert "These runs cannot say whether to use the plan" in answer.out
    stored = json.loads(Path("runs/search-train/search.json").read_text())
    assert stored["command"] == ["redense", "search", "mine.py:train", *flags]
    plan = read_plan(Path("runs/search-train/plan.toml"))
    assert {(one.sparsity, one.mask) for one in plan if one.sparsity} == {(0.5, "random")}
    assert plan.phases[0].decay == "cosine"
    older = {name: value for name, value in stored.items() if name != "decay"}
    Path("runs/search-train/search.json").write_text(json.dumps(older))
    other = redense("search", "mine.py:train", *flags)  # an older version's was constant
    assert (other.code, "decay was 'constant', now 'cosine'" in other.err) == (2, True)
    same = redense("search", "mine.py:train", *flags, "--decay", "constant", "--dry-run")
    assert same.code == 0


def test_a_recipe_is_searched_and_its_plan_trains_with_all_that_was_found(redense, pictures):
    data = ("--data", str(pictures), *TINY)
    search = ("search", "images", *data, *SHORT, "--anyway", "--jobs", "1", "--out", "found")
    answer = redense(*search)
    assert answer.code == 0, answer.err
    drawn = [json.loads(file.read_text()) for file in Path("found/trials").glob("*/config.json")]
    assert any(config["weight_decay"] for config in drawn)
    sizes = {
        len(json.loads(f.read_text())["history"]) for f in Path("found").glob("*/*/record.json")
    }
    assert sizes <= {1, 3}

    train = ("train", "images", *data, "--plan", "found/control.toml", "--out", "again")
    again = redense(*train)
    assert again.code == 0, again.err
    config = json.loads(Path("again/config.json").read_text())
    settings = read_settings(Path("found/control.toml"))
    assert {name: config[name] for name in settings} == settings
    kept = [file.name for file in Path("found/trials").glob("plan-*/checkpoints/*")]
    assert {name[:5] for name in kept} == {"epoch"}


def test_a_plan_by_pattern_is_one_more_choice_of_layers(redense):
    Path("sensitivity.toml").write_text(dsd(1, 1, 1, {"0.weight": 0.8, "2.*": 0.4}).to_toml())
    Path("space.toml").write_text('layers = ["2.*"]\nsparsity = [0.5, 0.5]\n')
    few = ("--dense", "1", "--epochs", "2", "--trials", "6", "--seeds", "1", "--confirm", "2")
    flags = ("--space", "space.toml", "--plan", "sensitivity.toml", "--jobs", "1", "--anyway")
    answer = redense("search", "mine.py:train", *few, *flags)
    assert answer.code == 0, answer.err
    drawn = Path("runs/search-train/trials").glob("plan-*/config.json")
    held = [json.loads(file.read_text())["plan"][1]["sparsity"] for file in drawn]
    assert {"0.weight": 0.5, "2.*": 0.25} in held
    assert 0.5 in held


WRONG = {
    "a plan without patterns": (
        ("mine.py:train", "--plan", "plain.toml"),
        "no phase with a sparsity",
    ),
    "a decay that there is none": (
        ("mine.py:train", "--decay", "slow"),
        "decay must be one of constant, linear, cosine, step, got 'slow'",
    ),
    "no function": (("mine.py",), "mine.py is a file: name its training function"),
    "unknown function": (("mine.py:trian",), "did you mean train"),
    "a file that is not there": (("mine.py:train", "--space", "a.toml"), "no such file"),
    "an unknown part of the space": (
        ("mine.py:train", "--space", "odd.toml"),
        "odd.toml is no space to search: it has a key 'sparsities', known are",
    ),
    "a wrong part of the space": (
        ("mine.py:train", "--space", "wide.toml"),
        "wide.toml is no space to search: sparsity must lie below 1",
    ),
    "no epochs": (("mine.py:train", "--epochs", "0"), "epochs must be a whole number of at least"),
    "no jobs": (("mine.py:train", "--jobs", "0"), "jobs must be a whole number of at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_searched_is_one_line(redense, name):
    arguments, message = WRONG[name]
    Path("odd.toml").write_text("sparsities = [0.1, 0.2]\n")
    Path("wide.toml").write_text("sparsity = [0.1, 2]\n")
    Path("plain.toml").write_text(dsd(1, 1, 1).to_toml())
    answer = redense("search", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not Path("runs").exists()


def test_prove_refuses_a_plan_file_that_sets_more_than_phases(redense):
    Path("plan.toml").write_text(
        'weight_decay = [1.0, 2.0]\n[[phases]]\nname = "a"\nlength = 1\n'
        '[[phases]]\nname = "b"\nlength = 1\nsparsity = 0.5\n'
    )
    answer = redense("prove", "mine.py:train", "--plan", "plan.toml")
    assert answer.code == 2
    assert "sets weight_decay beside its phases" in answer.err
