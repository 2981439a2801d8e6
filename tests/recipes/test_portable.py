"""A trained network elsewhere: ONNX and exported programs answer real inputs as it does."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

import redense as package
from redense.recipes import RECIPES
from redense.recipes.captions.decoding import greedy
from redense.recipes.portable import Portable, write_portable
from redense.recipes.speech.models import Padded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory):
    """An export of a run in every format, made once for each recipe."""
    made = {}

    def export(trained, redense):
        if trained.recipe not in made:
            folder = tmp_path_factory.mktemp(trained.recipe) / "hub"
            answer = redense("export", trained.run, folder, "--format", "onnx,pt2")
            assert answer.code == 0, answer.err
            made[trained.recipe] = folder
        return made[trained.recipe]

    return export


def ask_onnx(file, tensor):
    session = onnxruntime.InferenceSession(file)
    (given,) = session.get_inputs()
    (answer,) = session.run(None, {given.name: tensor.numpy()})
    return torch.from_numpy(answer)


def ask_program(file, tensor):
    with torch.no_grad():
        return torch.export.load(file).module()(tensor)


ASK = {".onnx": ask_onnx, ".pt2": ask_program}


@pytest.mark.parametrize("ending", ASK)
def test_a_real_picture_is_classified_alike(ending, elsewhere, trained_images, redense, pictures):
    folder, ask = elsewhere(trained_images, redense), ASK[ending]
    network = package.load(folder)
    files = sorted((pictures / "test").glob("*/*.png"))
    for some in (files, files[:1]):
        pixels = network.preprocess(some)
        with torch.no_grad():
            torch.testing.assert_close(
                ask(folder / f"model{ending}", pixels), network(pixels), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("ending", ASK)
def test_a_real_picture_is_captioned_alike(ending, elsewhere, trained_captions, redense):
    folder, ask = elsewhere(trained_captions, redense), ASK[ending]
    network = package.load(folder)
    cnn = network.predict.__self__.cnn
    from redense.recipes.captions.features import read_image

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (cnn.mean, cnn.std))
    pixels = (read_image(trained_captions.sample, cnn.size).float() / 255 - mean) / std
    features = ask(folder / f"cnn{ending}", pixels.unsqueeze(0))
    torch.testing.assert_close(
        features, network.preprocess(trained_captions.sample), rtol=1e-3, atol=1e-4
    )
    (words,) = ask(folder / f"model{ending}", features).tolist()
    vocabulary = network.config["vocabulary"]
    said = " ".join(vocabulary[word - 1] for word in words if word)
    assert [said] == network.predict(trained_captions.sample)


def test_captions_of_many_features_are_said_alike(elsewhere, trained_captions, redense):
    folder = elsewhere(trained_captions, redense)
    network = package.load(folder)
    features = 3 * torch.randn(64, network.config["features"])
    told = ask_onnx(folder / "model.onnx", features).tolist()
    said = greedy(network, features, network.config["most_words"])
    assert [[word for word in row if word] for row in told] == said
    assert len({tuple(row) for row in told}) > 1


@pytest.mark.parametrize("ending", ASK)
def test_a_real_sound_is_heard_alike(ending, elsewhere, trained_speech, redense):
    folder, ask = elsewhere(trained_speech, redense), ASK[ending]
    network = package.load(folder)
    heard = network.preprocess(trained_speech.sample)
    for frames in (heard.data, heard.data[:, :31]):
        with torch.no_grad():
            wanted = network(Padded(frames, torch.tensor([frames.shape[1]])))
        told = ask(folder / f"model{ending}", frames)
        torch.testing.assert_close(told, wanted.data, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "cell"),
    [("deepspeech1", "rnn"), ("deepspeech1", "lstm"), ("deepspeech2", "gru")],
)
def test_every_cell_without_a_batch_is_the_network_itself(architecture, cell, tmp_path):
    sizes = {"width": 6, "cell": cell, "stride": 2}
    sizes |= {"layers": 2, "filters": 2} if architecture == "deepspeech2" else {"context": 5}
    config = {"architecture": architecture, "bins": 161, "alphabet": "ab ", "sizes": sizes}
    recipe = RECIPES["speech"]
    torch.manual_seed(0)
    network = recipe.network(config).eval()
    (part,) = recipe.portable(network, config, Path())
    file = write_portable(part, "pt2", tmp_path, config)
    for frames in part.examples:
        with torch.no_grad():
            torch.testing.assert_close(
                ask_program(file, frames), part.answer(frames), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("architecture", ["small", "googlenet"])
def test_networks_of_pictures_are_written_for_any_batch(architecture, tmp_path):
    channels, size = (1, 28) if architecture == "small" else (3, 32)
    config = {
        "architecture": architecture,
        "channels": channels,
        "size": size,
        "classes": ["a", "b", "c"],
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
    }
    recipe = RECIPES["images"]
    network = recipe.network(config).eval()
    (part,) = recipe.portable(network, config, Path())
    file = write_portable(part, "onnx", tmp_path, config)
    for many in (1, 7):
        pixels = torch.randn(many, channels, size, size)
        with torch.no_grad():
            torch.testing.assert_close(
                ask_onnx(file, pixels), network(pixels), rtol=1e-3, atol=1e-4
            )


def test_what_rebuilds_the_network_lies_in_each_file(elsewhere, trained_images, redense):
    folder = elsewhere(trained_images, redense)
    config = json.loads((folder / "config.json").read_text())
    known = onnxruntime.InferenceSession(folder / "model.onnx").get_modelmeta()
    assert json.loads(known.custom_metadata_map["redense"]) == config
    inside = {"config.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=inside)
    assert json.loads(inside["config.json"]) == config


def test_the_cards_programs_run_without_redense(elsewhere, trained, redense, tmp_path):
    folder = elsewhere(trained, redense)
    card = (folder / "README.md").read_text("utf-8")
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == (5 if trained.recipe == "captions" else 3)
    for program in programs[1:]:
        assert "redense" not in program.replace(str(folder), "")
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_an_export_without_a_format_leaves_none_of_an_older_one(trained_images, redense, tmp_path):
    folder = tmp_path / "hub"
    answer = redense("export", trained_images.run, folder, "--format", "onnx")
    assert (answer.code, (folder / "model.onnx").is_file()) == (0, True)
    assert str(folder / "model.onnx") in answer.out
    assert redense("export", trained_images.run, folder).code == 0
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    shutil.copyfile(ROOT / "README.md", tmp_path / "model.onnx")
    answer = redense("export", trained_images.run, tmp_path)
    assert (answer.code, "is not of an export" in answer.err) == (2, True)
    answer = redense("export", trained_images.run, folder, "--format", "onx")
    assert (answer.code, "there is no format 'onx'" in answer.err) == (2, True)


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path):
    network = torch.nn.Linear(3, 2)
    part = Portable(
        "model", network, lambda x: network(x) + 1, [torch.ones(2, 3)], {0: "b"}, "x", "y", ""
    )
    for form in ("onnx", "pt2"):
        with pytest.raises(ValueError, match=r"answers otherwise than the network to \(2, 3\)"):
            write_portable(part, form, tmp_path, {})
    assert not list(tmp_path.iterdir())


class Choosy(torch.nn.Module):
    """What no trace can hold: it goes on by what its input is."""

    def forward(self, x):
        return x if float(x.sum()) > 0 else -x


def test_a_network_that_cannot_be_traced_is_one_line(tmp_path):
    part = Portable("model", Choosy(), Choosy(), [torch.ones(2, 3)], {0: "b"}, "x", "y", "")
    with pytest.raises(ValueError, match="cannot trace this model: ") as told:
        write_portable(part, "pt2", tmp_path, {})
    assert "\n" not in str(told.value)


def test_who_lacks_onnx_is_told_the_extra(trained_images, redense, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    answer = redense("export", trained_images.run, tmp_path / "hub", "--format", "onnx")
    assert (answer.code, "pip install 'redense[onnx]'" in answer.err) == (2, True)


def test_the_card_tells_the_verdict_of_the_runs_study(
    trained_images, redense, tmp_path, monkeypatch
):
    study = ROOT / "results" / "images"
    answer = redense("export", trained_images.run, tmp_path / "hub", "--study", study)
    assert answer.code == 0, answer.err
    card = (tmp_path / "hub" / "README.md").read_text("utf-8")
    assert "Does dense-sparse-dense (dsd) help here?" in card
    run = tmp_path / "study" / "dsd--0"
    shutil.copytree(study, tmp_path / "study")
    shutil.rmtree(run)
    shutil.copytree(trained_images.run, run)
    for name in ("record.json",):
        shutil.copyfile(study / "dsd--0" / name, run / name)
    weights = json.loads((trained_images.run / "record.json").read_text())["weights_sha256"]
    record = json.loads((run / "record.json").read_text()) | {"weights_sha256": weights}
    (run / "record.json").write_text(json.dumps(record))
    assert redense("export", run, tmp_path / "other").code == 0
    card = (tmp_path / "other" / "README.md").read_text("utf-8")
    assert "Does dense-sparse-dense (dsd) help here?" in card
    search = ROOT / "results" / "search-warm-start"
    monkeypatch.chdir(search / "confirm")
    for number, folder in enumerate((search, search / "confirm", ".")):
        out = tmp_path / f"searched {number}"
        assert redense("export", trained_images.run, out, "--study", folder).code == 0
        card = (out / "README.md").read_text("utf-8")
        assert "it is not shown that this is by what it holds at zero" in card
    answer = redense("export", trained_images.run, tmp_path / "third", "--study", tmp_path)
    assert (answer.code, "holds no finished run" in answer.err) == (2, True)
