"""The moving average of weights: what is evaluated and exported, through sparse phases and
interruptions."""

import copy
import json

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from redense.cli import main
from redense.recipes import build_task
from redense.recipes.images.task import ImageTask
from redense.runs import averaging
from redense.runs.folder import RunFolder
from redense.tensors.packing import unpack

DSD = ("--dense", "2", "--sparse", "2", "--redense", "1", "--sparsity", "0.3")


def train(folder, pictures, *flags):
    assert (
        main(
            ["train", "images", "--data", str(pictures), *TINY, *DSD, "--out", str(folder), *flags]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    return train(tmp_path_factory.mktemp("ema") / "run", pictures, "--ema", "0.9")


def checkpoint(run, name):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def averages(content):
    return next(state for name, state in content["callbacks"].items() if "MovingAverage" in name)


def test_the_average_is_exactly_zero_where_a_sparse_phase_holds_weights(run):
    content = checkpoint(run, "sparse")
    average, live = averages(content), content["state_dict"]
    masks = next(state["masks"] for state in content["callbacks"].values() if "masks" in state)
    assert len(masks) == 4
    for name, bits in masks.items():
        mean = average[f"module.{name.removeprefix('model.')}"]
        assert (mean[~unpack(bits, mean)] == 0).all(), name
        assert int((mean == 0).sum()) == round(0.3 * mean.numel())
        assert not torch.equal(mean, live[name])


def test_the_average_is_the_plain_sum_over_the_phases_steps(pictures, tmp_path, monkeypatch):
    steps = []
    step_ended = averaging.MovingAverage.on_train_batch_end

    def watch(self, trainer, module, *rest):
        steps.append((trainer.current_epoch, module.model.hidden.weight.detach().clone()))
        step_ended(self, trainer, module, *rest)

    monkeypatch.setattr(averaging.MovingAverage, "on_train_batch_end", watch)
    content = checkpoint(train(tmp_path / "run", pictures, "--ema", "0.3"), "sparse")
    expected = None
    for number, weight in enumerate(weight for epoch, weight in steps if epoch in (2, 3)):
        kept = min(0.3, (1 + number) / (10 + number))
        expected = weight if expected is None else kept * expected + (1 - kept) * weight
    torch.testing.assert_close(averages(content)["module.hidden.weight"], expected)


def test_validation_tests_and_the_exported_weights_are_the_averages(run):
    last = averages(checkpoint(run, "redense"))
    exported = load_file(run / "model.safetensors")
    assert all(torch.equal(value, last[f"module.{key}"]) for key, value in exported.items())
    record = json.loads((run / "record.json").read_text())
    task = build_task(RunFolder(run).config)
    for name, phase in zip(("dense", "sparse", "redense"), record["phases"], strict=True):
        means = averages(checkpoint(run, name))
        assert phase["valid"]["loss"] == pytest.approx(plain_loss(task, means), rel=1e-5)
        live = {
            f"module.{k[6:]}": v
            for k, v in checkpoint(run, name)["state_dict"].items()
            if k.startswith("model.")
        }
        assert phase["valid"]["loss"] != pytest.approx(plain_loss(task, live), rel=1e-3)


def plain_loss(task: ImageTask, weights):
    network = copy.deepcopy(task.model)
    network.load_state_dict(
        {key[7:]: value for key, value in weights.items() if key.startswith("module.")}
    )
    valid, data = task.data.valid, task.data
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    with torch.no_grad():
        logits = network.eval()((valid.images.float() / 255 - mean) / std)
    return float(torch.nn.functional.cross_entropy(logits, valid.labels))


def test_training_itself_is_the_same_with_and_without_an_average(run, pictures, tmp_path):
    plain = checkpoint(train(tmp_path / "plain", pictures), "redense")["state_dict"]
    averaged = checkpoint(run, "redense")["state_dict"]
    assert all(torch.equal(value, averaged[key]) for key, value in plain.items())


@pytest.mark.parametrize("stopped", [1, 3, 4])
def test_a_run_with_an_average_resumes_bit_for_bit(stopped, pictures, tmp_path, monkeypatch):
    whole = json.loads(
        (train(tmp_path / "whole", pictures, "--ema", "0.9") / "record.json").read_text()
    )
    ended = ImageTask.on_train_epoch_start

    def stop(self):
        if self.current_epoch == stopped:
            raise KeyboardInterrupt
        ended(self)

    cut = str(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(ImageTask, "on_train_epoch_start", stop)
        flags = ["--data", str(pictures), *TINY, *DSD, "--ema", "0.9", "--out", cut]
        assert main(["train", "images", *flags]) == 130
    assert main(["train", "images", "--resume", cut]) == 0
    resumed = json.loads((tmp_path / "cut" / "record.json").read_text())
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert [phase["valid"] for phase in resumed["phases"]] == [
        phase["valid"] for phase in whole["phases"]
    ]


def test_a_decay_outside_0_to_1_is_refused(pictures, redense):
    answer = redense("train", "images", "--data", pictures, "--ema", "1")
    assert (answer.code, "ema must lie between 0 and 1, got 1.0" in answer.err) == (2, True), (
        answer.err
    )
