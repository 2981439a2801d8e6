"""Two processes under torchrun: both hold the same weights, and end with the same ones."""

import json
import re

import pytest
import torch
from conftest import TINY, torchrun

from redense.runs.checkpoints import read
from redense.runs.record import masks_of

SCRIPT = """
import hashlib, os, sys
from pathlib import Path
from redense.cli import main
from redense.recipes.images.task import ImageTask

def keep_diary(self):  # what this process holds after each epoch, its own tensors
    digest = hashlib.sha256()
    # batch-norm's statistics too: both validate the same network
    for tensor in self.model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    with Path(__file__).with_name("rank-" + os.environ["RANK"]).open("a") as diary:
        print(digest.hexdigest(), file=diary)

ImageTask.on_train_epoch_end = keep_diary
sys.exit(main())
"""


@pytest.fixture(scope="module")
def told(pictures, tmp_path_factory):
    """(what the processes printed, the run folder they share, beside which each keeps its
    diary)."""
    script = tmp_path_factory.mktemp("ddp") / "script.py"
    script.write_text(SCRIPT)
    folder = script.parent / "run"
    flags = (
        "--dense",
        "1",
        "--sparse",
        "2",
        "--redense",
        "1",
        "--sparsity",
        "0.5",
        "--augment",
        "flip-crop",
    )
    return torchrun(
        2, script, "train", "images", "--data", pictures, *TINY, *flags, "--out", folder
    ), folder


def test_both_processes_hold_the_same_masks_and_weights_after_every_epoch(told):
    _, folder = told
    first, second = ((folder.parent / f"rank-{rank}").read_text().split() for rank in "01")
    assert first == second
    assert len(first) == len(set(first)) == 4


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


ZERO = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
import redense

dist.init_process_group("gloo")
torch.manual_seed(0)
layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
model = nn.parallel.DistributedDataParallel(layers)
optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-2)

def train():
    optimizer.zero_grad()
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()

train()
with redense.sparse(model, optimizer, 0.5) as held:
    for _ in range(3):
        train()
        for name, mask in held.masks.items():
            assert not model.get_parameter(name)[~mask].any(), name
mine = [name for name in held.masks if model.get_parameter(name) in optimizer.optim.state]
for name in mine:
    momentum = optimizer.optim.state[model.get_parameter(name)]["exp_avg"]
    assert not momentum[~held.masks[name]].any(), name
print(*mine)
dist.destroy_process_group()
"""


def test_an_optimizer_that_shards_its_state_over_ranks_is_held_and_released(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(ZERO)
    told = torchrun(2, script)
    assert sorted(re.findall(r"module\.\d\.weight", told)) == ["module.0.weight", "module.2.weight"]
