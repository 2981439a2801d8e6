"""A trained network on a hub of models, and in other people's hands: a local server, Hugging Face's
own client, an environment without redense."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import redense as package
from redense.recipes.hub import is_hub_name

ROOT = Path(__file__).parents[2]


def said(answer):
    assert answer.code == 0, answer.err
    return answer.out


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_pushed_network_answers_by_its_name(trained, hub, redense, tmp_path):
    assert redense("export", trained.run, "hub").code == 0
    (tmp_path / "hub" / "diary.txt").write_text("mine")
    assert said(redense("push", "hub", "ada/first")).strip().endswith("/ada/first")
    sent = dict(hub.models["ada/first"])
    card = sent.pop("README.md").decode()
    assert sent == {name: (tmp_path / "hub" / name).read_bytes() for name in sent}
    assert {"config.json", "model.safetensors"} <= set(sent)
    assert "diary.txt" not in sent
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (tmp_path / "hub").rename(tmp_path / "gone")
    for program in programs:
        exec(program, {})
    (tmp_path / "gone").rename(tmp_path / "hub")
    use = {"images": "classify", "captions": "caption", "speech": "transcribe"}[trained.recipe]
    by_name = said(redense(use, "ada/first", trained.sample))
    assert by_name == said(redense(use, "hub", trained.sample))
    assert package.load("ada/first").config == package.load("hub").config


def test_a_network_of_the_hub_is_scored(trained_images, hub, redense, pictures):
    assert redense("export", trained_images.run, "hub").code == 0
    said(redense("push", "hub", "ada/first"))
    flags = ("--data", pictures, "--workers", 0)
    assert said(redense("eval", "ada/first", *flags)) == said(redense("eval", "hub", *flags))


def test_what_the_hub_refuses_is_one_line(trained_images, hub, redense, monkeypatch):
    assert redense("export", trained_images.run, "hub").code == 0
    answer = redense("classify", "ada/none", trained_images.sample)
    assert answer.code == 2
    assert "ada/none: no such folder here, and no model on the hub that you may" in answer.err
    answer = redense("push", trained_images.run, "ada/first")
    assert (answer.code, "is not what redense export writes" in answer.err) == (2, True)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    answer = redense("push", "hub", "ada/first")
    assert answer.code == 2
    assert "the hub does not take ada/first: " in answer.err
    assert "hf auth login" in answer.err
    answer = redense("push", "hub", "a b/c")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for arguments in (("push", "hub", "ada/first"), ("classify", "ada/first", "a.png")):
        answer = redense(*arguments)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert "the hub" in answer.err
    assert not hub.models.get("ada/first")


def test_a_folder_that_is_here_is_never_the_hubs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("ada/first")
    assert not is_hub_name("ada")
    assert not is_hub_name("./ada/first")
    assert not is_hub_name(tmp_path / "first")
    (tmp_path / "ada").mkdir()
    assert not is_hub_name("ada/first")
    with pytest.raises(FileNotFoundError, match="ada/first: no such folder"):
        package.load("ada/first")


@pytest.fixture(scope="session")
def without_redense(tmp_path_factory):
    """A Python with every package of this one but redense."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    # a line of a .pth is added to the path, and the .pth files there, an editable install's, unread
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(program, where):
        return subprocess.run(
            [python, "-c", program], cwd=where, env=environment, capture_output=True, text=True
        )

    assert "No module named 'redense'" in run("import redense", folder).stderr
    return run


TORCHVISION = """
import json
from safetensors.torch import load_file
from torchvision.models import get_model
config = json.load(open("hub/config.json"))
network = get_model(config["architecture"], num_classes=len(config["classes"]))
print(network.load_state_dict(load_file("hub/model.safetensors")))
"""

MIXIN = """
import torch
from huggingface_hub import PyTorchModelHubMixin

class Talker(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, vocabulary, features, hidden, **more):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(()))
        self.image_encoder = torch.nn.Linear(features, hidden)
        self.word_encoder = torch.nn.Embedding(len(vocabulary) + 1, hidden)
        self.lstm = torch.nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = torch.nn.Linear(hidden, len(vocabulary) + 1)

network = Talker.from_pretrained("hub", strict=True)
torch.save(network.state_dict(), "state.pt")
"""


def test_torchvisions_own_class_loads_an_export(trained_images, without_redense, redense, tmp_path):
    assert redense("export", trained_images.run, tmp_path / "hub").code == 0
    done = without_redense(TORCHVISION, tmp_path)
    assert "<All keys matched successfully>" in done.stdout, done.stderr


def test_huggingfaces_own_mixin_loads_an_export(
    trained_captions, without_redense, redense, tmp_path
):
    assert redense("export", trained_captions.run, tmp_path / "hub").code == 0
    done = without_redense(MIXIN, tmp_path)
    assert done.returncode == 0, done.stderr
    ours = load_file(trained_captions.run / "model.safetensors")
    theirs = torch.load(tmp_path / "state.pt")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_huggingfaces_own_client_fetches_what_was_pushed(
    trained_captions, hub, without_redense, redense, tmp_path
):
    assert redense("export", trained_captions.run, "out").code == 0
    said(redense("push", "out", "ada/talker"))
    fetching = MIXIN.replace('"hub"', '"ada/talker"')
    settings = {"HF_ENDPOINT": os.environ["HF_ENDPOINT"], "HF_HOME": str(tmp_path / "home")}
    program = f"import os; os.environ.update({json.dumps(settings)})\n{fetching}"
    done = without_redense(program, tmp_path)
    assert done.returncode == 0, done.stderr
    ours = load_file(trained_captions.run / "model.safetensors")
    theirs = torch.load(tmp_path / "state.pt")
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
