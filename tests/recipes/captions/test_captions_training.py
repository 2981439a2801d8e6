"""`redense train captions` and `redense caption` as a user has them, on coloured squares."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import models as zoo

import redense as core
from redense.recipes import RECIPES, train
from redense.recipes.captions import examples, scores
from redense.recipes.captions.data import Batches
from redense.recipes.captions.features import keep_cnn, kept_cnn, torchvision_cnn
from redense.recipes.captions.options import CaptionOptions
from redense.recipes.captions.task import CaptionTask
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.study.jobs import plan_jobs
from redense.study.methods import build_methods
from redense.study.running import run_study
from redense.study.work import FunctionWork

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
PLAN = ("--dense", 4, "--sparse", 2, "--redense", 2, "--sparse-lr", 0.5, "--accelerator", "cpu")
TINY = (*PLAN, "--hidden", 16, "--batch", 6, "--lr", 0.02, "--cnn-epochs", 60, "--dropout", 0.1)
KEPT = {
    "record.json",
    "captions.json",
    "captions.png",
    "network.json",
    "model.safetensors",
    "cnn.safetensors",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("REDENSE_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def squares(cache, tmp_path_factory):
    """Karpathy's JSON: a coloured square an image, two captions each."""
    folder, noise = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    (folder / "images").mkdir()
    listed = []
    for split, many in (("train", 96), ("val", 9), ("test", 6)):
        for n in range(many):
            name = list(COLOURS)[n % 3]
            pixels = np.clip(
                np.array(COLOURS[name]) + noise.integers(-30, 30, (20, 20, 3)), 0, 255
            ).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{split}{n}.png")
            sentences = [
                {"tokens": f"a {name} square".split()},
                {"tokens": f"this is {name}".split()},
            ]
            listed.append(
                {
                    "filename": f"{split}{n}.png",
                    "split": split,
                    "sentences": sentences,
                    "imgid": len(listed),
                }
            )
    (folder / "dataset.json").write_text(json.dumps({"images": listed}))
    return folder


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """A finished run."""
    from redense.cli import main

    out = tmp_path_factory.mktemp("runs") / "whole"
    assert (
        main([str(a) for a in ("train", "captions", "--data", squares, *TINY, "--out", out)]) == 0
    )
    return out


@pytest.fixture
def record(trained):
    return json.loads((trained / "record.json").read_text())


def test_a_run_tells_bleu_of_every_phase_and_all_scores_of_test(trained, record):
    assert {path.name for path in trained.iterdir()} >= KEPT
    assert [(p["name"], p["sparsity"]) for p in record["phases"]] == [
        ("dense", 0),
        ("sparse", 0.8),
        ("redense", 0),
    ]
    for phase in record["phases"]:
        assert set(phase["valid"]) == {"loss", "bleu1", "bleu2", "bleu3", "bleu4", "exact"}
    papers = {
        f"bleu{n}{variant}"
        for n in (1, 2, 3, 4)
        for variant in ("", "_without_penalty", "_constant")
    }
    plain = {"bleu4_nearest_features", "bleu4_nearest_pixels"}
    assert set(record["test"]) == {"loss", "exact", "chrf", "cider_d", "brevity"} | papers | plain
    assert record["test"]["bleu1"] > record["test"]["bleu1_constant"]
    assert record["data"]["tokenisation"] == scores.TOKENISATION
    assert "tok:none" in record["data"]["bleu"]
    assert record["data"]["captions"] == {"train": 192, "valid": 18, "test": 12}


def test_the_sparse_phase_holds_80_per_cent_of_every_matrix_and_none_of_the_embedding(trained):
    state = torch.load(trained / "checkpoints" / "sparse.ckpt", weights_only=True)["state_dict"]
    for name, weight in state.items():
        if name.startswith("model.") and weight.ndim > 1:
            held = 0 if "word_encoder" in name else round(0.8 * weight.numel())
            assert int((weight == 0).sum()) == held, name
    final = load_file(trained / "model.safetensors")
    assert all(
        int((weight == 0).sum()) < 0.8 * weight.numel()
        for weight in final.values()
        if weight.ndim > 1
    )


def test_captions_of_every_phase_are_kept_with_references_and_scores(trained, record, squares):
    kept = json.loads((trained / "captions.json").read_text())
    assert kept["phases"] == ["dense", "sparse", "redense"]
    assert len(kept["images"]) == 9
    for image in kept["images"]:
        assert Path(image["image"]).parent == squares / "images"
        for said in image["captions"].values():
            assert said["score"] == round(
                scores.each([said["caption"]], [image["references"]])[0], 2
            )
    for phase in record["phases"]:
        said = [image["captions"][phase["name"]]["caption"] for image in kept["images"]]
        assert (
            scores.bleu(said, [image["references"] for image in kept["images"]])["bleu4"]
            == phase["valid"]["bleu4"]
        )


