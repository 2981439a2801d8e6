"""Two and four processes under torchrun train as one does: DDP and FSDP2, and on from each other's
checkpoints."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import torchrun, write_pictures
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import redense.runs.training as training
import redense.scheduler as scheduler
from redense.cli import main
from redense.recipes.images import models
from redense.recipes.images.data import Batches, load
from redense.recipes.images.task import ImageTask
from redense.runs import pictures, sharding
from redense.runs.checkpoints import read
from redense.runs.folder import RunFolder
from redense.runs.record import masks_of
from redense.tensors.sharded import shard_of

PLAN = (
    "--dense",
    "1",
    "--sparse",
    "3",
    "--redense",
    "2",
    "--sparsity",
    "0.5",
    "--sparse-lr",
    "1",
    "--redense-lr",
    "1",
)
FLAGS = (
    "--model",
    "plain",
    "--size",
    "16",
    "--batch",
    "8",
    "--workers",
    "0",
    "--augment",
    "scale-crop",
)
FLAGS += ("--lr", "0.005", "--accelerator", "cpu", *PLAN)
STOPS = {"sparse": 2, "redense": 5}
"""Where a run is cut off: after so many of its six epochs."""


def plain(classes, channels, size):
    """Without batch statistics and dropout, which are each process's own."""
    return nn.Sequential(
        nn.Conv2d(channels, 12, 3, 2),
        nn.Tanh(),
        nn.Sequential(nn.Conv2d(12, 16, 3), nn.Tanh(), nn.Conv2d(16, 16, 2)),
        nn.Flatten(),
        nn.Linear(16 * (size // 2 - 4) ** 2, classes),
    )


def prepare(patch):
    """The tiny network, in several FSDP2 units, and runs that keep every epoch's checkpoint and
    draw nothing."""
    patch.setitem(models._OURS, "plain", plain)
    patch.setattr(sharding, "_UNIT", 500)
    patch.setattr(RunFolder, "keep_last", lambda self, many: None)
    for drawing in ("draw_curves", "draw_histograms"):
        patch.setattr(pictures, drawing, lambda *arguments: None)


def train(data, *flags):
    return ["train", "images", "--data", str(data), *FLAGS, *map(str, flags)]


def resume(folder):
    return ["train", "images", "--resume", str(folder)]


# what each process does


class Watch(TorchDispatchMode):
    """The collectives inside the block, by name."""

    seen: ClassVar = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional"):
            Watch.seen.add(func._opname)
        return func(*args, **(kwargs or {}))


def watched(function):
    def inside(*arguments):
        with Watch():
            return function(*arguments)

    return inside


def diary(self):
    """After each epoch: what this process holds of each weight that is held at zero, and how much
    of it is zero."""
    phases = self.trainer.callbacks[0].phases
    buffers = [float(buffer.double().sum()) for buffer in self.model.buffers()]
    told = {"buffers": buffers, "collectives": sorted(Watch.seen), "held": {}}
    for name, mask in ({} if phases.held is None else phases.held.masks).items():
        weight, kept = shard_of(self.get_parameter(name))[0], shard_of(mask)[0]
        told["held"][name] = (weight.numel(), int((~kept).sum()), int((weight[~kept] == 0).sum()))
    tell(told)


def tell(what):
    """One line more in this process's file."""
    with Path(sys.argv[1]).with_suffix(f".{os.environ['RANK']}").open("a") as file:
        file.write(json.dumps(what) + "\n")


def play(file):
    """Every command of a file in turn, and at last their exit codes."""
    prepare(pytest.MonkeyPatch())
    scheduler.build_masks = watched(scheduler.build_masks)
    training.share_of_zeros = watched(training.share_of_zeros)
    ImageTask.on_train_epoch_end = diary
    tell([main(command) for command in json.loads(file.read_text())])


# what they left behind


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """9 and 7 images to validate and test on, which neither 2 nor 4 divides."""
    return write_pictures(
        tmp_path_factory.mktemp("data"), {"train": 27, "val": 9, "test": 7}, side=20
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(data, folder):
    """One process that nothing stops."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        assert main(train(data, "--out", folder / "one")) == 0
    return folder / "one"


def processes(number, folder, *commands):
    """(exit codes, diaries) by process, and what was printed."""
    file = folder / f"{number}.json"
    file.write_text(json.dumps(commands))
    out = torchrun(number, __file__, file)
    files = [file.with_suffix(f".{rank}").read_text().splitlines() for rank in range(number)]
    told = [[json.loads(line) for line in lines] for lines in files]
    return [lines[-1] for lines in told], [lines[:-1] for lines in told], out


@pytest.fixture(scope="module")
def two(data, folder):
    return processes(
        2,
        folder,
        train(data, "--out", folder / "ddp2"),
        train(data, "--strategy", "fsdp2", "--out", folder / "fsdp2"),
        train(data, "--strategy", "fsdp2", "--model", "small", "--out", folder / "small"),
    )


def stopped(run, epochs, name):
    """The run folder that a kill after ``epochs`` epochs leaves."""
    copy = run.parent / name
    (copy / "checkpoints").mkdir(parents=True)
    for file in ("config.json", "plan.txt", "network.json"):
        shutil.copy(run / file, copy)
    ended = ["dense"] if epochs < 4 else ["dense", "sparse"]
    for file in (f"epoch-{epochs:04}", *ended):
        shutil.copy(run / "checkpoints" / f"{file}.ckpt", copy / "checkpoints")
    return copy


RESUMED = [(strategy, phase) for strategy in ("ddp2", "fsdp2") for phase in STOPS]


@pytest.fixture(scope="module")
def four(data, folder, two):
    """DDP from the start, and on from what two processes saved; batch 6 is not to be had."""
    copies = [stopped(folder / run, STOPS[phase], f"{run}-{phase}-on-4") for run, phase in RESUMED]
    copies.append(stopped(folder / "small", 2, "small-on-4"))
    return processes(
        4,
        folder,
        train(data, "--out", folder / "ddp4"),
        *map(resume, copies),
        train(data, "--batch", 6, "--out", folder / "uneven"),
    )


@pytest.fixture(scope="module")
def alone(folder, two):
    """One process goes on from what two processes saved."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        for run, phase in RESUMED:
            assert main(resume(stopped(folder / run, STOPS[phase], f"{run}-{phase}-on-1"))) == 0


def assert_same_run(run, other):
    """Masks to the bit, weights and scores up to the order of additions."""
    masks, others = (
        masks_of(read(folder / "checkpoints" / "sparse.ckpt")) for folder in (run, other)
    )
    assert list(masks) == list(others)
    for name, mask in masks.items():
        assert torch.equal(mask, others[name]), name
        assert int((~mask).sum()) == round(0.5 * mask.numel())
    weights, others = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert list(weights) == list(others)
    for name, weight in weights.items():
        torch.testing.assert_close(
            weight, others[name], rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
    rows, others = (
        list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
        for folder in (run, other)
    )
    assert len(rows) == len(others) == 6
    for row, wanted in zip(rows, others, strict=True):
        for key in ("train_loss", "valid_loss", "valid_top1", "sparsity", "rate"):
            assert float(row[key]) == pytest.approx(float(wanted[key]), rel=1e-4), (
                row["epoch"],
                key,
            )
    ours, theirs = (json.loads((folder / "record.json").read_text()) for folder in (run, other))
    assert ours["test"] == pytest.approx(theirs["test"], rel=1e-4)
    assert ours["cost"] == theirs["cost"]


def test_two_processes_train_as_one_does(folder, one, two):
    assert two[0] == [[0, 0, 0]] * 2, two[2]
    assert_same_run(folder / "ddp2", one)


def test_four_processes_train_as_one_does(folder, one, four):
    assert_same_run(folder / "ddp4", one)


def test_two_processes_with_shards_train_as_one_does(folder, one, two):
    assert_same_run(folder / "fsdp2", one)


def test_shards_hold_exact_zeros_and_exact_counts_without_gathering_a_tensor(folder, one, two):
    ddp, fsdp2 = ([diary[start : start + 6] for diary in two[1]] for start in (0, 6))
    sizes = {
        name: mask.numel()
        for name, mask in masks_of(read(one / "checkpoints" / "sparse.ckpt")).items()
    }
    for diaries, parts in (
        (ddp, 2),
        (fsdp2, 1),
    ):  # under DDP each of the two processes holds it all
        for epoch in (2, 3, 4):
            held = [diary[epoch - 1]["held"] for diary in diaries]
            for name, size in sizes.items():
                numels, pruned, zeros = map(
                    sum, zip(*(shards[name] for shards in held), strict=True)
                )
                assert (numels, pruned, zeros) == (
                    parts * size,
                    parts * round(0.5 * size),
                    parts * round(0.5 * size),
                )
                assert parts == 2 or all(shards[name][0] < size for shards in held)
    for diary in fsdp2:
        assert diary[-1]["collectives"] == ["allreduce_"]  # sums of counts, nothing is gathered


def test_shards_share_one_rank_s_batch_statistics_where_they_validate_and_save(folder, two, four):
    for diaries in (two[1], four[1]):  # a network with batch-norm is the last of both
        told = [[epoch["buffers"] for epoch in diary[-4:]] for diary in diaries]
        assert len(told[0][0]) == 12
        assert told[0] == told[-1]
        assert told[0][0] != told[0][1]


@pytest.mark.parametrize(("strategy", "phase"), RESUMED)
def test_what_two_processes_saved_goes_on_in_four(strategy, phase, folder, one, four):
    assert_same_run(folder / f"{strategy}-{phase}-on-4", one)


@pytest.mark.parametrize(("strategy", "phase"), RESUMED)
def test_what_two_processes_saved_goes_on_in_one(strategy, phase, folder, one, alone):
    assert_same_run(folder / f"{strategy}-{phase}-on-1", one)


def test_a_checkpoint_does_not_tell_how_many_processes_wrote_it(folder, one, two):
    wanted = read(one / "checkpoints" / "epoch-0003.ckpt")
    for run in ("ddp2", "fsdp2"):
        found = read(folder / run / "checkpoints" / "epoch-0003.ckpt")
        assert (
            found["callbacks"]["DSDCallback"]["position"]
            == wanted["callbacks"]["DSDCallback"]["position"]
        )
        assert list(found["state_dict"]) == list(wanted["state_dict"])
        momenta, others = (part["optimizer_states"][0]["state"] for part in (found, wanted))
        assert list(momenta) == list(others)
        for number, state in momenta.items():
            torch.testing.assert_close(
                state["momentum_buffer"], others[number]["momentum_buffer"], rtol=1e-4, atol=1e-5
            )


def test_a_batch_that_processes_cannot_share_is_refused_by_all(four):
    assert four[0] == [[0, 0, 0, 0, 0, 0, 2]] * 4, four[2]
    assert four[2].count("batch 6 in 1 part cannot be shared evenly by 4 processes") == 4


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_each_image_is_evaluated_once_in_as_many_steps_on_every_rank(ranks, pictures):
    images = load(str(pictures), size=8)
    shares = [
        list(Batches(images, images.valid, 4, rank=rank, ranks=ranks)) for rank in range(ranks)
    ]
    assert len({len(share) for share in shares}) == 1
    labels = torch.cat([labels for share in shares for _, labels in share])
    assert torch.equal(labels.sort().values, images.valid.labels.sort().values)


def test_shards_of_other_recipes_and_unknown_strategies_are_refused(pictures, redense):
    answer = redense("train", "images", "--data", pictures, "--strategy", "fsdp")
    assert (answer.code, "strategy must be one of ddp, fsdp2, got 'fsdp'" in answer.err) == (
        2,
        True,
    )
    answer = redense("train", "images", "--strategy", "fsdp2", "--momentum", "0")
    assert (answer.code, "fsdp2 needs a momentum above 0" in answer.err) == (2, True)
    answer = redense("train", "speech", "--strategy", "fsdp2")
    assert (answer.code, "strategy fsdp2 trains images only, got recipe speech" in answer.err) == (
        2,
        True,
    )


if __name__ == "__main__":
    play(Path(sys.argv[1]))
