"""A tiny trained run of each recipe, for what is done with runs afterwards."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from PIL import Image

ONCE = ("--dense", "1", "--sparse", "1", "--redense", "1", "--accelerator", "cpu")
FLAGS = {
    "images": ("--model", "shufflenet_v2_x0_5", "--size", "32", "--batch", "8", *ONCE),
    "captions": (
        *("--hidden", "8", "--batch", "6", "--least", "1", "--cnn-epochs", "2", "--beam", "1"),
        *ONCE,
    ),
    "speech": (
        *("--width", "8", "--layers", "1", "--filters", "2", "--batch", "4", *ONCE),
        *("--passes", "1", "--sparsity", "0.5", "--sparse-lr", "1", "--redense-lr", "0.1"),
    ),
}


class Trained(NamedTuple):
    """A finished run, and an input of its kind."""

    recipe: str
    run: Path
    sample: Path


def write_captions(folder: Path) -> Path:
    """Karpathy's JSON with squares of two colours."""
    (folder / "images").mkdir(parents=True)
    listed = []
    for split, many in (("train", 12), ("val", 4), ("test", 4)):
        for number in range(many):
            name = ("red", "blue")[number % 2]
            Image.new("RGB", (20, 20), name).save(folder / "images" / f"{split}{number}.png")
            sentences = [{"tokens": ["a", name, "square"]}]
            listed.append(
                {"filename": f"{split}{number}.png", "split": split, "sentences": sentences}
            )
    (folder / "dataset.json").write_text(json.dumps({"images": listed}))
    return folder


def write_speech(folder: Path) -> Path:
    """Manifests of noise that says two things."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for split, many in (("train", 8), ("valid", 2), ("test", 2)):
        lines = []
        for number in range(many):
            sound = noise.normal(0, 0.1, 12_000)
            soundfile.write(folder / f"{split}{number}.wav", sound, 16_000)
            line = {"audio": f"{split}{number}.wav", "text": ("ab ab", "ba cab")[number % 2]}
            lines.append(json.dumps(line) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder


def train(recipe: str, data: Path, sample: Path, folder: Path) -> Trained:
    """Train once, in a cache of its own."""
    from redense.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDENSE_DATA", str(folder / "cache"))
        arguments = ["train", recipe, "--data", str(data), *FLAGS[recipe]]
        assert main([*arguments, "--out", str(folder / "run")]) == 0
    kept = folder / sample.name
    shutil.copyfile(sample, kept)
    return Trained(recipe, folder / "run", kept)
