"""What several tests share: one thread a process, tiny pictures on disk, and the command line in
this process."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: two spinning processes on two cores crawl

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hub_server import serving
from PIL import Image
from safetensors.torch import save_file
from trained_runs import train, write_captions, write_speech

# what a shell or nohup switches off for a suite in the background, its commands would inherit
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).parent.parent
CLASSES = ("blue", "green", "red")
SIZES = {"train": 24, "val": 9, "test": 6}
TINY = ("--size", "8", "--batch", "8", "--accelerator", "cpu")
"""Flags that make any image run a matter of a second."""


MINE = """
import torch
from torch import nn


def train(run):
    torch.manual_seed(run.seed)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    points = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    labels = (points[:, 0] > 0).long()
    for _ in run.epochs(model, optimizer):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points), labels).backward()
        optimizer.step()
    return {"valid": {"top1": float((model(points).argmax(1) == labels).float().mean())}}
"""
"""A training function of a user's own, as a file."""


class Answer(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


def write_pictures(folder: Path, sizes: dict[str, int] | None = None, side: int = 8) -> Path:
    """train/, val/ and test/ with one folder a class: noise in that class's colour."""
    noise = np.random.default_rng(0)
    for part, many in (sizes or SIZES).items():
        for number in range(many):
            label = number % len(CLASSES)
            pixels = noise.integers(0, 160, (side, side, 3), dtype=np.uint8)
            pixels[..., 2 - label] += 95
            path = folder / part / CLASSES[label] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


def torchrun(processes: int, *arguments: object, seconds: float = 180) -> str:
    """The output of processes on this machine's loopback; whatever happens, none of them is
    left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ("--nproc-per-node", processes, "--master-addr", "127.0.0.1", "--master-port", port)
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, (*flags, *arguments))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
        },
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # upon which it ends the processes that it started
        pytest.fail(f"not done after {seconds} s: {process.communicate(timeout=60)[0]}")
    finally:
        process.kill()
    assert process.returncode == 0, out
    return out


def write_stripes(cache: Path) -> Path:
    """A cache folder of packaged data whose fashion-mnist is 96 + 30 stripes of 12 px in three
    classes: what trains by default, in seconds."""
    folder = cache / "fashion-mnist"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for part, many in (("train", 96), ("test", 30)):
        labels = torch.randint(3, (many,), generator=draw)
        images = torch.randint(0, 90, (many, 1, 12, 12), generator=draw, dtype=torch.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, :, label :: int(label) + 2] += 120
        save_file({"images": images, "labels": labels}, folder / f"{part}.safetensors")
    card = {"name": "fashion-mnist", "task": "images", "classes": list(CLASSES)}
    (folder / "card.json").write_text(json.dumps(card))
    return cache


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`write_stripes` in a folder of its own: what REDENSE_DATA names."""
    return write_stripes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny pictures in three classes; read it, do not change it."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    """The same, for a test that breaks something in it."""
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def redense(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The command line, as ``redense("train", "images") -> Answer``. The places that it imports a
    user's file from end with the test: a random.py there would kill the next test's processes."""
    from redense.cli import main

    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub of models on this machine, and Hugging Face's client in this process that knows it."""
    client = "huggingface_hub.constants"
    with serving() as (address, server):
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{client}.ENDPOINT", address)
        monkeypatch.setattr(f"{client}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{client}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{client}.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield server


@pytest.fixture(scope="session")
def trained_images(pictures, tmp_path_factory):
    """A run of a torchvision network."""
    sample = pictures / "test" / "red" / "0002.png"
    return train("images", pictures, sample, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def trained_captions(tmp_path_factory):
    """A run of NeuralTalk on a small CNN of its own; its data are gone."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_captions(folder / "data")
    trained = train("captions", data, data / "images" / "test0.png", folder)
    shutil.rmtree(data)
    return trained


@pytest.fixture(scope="session")
def trained_speech(tmp_path_factory):
    """A run of a DeepSpeech 2 of eight units; its data are gone."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_speech(folder / "data")
    trained = train("speech", data, data / "test0.wav", folder)
    shutil.rmtree(data)
    return trained


@pytest.fixture(params=["images", "captions", "speech"])
def trained(request):
    """A run of each recipe in turn."""
    return request.getfixturevalue(f"trained_{request.param}")
