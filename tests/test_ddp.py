"""Two processes under torchrun: both hold the same weights, and end with the same ones."""

import json

import pytest
import torch
from conftest import TINY, torchrun

from redense.recipes.checkpoints import read
from redense.recipes.record import masks_of

SCRIPT = """
import hashlib, os, sys
from redense.cli import main
from redense.recipes.images.task import ImageTask

def diary(self):  # what this process holds after each epoch, its own tensors
    digest = hashlib.sha256()
    for tensor in self.model.state_dict().values():  # batch-norm's statistics too: both validate the same network
        digest.update(tensor.numpy().tobytes())
    print("rank", os.environ["RANK"], digest.hexdigest(), flush=True)

ImageTask.on_train_epoch_end = diary
sys.exit(main())
"""


@pytest.fixture(scope="module")
def told(pictures, tmp_path_factory):
    """(what the processes printed, the run folder they share)."""
    script = tmp_path_factory.mktemp("ddp") / "script.py"
    script.write_text(SCRIPT)
    folder = script.parent / "run"
    flags = ("--dense", "1", "--sparse", "2", "--redense", "1", "--sparsity", "0.5", "--augment", "flip-crop")
    return torchrun(2, script, "train", "images", "--data", pictures, *TINY, *flags, "--out", folder), folder


def test_both_processes_hold_the_same_masks_and_weights_after_every_epoch(told):
    out, _ = told
    told_by = {
        rank: [line.split()[2] for line in out.splitlines() if line.startswith(f"rank {rank} ")] for rank in "01"
    }
    assert len(told_by["0"]) == 4
    assert told_by["0"] == told_by["1"]
    assert len(set(told_by["0"])) == 4


def test_one_process_writes_the_run_folder_and_speaks(told):
    out, folder = told
    assert out.count("test, read once at the end") == out.count("epoch 4/4") == 1
    record = json.loads((folder / "record.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["dense", "sparse", "redense"]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 5
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_the_sparse_phase_holds_exactly_what_was_asked(told):
    _, folder = told
    sparse = read(folder / "checkpoints" / "sparse.ckpt")
    for name, mask in masks_of(sparse).items():
        assert int((~mask).sum()) == round(0.5 * mask.numel())
        assert not torch.any(sparse["state_dict"][name][~mask])
