"""A trained network for people: files in, answers out, and a model card whose program runs."""

import copy
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import redense as package
from redense import datasets
from redense.files.records import read_record
from redense.recipes import RECIPES
from redense.recipes.card import _LICENCES, model_card
from redense.recipes.portable import program_of
from redense.recipes.trained import restore

CLASSES = ("blue", "green", "red")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(trained, tmp_path, redense):
    """An export in a folder that the card names whole."""
    answer = redense("export", trained.run, tmp_path / "hub")
    assert answer.code == 0, answer.err
    return tmp_path / "hub"


def programs(folder):
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)


def test_the_cards_program_runs_from_an_empty_folder(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    assert programs(hub)
    for program in programs(hub):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path / "empty",
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_card_says_what_a_hub_asks_for(hub, trained):
    record = json.loads((trained.run / "record.json").read_text())
    card = ModelCard.load(hub / "README.md")
    says = card.data
    name, metric, hubs = {
        "images": ("image-classification", "top1", "accuracy"),
        "captions": ("image-to-text", "bleu4", "bleu"),
        "speech": ("automatic-speech-recognition", "wer", "wer"),
    }[trained.recipe]
    assert (says.pipeline_tag, says.license, says.library_name) == (name, "other", "pytorch")
    assert "say so here before you pass the network on" in card.text
    assert says.datasets == [record["data"]["name"]]
    assert hubs in says.metrics
    results = {result.metric_name: result for result in says.eval_results}
    told = results[f"{metric}, per cent"]
    assert told.metric_value == pytest.approx(record["test"][metric], abs=1e-4)
    assert (told.metric_type, told.dataset_split) == (hubs, "test")


def test_the_licence_of_every_packaged_set_is_known(trained_images):
    assert set(_LICENCES) == set(datasets.names())
    record = json.loads((trained_images.run / "record.json").read_text())
    record["options"]["data"] = "fashion-mnist"
    config = {"recipe": "images", **json.loads((trained_images.run / "network.json").read_text())}
    assert "license: mit\n" in model_card(record, config, "hub")


def test_a_card_says_in_how_few_bits_a_network_was_trained(trained_images):
    record = json.loads((trained_images.run / "record.json").read_text())
    config = {"recipe": "images", **json.loads((trained_images.run / "network.json").read_text())}
    assert record["precision"] == "32-true"
    assert " s with redense " in model_card(record, config, "hub")
    text = model_card(record | {"precision": "bf16-mixed"}, config, "hub")
    assert " s at bf16-mixed with redense " in text


def test_a_card_of_a_dense_training_says_nothing_of_sparse_phases(trained_images):
    record = read_record(trained_images.run / "record.json")
    _, config = restore(trained_images.run)
    _, _, card = model_card({**record, "plan": record["plan"][:1]}, config, "hub").split("---", 2)
    assert "all weights free throughout" in card
    assert "trained by\n[Dense-Sparse-Dense" not in card
    assert "sparse phase" not in card


def test_a_card_without_a_test_split_tells_the_validations_scores(trained_speech):
    record = json.loads((trained_speech.run / "record.json").read_text()) | {"test": {}}
    config = {"recipe": "speech", **json.loads((trained_speech.run / "network.json").read_text())}
    text = model_card(record, config, "hub")
    assert "There is no test split." in text
    assert "split: valid" in text


def test_a_file_and_what_is_in_memory_are_answered_alike(trained):
    network = package.load(trained.run)
    if trained.recipe == "speech":
        import soundfile

        memory = soundfile.read(trained.sample, dtype="float32")[0]
    else:
        memory = Image.open(trained.sample)
    answers = network.predict(trained.sample)
    assert len(answers) == 1
    assert network.predict(str(trained.sample)) == answers == network.predict(memory)
    both = network.predict([trained.sample, memory])
    assert [list(one) for one in both] == [list(one) for one in answers * 2]
    again = copy.deepcopy(network)
    assert again.predict(trained.sample) == answers


def test_a_network_stays_an_ordinary_one(trained):
    network = package.load(trained.run)
    saved = load_file(trained.run / "model.safetensors")
    assert list(network.state_dict()) == list(type(network).state_dict(network))
    assert network.state_dict().keys() == saved.keys()
    network.train()
    network.predict(trained.sample)
    assert network.training
    assert network.config["recipe"] == trained.recipe


def test_a_classifier_sees_what_evaluation_sees(trained_images, redense, pictures):
    network = package.load(trained_images.run)
    assert network.classes == CLASSES
    files = sorted((pictures / "test").glob("*/*.png"))
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    with torch.no_grad():
        logits = network(network.preprocess(files))
    record = json.loads((trained_images.run / "record.json").read_text())
    loss = torch.nn.functional.cross_entropy(logits, labels)
    assert float(loss) == pytest.approx(record["test"]["loss"], rel=1e-4)
    shares = network.predict(files, top=2)
    assert [len(one) for one in shares] == [2] * len(files)
    assert [next(iter(one)) for one in shares] == [CLASSES[n] for n in logits.argmax(1)]
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        network.predict(files, top=0)


def test_a_captioner_takes_features_too(trained_captions):
    network = package.load(trained_captions.run)
    features = network.preprocess(trained_captions.sample)
    assert network.predict(features) == network.predict(trained_captions.sample)
    assert network.predict([]) == network.predict(features[:0]) == []
    for odd in (features[:, 1:], features[0], features * float("nan")):
        with pytest.raises(ValueError, match=r"features are \(N, \d+\) here, finite, got"):
            network.predict(odd)
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        network.predict(features, beam=0)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("caption RUN a.png --beam 0", "--beam: must be at least 1, got 0"),
        ("caption RUN a.png --beam 99999999999999999999", "--beam: expected a whole number"),
        ("transcribe RUN a.wav --beam 0", "--beam: must be at least 1, got 0"),
        ("transcribe RUN a.wav --lm-weight nan", "--lm-weight: must be at least 0, got nan"),
        ("transcribe RUN a.wav --word-score 5", "--word-score is of the beam search, which needs"),
        ("classify RUN a.png --top 0", "--top: must be at least 1, got 0"),
        ("sensitivity RUN --tolerance nan", "--tolerance: must be at least 0, got nan"),
        ("sensitivity RUN --tolerance -1", "--tolerance: must be at least 0, got -1"),
        ("sensitivity RUN --levels abc", "several with slashes or commas between"),
        ("sensitivity RUN --levels 0.5,2", "--levels: must be at most 1, got 2"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(command, said, redense):
    answer = redense(*command.split())
    assert (answer.code, answer.err.count("\n"), said in answer.err) == (2, 1, True), answer.err


def test_a_picture_in_memory_keeps_its_transparency(trained_images, tmp_path):
    network = package.load(trained_images.run)
    picture = Image.new("P", (20, 20), 1)
    picture.putpalette([255, 0, 0, 0, 0, 0])
    picture.save(tmp_path / "clear.png", transparency=1)
    by_name = network.preprocess(tmp_path / "clear.png")
    with Image.open(tmp_path / "clear.png") as opened:
        assert torch.equal(network.preprocess(opened), by_name)
    assert not torch.equal(network.preprocess(Image.new("RGB", (20, 20))), by_name)


def test_classify_prints_the_likeliest_classes(trained_images, tmp_path, redense):
    Image.new("RGB", (20, 30), "red").save(tmp_path / "b.jpg")
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "deep" / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    files = [tmp_path / "b.jpg", tmp_path / "deep" / "a.png"]
    answer = redense("classify", trained_images.run, tmp_path, "--top", 2)
    said = f"{tmp_path}: 1 files are not read as pictures: 1 .txt\n"
    assert (answer.code, answer.err) == (0, said)
    assert [line.partition(": ")[0] for line in answer.out.splitlines()] == list(map(str, files))
    assert all(re.fullmatch(r".*: \w+ [\d.]+ %, \w+ [\d.]+ %", s) for s in answer.out.splitlines())
    lines = redense("classify", trained_images.run, *files, "--json").out.splitlines()
    told = [json.loads(line) for line in lines]
    assert [Path(one["picture"]) for one in told] == files
    assert all(sum(one["classes"].values()) == pytest.approx(1) for one in told)
    assert all(set(one["classes"]) == set(CLASSES) for one in told)


USES = {
    "classify": ("trained_images", "- is not a whole image", "picture"),
    "caption": ("trained_captions", "- is not a whole image", "picture"),
    "transcribe": ("trained_speech", "-: corrupt: ", "recording"),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_asked_about_may_come_through_a_pipe(use, request, monkeypatch, redense):
    name, wrong, _ = USES[use]
    trained = request.getfixturevalue(name)
    by_name = redense(use, trained.run, trained.sample).out
    for content, code in ((trained.sample.read_bytes(), 0), (b"nothing of the kind", 2)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        answer = redense(use, trained.run, "-")
        assert answer.code == code, answer.err
        if code:
            assert answer.err.startswith(wrong)
            assert answer.err.count("\n") == 1
        else:
            assert answer.out == by_name.replace(str(trained.sample), "-")


@pytest.mark.parametrize("use", USES)
def test_a_folder_is_asked_about_file_by_file_and_answers_may_be_json(
    use, request, tmp_path, redense
):
    name, _, what = USES[use]
    trained = request.getfixturevalue(name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    files = [tmp_path / f"deep/a{trained.sample.suffix}", tmp_path / f"z{trained.sample.suffix}"]
    for file in files:
        file.write_bytes(trained.sample.read_bytes())
    answer = redense(use, trained.run, tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert f"1 files are not read as {what}s: 1 .txt" in answer.err
    told = [list(json.loads(line).values()) for line in answer.out.splitlines()]
    assert [Path(file) for file, _ in told] == files
    plain = redense(use, trained.run, *files).out.splitlines()
    if use != "classify":
        assert [f"{file}: {said}" for file, said in told] == plain
    (tmp_path / "empty").mkdir()
    answer = redense(use, trained.run, tmp_path / "empty")
    assert (answer.code, f"holds no {what}" in answer.err) == (2, True)


def test_classify_goes_on_after_a_bad_file(trained_images, tmp_path, redense):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    files = (tmp_path / "none.png", tmp_path / "cut.png", trained_images.sample)
    answer = redense("classify", trained_images.run, *files)
    assert answer.code == 2
    assert answer.err.splitlines()[0] == f"{tmp_path / 'none.png'}: no such file"
    assert "cut.png is not a whole image" in answer.err.splitlines()[1]
    assert answer.out.startswith(f"{trained_images.sample}: ")
    (tmp_path / "empty").mkdir()
    answer = redense("classify", trained_images.run, tmp_path / "empty")
    assert (answer.code, "holds no picture" in answer.err) == (2, True)


def test_the_captioner_that_comes_along_says_what_is_drawn(tmp_path, redense):
    folder = ROOT / "models" / "emoji-dsd"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    card = model_card(read_record(folder / "record.json"), config, "models/emoji-dsd")
    assert (folder / "README.md").read_text("utf-8") == card
    assert not [word for word in config["vocabulary"] if word in ("skin", "tone")]
    for name, colour in (("red", "#dd2e44"), ("blue", "#3b88c3"), ("green", "#77b255")):
        picture, file = Image.new("RGB", (72, 72), "white"), tmp_path / f"{name}.png"
        ImageDraw.Draw(picture).ellipse((3, 3, 69, 69), fill=colour)
        picture.save(file)
        assert redense("caption", folder, file).out == f"{file}: {name} circle\n"


def test_the_model_that_comes_along_has_todays_card_and_answers():
    folder = ROOT / "models" / "fashion-mnist-dsd"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    network, _ = restore(folder)
    parts = RECIPES["images"].portable(network, config, folder)
    name = "models/fashion-mnist-dsd"
    programs = [program_of(part, "onnx", name) for part in parts]
    card = model_card(read_record(folder / "record.json"), config, name, programs=programs)
    assert (folder / "README.md").read_text("utf-8") == card
    (answer,) = package.load(folder).predict(Image.new("RGB", (40, 30), "black"))
    assert len(answer) == 5
    assert set(answer) < set(config["classes"])
