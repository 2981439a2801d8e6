"""What several tests share: one thread a process, tiny pictures on disk, and the command line in this process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two spinning processes on two cores crawl

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

CLASSES = ("blue", "green", "red")
SIZES = {"train": 24, "val": 9, "test": 6}
TINY = ("--size", "8", "--batch", "8", "--accelerator", "cpu")
"""Flags that make any image run a matter of a second."""


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


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny pictures in three classes; read it, do not change it."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    """The same, for a test that breaks something in it."""
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def redense(capfd: pytest.CaptureFixture[str]):
    """The command line, as ``redense("train", "images") -> Answer``."""
    from redense.cli import main

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run
