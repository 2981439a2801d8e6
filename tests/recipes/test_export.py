"""Export: from the run folder alone, onto nothing but an older export."""

import json
import os
import shutil
import stat

import pytest
import torch
from safetensors.torch import load_file

import redense as package
from redense.recipes import RECIPES

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1\n"


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """Whoever opens data finds none."""
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "empty"))

    def refuse(*_):
        raise AssertionError("a task was built, which reads the data")

    for recipe in RECIPES.values():
        monkeypatch.setattr(recipe.task_class(), "__init__", refuse)


def test_an_export_needs_nothing_but_the_run_folder(trained, no_data, tmp_path, redense):
    run = shutil.copytree(trained.run, tmp_path / "elsewhere" / "run")
    network = json.loads((run / "network.json").read_text("utf-8"))
    answer = redense("export", run, tmp_path / "hub")
    assert answer.code == 0, answer.err
    config = json.loads((tmp_path / "hub" / "config.json").read_text("utf-8"))
    sum_of_weights = json.loads((run / "record.json").read_text("utf-8"))["weights_sha256"]
    assert config == {"recipe": trained.recipe, **network, "weights_sha256": sum_of_weights}
    shutil.rmtree(run)
    loaded = package.load(tmp_path / "hub")
    saved = load_file(trained.run / "model.safetensors")
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.state_dict().items())
    assert not loaded.training


def test_a_run_loads_as_its_export_does(trained, no_data):
    loaded = package.load(trained.run)
    assert loaded.state_dict().keys() == load_file(trained.run / "model.safetensors").keys()


def test_a_run_that_is_not_finished_loads_its_newest_checkpoint(trained, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    (run / "model.safetensors").unlink()
    (run / "record.json").unlink()
    saved = load_file(trained.run / "model.safetensors")
    loaded = package.load(run).state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.items())


def test_a_finished_run_without_its_weights_is_no_network(trained, tmp_path, redense):
    run = shutil.copytree(trained.run, tmp_path / "run")
    (run / "model.safetensors").unlink()
    answer = redense("export", run, tmp_path / "hub")
    assert (answer.code, "model.safetensors: no such file; copy" in answer.err) == (2, True)
    assert not (tmp_path / "hub").exists()


def test_what_needs_a_run_says_so_of_an_export(trained_images, tmp_path, redense):
    assert redense("export", trained_images.run, tmp_path / "hub").code == 0
    answer = redense("sensitivity", tmp_path / "hub")
    assert (answer.code, "this needs the run's own folder" in answer.err) == (2, True)


def test_pixels_are_divided_by_nothing_but_what_is_above_zero(trained_images, tmp_path, redense):
    run = shutil.copytree(trained_images.run, tmp_path / "run")
    about = json.loads((run / "network.json").read_text())
    (run / "network.json").write_text(json.dumps({**about, "std": [0.0] * len(about["std"])}))
    answer = redense("classify", run, trained_images.sample)
    assert (answer.code, "network.json" in answer.err, "std" in answer.err) == (2, True, True)


def test_an_export_never_takes_the_place_of_a_run(trained_images, redense, tmp_path):
    run = shutil.copytree(trained_images.run, tmp_path / "run")
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    other = shutil.copytree(trained_images.run, tmp_path / "other")
    for folder in (run, other, tmp_path / "other" / ".." / "run"):
        answer = redense("export", run, folder)
        assert answer.code == 2
        assert "is not of an export and would be overwritten; choose another folder" in answer.err
    assert before == {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_an_export_overwrites_nothing_of_a_strangers(name, trained_images, redense, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / name).write_text("{}")
    answer = redense("export", trained_images.run, project)
    assert answer.code == 2
    assert f"{project / name} is not of an export" in answer.err
    assert [file.name for file in project.iterdir()] == [name]
    assert (project / name).read_text() == "{}"


def test_an_export_takes_the_place_of_an_older_one(trained_images, redense, tmp_path):
    assert redense("export", trained_images.run, tmp_path / "hub").code == 0
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"old")
    (tmp_path / "hub" / "notes.txt").write_text("mine")
    assert redense("export", trained_images.run, tmp_path / "hub").code == 0
    assert load_file(tmp_path / "hub" / "model.safetensors")
    assert (tmp_path / "hub" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [LFS, b'\x10\x27\0\0\0\0\0\0{"a":', b""])
