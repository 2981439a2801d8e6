"""The Lightning adapter: phases, rates, checkpoints through Lightning's own files."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import redense
from redense.lightning import DSDCallback

PLAN = redense.dsd(dense=2, sparse=2, redense=2, sparsity=0.5)


class Net(LightningModule):
    def __init__(self, scheduler=None):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        self._scheduler = scheduler

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return ([optimizer], [self._scheduler(optimizer)]) if self._scheduler else optimizer


class Diary(Callback):
    def __init__(self):
        self.half_is_zero, self.rates = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.half_is_zero.append(int((pl_module.net[0].weight == 0).sum()) == 24)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


def fit(folder, callbacks, module=None, ckpt=None, validate=False, **limits):
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            ".*(num_workers|bottleneck|logging interval|Checkpoint "
            "directory|val_dataloader|callbacks used to).*",
        )
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
            callbacks=callbacks,
            **({"max_epochs": len(PLAN)} | limits),
        )
        module = module or Net()
        trainer.fit(module, data(), data() if validate else None, ckpt_path=ckpt, weights_only=True)
    return module


def test_phases_follow_the_plan_by_epochs(tmp_path):
    diary = Diary()
    fit(tmp_path, [DSDCallback(PLAN), diary])
    assert diary.half_is_zero == [False] * 8 + [True] * 8 + [False] * 8
    assert diary.rates == pytest.approx([0.1] * 16 + [0.01] * 8)


def test_phases_follow_the_plan_by_steps(tmp_path):
    diary = Diary()
    plan = redense.dsd(dense=3, sparse=6, redense=3, sparsity=0.5, decay="cosine")
    fit(tmp_path, [DSDCallback(plan, unit="step"), diary], max_epochs=None, max_steps=12)
    assert diary.half_is_zero == [False] * 3 + [True] * 6 + [False] * 3
    assert diary.rates == pytest.approx([0.1 * plan.lr_factor(step) for step in range(12)])


def test_a_module_with_its_own_scheduler_keeps_it(tmp_path):
    diary = Diary()

    def scheduler(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, PLAN.lr_factor)

    fit(tmp_path, [DSDCallback(PLAN), diary], Net(scheduler))
    assert diary.rates == pytest.approx([0.1] * 16 + [0.01] * 8)


def test_a_scheduler_that_ignores_the_plan_is_named(tmp_path):
    module = Net(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2))
    with pytest.warns(UserWarning, match="does not follow the plan"):
        fit(tmp_path, [DSDCallback(PLAN)], module)


class Crash(Callback):
    def __init__(self, epoch, batch):
        self.at = epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("crash")


@pytest.mark.parametrize(
    "validate", [False, True]
)  # Lightning then saves inside the epoch, before its end hooks
@pytest.mark.parametrize("epoch", range(1, 6))
def test_resume_from_lightnings_checkpoint_is_bit_identical(tmp_path, epoch, validate):
    whole = fit(tmp_path, [DSDCallback(PLAN)], validate=validate)
    with pytest.raises(RuntimeError, match="crash"):
        fit(
            tmp_path,
            [DSDCallback(PLAN), ModelCheckpoint(tmp_path, "a"), Crash(epoch, 2)],
            validate=validate,
        )
    resumed = fit(tmp_path, [DSDCallback(PLAN)], ckpt=tmp_path / "a.ckpt", validate=validate)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_trainer_shorter_than_the_plan_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="the plan has 6 epochs but the Trainer stops after 3, in phase 'sparse'"
    ):
        fit(tmp_path, [DSDCallback(PLAN)], max_epochs=3)


def test_a_stopped_training_names_the_phases_that_never_ran(tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    with pytest.warns(UserWarning, match="stopped at step 3 of 6: sparse, redense did not run"):
        fit(tmp_path, [DSDCallback(PLAN), Stop()])


def test_a_training_stopped_at_a_phases_end_does_not_prune(tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    with pytest.warns(UserWarning, match="dense, sparse, redense did not run"):
        module = fit(tmp_path, [DSDCallback(PLAN), Stop()])
    assert module.net[0].weight.count_nonzero() == 48


def test_nothing_is_left_on_the_module_after_fit(tmp_path):
    module = fit(tmp_path, [DSDCallback(redense.Plan((redense.Phase("sparse", 6, sparsity=0.5),)))])
    assert int((module.net[0].weight == 0).sum()) == 24
    assert not module.net[0].weight._post_accumulate_grad_hooks