def test_a_runs_report_shows_pictures_with_their_captions(trained, tmp_path, redense):
    assert redense("report", trained, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert (
        page.count('src="data:image/jpeg;base64,') == 4 + 4 + 4
    )  # at most half of validation's nine
    assert page.count("<dt>sparse ") == 12


def test_pictures_are_chosen_by_score_and_by_seed():
    images = [
        {"captions": {"dense": {"score": 0}, "sparse": {"score": s}}} for s in (5, 9, 1, 7, 9)
    ]
    content = {"phases": ["dense", "sparse"], "random": [3, 0, 2], "images": images}
    assert examples.choose(content, 2) == {"best": [1, 4], "random": [3, 0], "worst": [2, 0]}


@pytest.mark.parametrize("epoch", [3, 5, 7])
def test_a_resumed_run_ends_with_the_same_bits(
    epoch, trained, squares, tmp_path, redense, monkeypatch
):
    def stop(self, many, keep_last=RunFolder.keep_last):
        keep_last(self, many)
        if self.epoch_file(epoch).exists():
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "keep_last", stop)
        answer = redense("train", "captions", "--data", squares, *TINY, "--out", out)
    assert answer.code == 130
    assert not (out / "record.json").exists()
    assert redense("train", "captions", "--resume", out).code == 0
    whole, resumed = load_file(trained / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    assert (out / "captions.json").read_text() == (trained / "captions.json").read_text()


def test_a_resume_on_captions_that_changed_is_refused(trained, record, squares, tmp_path, redense):
    run, data = (
        shutil.copytree(trained, tmp_path / "run"),
        shutil.copytree(squares, tmp_path / "squares"),
    )
    (run / "record.json").unlink()
    settings = json.loads((run / "config.json").read_text())
    settings["options"]["data"] = str(data)
    (run / "config.json").write_text(json.dumps(settings))
    text = (data / "dataset.json").read_text()
    (data / "dataset.json").write_text(
        text.replace('["this", "is", "blue"]', '["this", "is", "red"]', 1)
    )
    answer = redense("train", "captions", "--resume", run)
    assert answer.code == 2
    assert f"its sha256 was {record['data']['sha256']}, now it is " in answer.err
    assert not (run / "record.json").exists()


def test_a_branched_run_has_the_captions_of_the_phases_it_did_not_train(trained, squares, tmp_path):
    phases = core.dsd(1, 1, 1, 0.5)
    options = {"data": str(squares), "hidden": 16, "batch": 6, "cnn_epochs": 8}
    config = RunConfig(recipe="captions", options=options, accelerator="cpu")
    work = FunctionWork.of(train, reads_test=True, data={})
    jobs = plan_jobs(build_methods(["pruned", "dsd"], {"0.5": phases}), [0], config)
    assert jobs[1].shared == 2
    alone = [replace(job, parent=None, shared=0) for job in jobs]
    assert not any(outcome.error for outcome in run_study(tmp_path / "branched", jobs, work))
    assert not any(outcome.error for outcome in run_study(tmp_path / "alone", alone, work))
    one, other = (
        tmp_path / kind / jobs[1].name / "captions.json" for kind in ("branched", "alone")
    )
    assert one.read_text() == other.read_text()
    parent = json.loads((tmp_path / "branched" / jobs[0].name / "captions.json").read_text())[
        "phases"
    ]
    assert json.loads(one.read_text())["phases"] != parent


def test_training_touches_no_image_once_there_are_features(
    squares, tmp_path, redense, monkeypatch, trained
):
    def refuse(*_):
        raise AssertionError("an image was opened")

    monkeypatch.setattr("redense.recipes.captions.features.extract", refuse)
    short = ("--dense", 1, "--sparse", 1, "--redense", 1)
    assert (
        redense(
            "train", "captions", "--data", squares, *TINY, *short, "--out", tmp_path / "again"
        ).code
        == 0
    )


def test_karpathys_features_train_without_any_image(squares, tmp_path, redense):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(squares / "dataset.json", folder)
    scipy.io.savemat(
        folder / "vgg_feats.mat", {"feats": np.random.default_rng(0).random((4096, 111))}
    )
    answer = redense("train", "captions", "--data", folder, *TINY, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert load_file(tmp_path / "run" / "model.safetensors")["image_encoder.weight"].shape == (
        16,
        4096,
    )
    answer = redense("caption", tmp_path / "run", squares / "images" / "test0.png")
    assert (answer.code, "trained on a file of features" in answer.err) == (2, True)


def test_a_fixed_torchvision_cnn_and_a_beam_train_and_caption(squares, tmp_path, redense):
    cnn = (
        "--cnn",
        "resnet18",
        "--cnn-weights",
        "random",
        "--cnn-size",
        32,
        "--beam",
        3,
        "--length-penalty",
        0.7,
    )
    assert (
        redense("train", "captions", "--data", squares, *TINY, *cnn, "--out", tmp_path / "run").code
        == 0
    )
    answer = redense("caption", tmp_path / "run", squares / "images" / "test0.png")
    assert (answer.code, answer.err) == (0, "")
    assert redense("export", tmp_path / "run", tmp_path / "hub").code == 0
    config = tmp_path / "hub" / "config.json"
    config.write_text(config.read_text().replace('"weights": "random"', '"weights": "/gone.pth"'))
    again = redense("caption", tmp_path / "hub", squares / "images" / "test0.png")
    assert again.out == answer.out
    whole = zoo.resnet18()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    flags = ("--cnn-weights", tmp_path / "whole.pth")
    assert redense("caption", tmp_path / "hub", squares / "images" / "test0.png", *flags).code == 0


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v2"])
def test_a_cnn_is_kept_beside_the_network(name, tmp_path, cache):
    cnn = torchvision_cnn(name, "random", 64)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        keep_cnn(cnn, tmp_path / folder)
    file = tmp_path / "a" / "cnn.safetensors"
    assert file.samefile(tmp_path / "b" / "cnn.safetensors")
    kept = kept_cnn(name, file, 64, pretrained=False)
    assert kept.digest() == cnn.digest()


def test_caption_says_what_the_run_said(trained, redense):
    kept = json.loads((trained / "captions.json").read_text())["images"]
    answer = redense("caption", trained, *(image["image"] for image in kept))
    assert answer.code == 0
    assert answer.out.splitlines() == [
        f"{i['image']}: {i['captions']['redense']['caption']}" for i in kept
    ]


def test_caption_works_on_a_run_that_is_not_finished(trained, tmp_path, redense):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name in ("model.safetensors", "record.json"):
        (run / name).unlink()
    image = json.loads((run / "captions.json").read_text())["images"][0]["image"]
    assert redense("caption", run, image).out == redense("caption", trained, image).out


def test_caption_works_on_an_exported_network(trained, squares, tmp_path, redense):
    assert redense("export", trained, tmp_path / "hub").code == 0
    image = squares / "images" / "test1.png"
    answer = redense(
        "caption", tmp_path / "hub", image, "--cnn-weights", trained / "cnn.safetensors"
    )
    assert answer.out == redense("caption", trained, image).out != ""


def test_inspect_shows_the_sparse_phase(trained, redense):
    answer = redense("inspect", trained / "checkpoints" / "sparse.ckpt")
    assert answer.code == 0
    assert answer.out.count(" 819 ") == 2  # of the LSTM's 64 x 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "captions", "--data", "nowhere"), "neither a packaged set"),
        (("train", "captions", "--dropout", 1), "dropout must lie in [0, 1), got 1"),
        (("train", "captions", "--batch", 0), "batch must be at least 1, got 0"),
        (("train", "captions", "--lr", 0), "lr must be a finite number above 0"),
        (("train", "captions", "--beem", 3), "there is no flag --beem; did you mean --beam"),
        (("caption", "nowhere", "a.png"), "no such folder; it takes a run"),
    ],
)
def test_a_mistake_in_what_is_asked_for_ends_with_2_and_one_line(
    arguments, message, redense, cache
):
    answer = redense(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_caption_goes_on_after_pictures_that_it_cannot_read(trained, squares, tmp_path, redense):
    (tmp_path / "cut.png").write_bytes(b"no picture")
    good = sorted((squares / "images").glob("test*.png"))
    whole = redense("caption", trained, *good)
    asked = (tmp_path / "none.png", tmp_path / "cut.png", squares / "images")
    answer = redense("caption", trained, *asked)
    assert answer.code == 2
    none, cut = answer.err.splitlines()
    assert none == f"{tmp_path / 'none.png'}: no such file"
    assert cut.startswith(f"{tmp_path / 'cut.png'} is not a whole image")
    assert set(whole.out.splitlines()) <= set(answer.out.splitlines())
    empty = redense("caption", trained, tmp_path)
    assert empty.code == 2


def test_the_papers_settings_are_the_defaults():
    options = CaptionOptions()
    assert (options.hidden, options.batch, options.clip) == (256, 100, 5)
    assert (options.weight_decay, options.most_words) == (1e-8, 20)
    plan = RECIPES["captions"].schedule
    assert [plan[phase] for phase in ("dense", "sparse", "redense")] == [19, 10, 6]
    assert plan["sparsity"] == 0.8


def test_a_tiny_run_says_of_its_training_pictures_what_it_was_taught(trained, squares, redense):
    pictures = [squares / "images" / f"train{n}.png" for n in range(12)]
    said = [
        line.rpartition(": ")[2] for line in redense("caption", trained, *pictures).out.splitlines()
    ]
    colours = [list(COLOURS)[n % 3] for n in range(12)]
    right = [{f"a {colour} square", f"this is {colour}"} for colour in colours]
    assert all(caption in each for caption, each in zip(said, right, strict=True)), said


def test_the_first_step_is_no_longer_than_the_rate(squares, cache):
    task = CaptionTask(CaptionOptions(data=str(squares), lr=1e-3, cnn_epochs=1), seed=0)
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    optimizer = task.configure_optimizers()
    batch = next(iter(Batches(task.data.splits["train"], 10, seed=0)))
    task.training_step(batch, 0).backward()
    optimizer.step()
    for name, parameter in task.model.named_parameters():
        assert float((parameter.detach() - before[name]).abs().max()) < 1.001e-3, name