def test_weights_that_are_not_whole_are_named(content, trained, redense, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "run")
    (run / "model.safetensors").write_bytes(content)
    use = {"images": "eval", "captions": "caption", "speech": "transcribe"}[trained.recipe]
    sample = ("--data", trained.sample.parent) if use == "eval" else (trained.sample,)
    for command in (("export", run, tmp_path / "hub"), (use, run, *sample)):
        answer = redense(*command)
        assert answer.code == 2
        assert f"{run / 'model.safetensors'} is no whole checkpoint" in answer.err
        assert answer.err.count("\n") == 1
    assert not (tmp_path / "hub").exists()
    with pytest.raises(ValueError, match=r"model.safetensors is no whole checkpoint"):
        package.load(run)


def test_weights_of_which_a_bit_has_changed_are_refused(trained, tmp_path, redense):
    run = shutil.copytree(trained.run, tmp_path / "run")
    assert redense("export", run, tmp_path / "hub").code == 0
    for folder, said in ((run, "record.json"), (tmp_path / "hub", "config.json")):
        file = folder / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[:-7] + bytes([content[-7] ^ 1]) + content[-6:])
        with pytest.raises(ValueError, match="is not what the training ended with") as told:
            package.load(folder)
        assert str(told.value).startswith(str(file))
        assert f"and {said} says '" in str(told.value)


def test_a_damaged_description_is_named(trained, tmp_path, redense):
    run = shutil.copytree(trained.run, tmp_path / "run")
    damages = {
        "is not valid JSON": '{"architecture": ',
        "it must be a table, got []": "[]",
        "has no '": "{}",
    }
    for said, text in damages.items():
        (run / "network.json").write_text(text)
        answer = redense("export", run, tmp_path / "hub")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert f"{run / 'network.json'} is " in answer.err
        assert said in answer.err
    (run / "network.json").unlink()
    assert (
        "has no network.json, which a training leaves at its start"
        in redense("export", run, "x").err
    )


def test_a_network_of_another_recipe_is_refused(trained_images, trained_speech, redense):
    answer = redense("transcribe", trained_images.run, trained_speech.sample)
    assert (answer.code, "holds a network of images, not of speech" in answer.err) == (2, True)
    answer = redense("caption", trained_speech.run, trained_images.sample)
    assert (answer.code, "holds a network of speech, not of captions" in answer.err) == (2, True)


def test_inspect_reads_an_export(trained, redense, tmp_path):
    assert redense("export", trained.run, tmp_path / "hub").code == 0
    answer = redense("inspect", tmp_path / "hub")
    assert answer.code == 0, answer.err
    saved = load_file(trained.run / "model.safetensors")
    names = [name for name, tensor in saved.items() if tensor.is_floating_point()]
    assert all(f" {name} " in answer.out for name in names)


def test_files_have_the_users_ordinary_permissions(trained, redense, tmp_path):
    before = os.umask(0o027)
    try:
        assert redense("export", trained.run, tmp_path / "hub").code == 0
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "hub").iterdir()}
    assert modes == {0o640}
    files = [file for file in trained.run.rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~before}


def test_a_run_goes_on_from_any_folder(trained_images, pictures, tmp_path, monkeypatch, redense):
    shutil.copytree(pictures, tmp_path / "pics")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    flags = ("--size", 8, "--batch", 8, "--accelerator", "cpu", "--data", "pics")
    short = ("--dense", 1, "--sparse", 1, "--redense", 1, "--out", "run")
    assert redense("train", "images", *flags, *short).code == 0
    first = json.loads((tmp_path / "run" / "record.json").read_text())
    (tmp_path / "run" / "record.json").unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = redense("train", "images", "--resume", "../run")
    assert answer.code == 0, answer.err
    again = json.loads((tmp_path / "run" / "record.json").read_text())
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["options"]["data"] == str(tmp_path / "pics")


def test_only_what_is_there_becomes_a_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pics", "small", "imagenet", "pretrained"):
        (tmp_path / name).mkdir()
    recipe = RECIPES["images"]
    options = recipe.options_class()
    kept = recipe.settings(options(data="pics", model="small", init="pretrained"))
    assert (kept["data"], kept["model"], kept["init"]) == (
        str(tmp_path / "pics"),
        "small",
        "pretrained",
    )
    speech = RECIPES["speech"]
    assert speech.settings(speech.options_class()(data="pics"))["data"] == str(tmp_path / "pics")
    assert recipe.settings(options(data="imagenet"))["data"] == "imagenet"
    assert recipe.settings(options(data="fashion-mnist"))["data"] == "fashion-mnist"
