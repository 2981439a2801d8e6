"""The Lightning adapter: phases, rates, checkpoints through Lightning's own files."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset
from transformers.optimization import Adafactor

import redense
from redense.lightning import DSDCallback

PLAN = redense.dsd(dense=2, sparse=2, redense=2, sparsity=0.5)
THEIRS = (
    "num_workers|bottleneck|logging interval|Checkpoint directory|val_dataloader|"
    "callbacks used to|ended before the epoch|with manual optimization|experiment logs directory"
)
pytestmark = pytest.mark.filterwarnings(f"ignore:(?s).*({THEIRS})")


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
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=callbacks,
        **({"max_epochs": len(PLAN), "logger": False} | limits),
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


@pytest.mark.parametrize("smooth", [False, True])
def test_an_epoch_has_one_rate_as_in_a_loop_that_steps_a_schedule_per_epoch(tmp_path, smooth):
    plan = redense.dsd(dense=2, sparse=2, redense=2, sparsity=0.5, decay="cosine")
    by_lightning, by_schedule = Diary(), Diary()
    fit(tmp_path, [DSDCallback(plan, smooth=smooth), by_lightning])
    own = Net(lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor))
    fit(tmp_path, [DSDCallback(plan), by_schedule], own)
    epochs = [step / 4 if smooth else step // 4 for step in range(24)]
    assert by_lightning.rates == pytest.approx([0.1 * plan.lr_factor(epoch) for epoch in epochs])
    assert (by_lightning.rates == pytest.approx(by_schedule.rates)) == (not smooth)


def test_a_module_with_its_own_scheduler_keeps_it(tmp_path):
    diary = Diary()

    def scheduler(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, PLAN.lr_factor)

    fit(tmp_path, [DSDCallback(PLAN), diary], Net(scheduler))
    assert diary.rates == pytest.approx([0.1] * 16 + [0.01] * 8)


def step_schedule(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)


def exponential_schedule(optimizer):
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return {"scheduler": schedule, "interval": "step"}


def plateau_schedule(optimizer):
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    return {"scheduler": schedule, "monitor": "constant"}


@pytest.mark.parametrize("schedule", [step_schedule, exponential_schedule, plateau_schedule])
def test_a_module_s_own_schedule_is_the_envelope_of_the_plan_s_rates(tmp_path, schedule):
    class Monitored(Net):
        def training_step(self, batch, index):
            self.log("constant", 1.0)
            return super().training_step(batch, index)

    diary, alone = Diary(), Diary()
    with_plan = fit(tmp_path, [diary, DSDCallback(PLAN)], Monitored(schedule))
    fit(tmp_path, [alone], Monitored(schedule))
    factors = [1.0] * 16 + [0.1] * 8
    assert diary.rates == pytest.approx(
        [rate * factor for rate, factor in zip(alone.rates, factors, strict=True)]
    )
    assert not any(opt._optimizer_step_pre_hooks for opt in [with_plan.optimizers()])


def test_a_rate_that_the_module_sets_for_a_step_is_multiplied_too(tmp_path):
    rates = []

    class WarmUp(Net):
        def optimizer_step(self, epoch, batch_idx, optimizer, closure):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (self.trainer.global_step + 1)
            optimizer.register_step_pre_hook(
                lambda opt, *_: rates.append(opt.param_groups[0]["lr"])
            ) if not rates else None
            super().optimizer_step(epoch, batch_idx, optimizer, closure)

    fit(tmp_path, [DSDCallback(PLAN)], WarmUp())
    factors = [1.0] * 16 + [0.1] * 8
    assert rates == pytest.approx([0.01 * (n + 1) * factor for n, factor in enumerate(factors)])


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_monitor_of_rates_logs_the_rate_that_was_used(tmp_path, interval):
    monitor = LearningRateMonitor(logging_interval=interval)
    fit(tmp_path, [monitor, DSDCallback(PLAN)], logger=CSVLogger(tmp_path), log_every_n_steps=1)
    each = 4 if interval == "step" else 1
    assert monitor.lrs["lr-SGD"] == pytest.approx([0.1] * 4 * each + [0.01] * 2 * each)


@pytest.mark.parametrize(("unit", "limit"), [("epoch", "max_epochs"), ("step", "max_steps")])
def test_a_schedule_of_the_plan_that_counts_something_else_is_refused(tmp_path, unit, limit):
    other = "step" if unit == "epoch" else "epoch"

    def schedule(optimizer):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, PLAN.lr_factor)
        return {"scheduler": schedule, "interval": other}

    with pytest.raises(ValueError, match=f"stepped every {other} but the plan counts {unit}s"):
        fit(tmp_path, [DSDCallback(PLAN, unit)], Net(schedule), **{limit: 6})


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


# Checkpoints inside an epoch, and trainings that go on


class Phases(Callback):
    """(epoch, whether half of the weights were zero) of every batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        zeros = int((pl_module.net[0].weight == 0).sum())
        self.seen.append((trainer.current_epoch, zeros == 24))


@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_resume_from_any_step_walks_the_plan(tmp_path, every):
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=every, save_top_k=-1)
    whole = fit(tmp_path, [DSDCallback(PLAN), keep])
    for step in range(every, 24, every):
        diary = Phases()
        resumed = fit(tmp_path, [DSDCallback(PLAN), diary], ckpt=tmp_path / f"step={step}.ckpt")
        assert {zero for epoch, zero in diary.seen if epoch in (2, 3)} <= {True}
        assert {zero for epoch, zero in diary.seen if epoch not in (2, 3)} <= {False}
        if step % 4 == 0:
            assert len(diary.seen) == 24 - step
            for name, weight in whole.state_dict().items():
                assert torch.equal(weight, resumed.state_dict()[name]), (step, name)


def test_a_further_fit_does_not_open_the_first_phase_again(tmp_path):
    plan, diary = redense.dsd(0, 2, 2, 0.5), Phases()
    trainer, module = quiet_trainer(tmp_path, [DSDCallback(plan), diary], max_epochs=4), Net()
    trainer.fit(module, data())
    trainer.fit_loop.max_epochs = 6
    trainer.fit(module, data())
    assert [zero for _, zero in diary.seen] == [True] * 8 + [False] * 16


def plain_checkpoint(folder, epochs):
    fit(folder, [ModelCheckpoint(folder, f"plain-{epochs}")], max_epochs=epochs)
    return folder / f"plain-{epochs}.ckpt"


def test_a_checkpoint_without_the_plan_opens_it_where_the_trainer_stands(tmp_path):
    plan, diary = redense.dsd(2, 2, 2, 0.5), Phases()
    for epochs in (1, 2, 4, 5):
        diary.seen.clear()
        fit(tmp_path, [DSDCallback(plan), diary], ckpt=plain_checkpoint(tmp_path, epochs))
        assert diary.seen == [
            (epoch, epoch in (2, 3)) for epoch in range(epochs, 6) for _ in range(4)
        ]


def test_a_checkpoint_without_the_plan_inside_its_sparse_phase_is_refused(tmp_path):
    module = Net()
    with pytest.raises(ValueError, match=r"at epoch 3, in phase 'sparse', without DSDCallback's"):
        fit(tmp_path, [DSDCallback(PLAN)], module, ckpt=plain_checkpoint(tmp_path, 3))
    assert module.net[0].weight.all()


def test_an_exception_leaves_no_hook_and_its_checkpoint_goes_on(tmp_path):
    whole = fit(tmp_path, [DSDCallback(PLAN)])
    module, last = Net(), ModelCheckpoint(tmp_path, "a", save_on_exception=True, save_last=True)
    with pytest.raises(RuntimeError, match="crash"):
        fit(tmp_path, [DSDCallback(PLAN), last, Crash(3, 0)], module)
    assert not module.net[0].weight._post_accumulate_grad_hooks
    optimizer = module.trainer.optimizers[0]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert int((module.net[0].weight == 0).sum()) == 24
    saved = next(tmp_path.glob("exception*.ckpt"), tmp_path / "last.ckpt")
    resumed = fit(tmp_path, [DSDCallback(PLAN)], ckpt=saved)
    assert torch.isfinite(resumed.net[0].weight).all()
    assert list(whole.state_dict()) == list(resumed.state_dict())


# Other ways to train


def quiet_trainer(folder, callbacks, **options):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=callbacks,
        **options,
    )


def test_two_callbacks_on_one_trainer_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `DSDCallback"):
        fit(tmp_path, [DSDCallback(PLAN), DSDCallback(PLAN)])


def test_a_fast_dev_run_tries_every_phase(tmp_path):
    class Names(Callback):
        names = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.names += (trainer.callbacks[0].phases.phase.name,)

    diary = Names()
    quiet_trainer(tmp_path, [diary, DSDCallback(PLAN)], fast_dev_run=4).fit(Net(), data())
    assert diary.names == ("dense", "sparse", "redense", "redense")


def test_at_sparsity_0_the_weights_are_those_of_a_training_without_redense(tmp_path):
    plan = redense.dsd(2, 2, 2, sparsity=0.0, redense_lr=1.0)
    ours, plain = fit(tmp_path, [DSDCallback(plan)]), fit(tmp_path, [])
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name


def test_several_optimizers_of_one_batch_are_one_step(tmp_path):
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, index):
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, index))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in self.net[::2]]

    plan, diary = redense.dsd(8, 8, 8, sparsity=0.5), Phases()
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    whole = fit(tmp_path, [DSDCallback(plan, "step"), diary, keep], Two())
    assert [zero for _, zero in diary.seen] == [False] * 8 + [True] * 8 + [False] * 8
    resumed = fit(tmp_path, [DSDCallback(plan, "step")], Two(), ckpt=tmp_path / "step=24.ckpt")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_an_empty_plan_does_nothing(tmp_path):
    ours, plain = fit(tmp_path, [DSDCallback(redense.Plan(()))]), fit(tmp_path, [])
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name


# Averages, own rates, configuration files


class OwnAverage(Callback):
    """An average that a user keeps in a callback, of a part of the module."""

    def __init__(self, build):
        self.build, self.average = build, None

    def setup(self, trainer, pl_module, stage):
        self.average = self.build(pl_module.net)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if isinstance(self.average, AveragedModel):
            self.average.update_parameters(pl_module.net)
        else:
            self.average.update(pl_module.net)

    def weights(self):
        return self.average.module


class Exposed:
    """The average that a callback of Lightning's keeps."""

    def weights(self):
        model = self._average_model
        return (model.module if isinstance(model, AveragedModel) else model).net


class TheirAverage(Exposed, WeightAveraging):
    pass


class TheirSWA(Exposed, StochasticWeightAveraging):
    pass


AVERAGES = {
    "AveragedModel": lambda: OwnAverage(AveragedModel),
    "ModelEmaV3": lambda: OwnAverage(ModelEmaV3),
    "WeightAveraging": TheirAverage,
    "SWA": lambda: TheirSWA(swa_lrs=0.01, swa_epoch_start=1),
}


class Halves(Callback):
    """Whether half of the first layer is zero in the average, after every batch."""

    def __init__(self, keeper):
        self.keeper, self.seen = keeper, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(int((self.keeper.weights()[0].weight == 0).sum()) == 24)


@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_of_other_callbacks_are_held_with_the_module(tmp_path, kind):
    keeper = AVERAGES[kind]()
    halves = Halves(keeper)
    fit(tmp_path, [keeper, halves, DSDCallback(PLAN)])
    lag = 4 if kind == "SWA" else 0  # it takes an epoch's weights when the next one begins
    assert halves.seen == [False] * 8 + [True] * (8 + lag) + [False] * (8 - lag)


def test_an_average_taken_over_at_the_end_of_a_plan_that_ends_sparse_keeps_its_zeros(tmp_path):
    plan = redense.Plan((redense.Phase("dense", 3), redense.Phase("sparse", 3, 0.5)))
    module = fit(tmp_path, [DSDCallback(plan), WeightAveraging()])
    assert (module.net[0].weight == 0).sum() == 24


def test_an_optimizer_that_computes_its_own_rates_trains_and_the_plan_says_so(tmp_path):
    class Relative(Net):
        def configure_optimizers(self):
            return Adafactor(self.parameters(), relative_step=True, lr=None)

    with pytest.warns(UserWarning, match=r"plan's factors of the rate do nothing.*relative_step"):
        fit(tmp_path, [DSDCallback(PLAN)], Relative())


def test_what_is_no_plan_is_refused_when_the_callback_is_built():
    with pytest.raises(TypeError, match=r"plan must be a redense\.Plan, got int"):
        DSDCallback(30)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize(
    "plan",
    [
        "{class_path: redense.dsd, init_args: {dense: 2, sparse: 2, redense: 2, sparsity: 0.5}}",
        "{phases: [{name: dense, length: 2}, {name: sparse, length: 2, sparsity: 0.5}, "
        "{name: redense, length: 2, lr: 0.1}]}",
    ],
    ids=["dsd", "phases"],
)
def test_a_configuration_file_of_lightning_s_command_line_names_the_plan(
    tmp_path, monkeypatch, plan
):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"trainer:\n  callbacks:\n    - class_path: redense.lightning.DSDCallback\n"
        f"      init_args:\n        plan: {plan}\n"
    )
    monkeypatch.setattr(sys, "argv", ["train.py"])
    set_parsing_settings(subclasses_enabled=[redense.Plan])  # else a plan is written in phases
    command = LightningCLI(
        Net, args=["--config", str(config)], run=False, seed_everything_default=False
    )
    callback = next(c for c in command.trainer.callbacks if isinstance(c, DSDCallback))
    assert callback.plan == PLAN


TRAINERS = Path(__file__).parents[2] / "docs" / "trainers.md"
CONFIGS = re.findall(r"^```yaml\n(.*?)^```$", TRAINERS.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize("config", CONFIGS, ids=["phases", "a plan file", "dsd"])
def test_the_configuration_files_of_the_documents_name_their_plans(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"phases": PLAN.to_records()}))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    set_parsing_settings(subclasses_enabled=[redense.Plan])
    command = LightningCLI(
        Net, args=["--config", "config.yaml"], run=False, seed_everything_default=False
    )
    callback = next(c for c in command.trainer.callbacks if isinstance(c, DSDCallback))
    by_pattern = redense.dsd(2, 2, 2, {"net.0.*": 0.5, "*": 0.2})
    assert callback.plan == (by_pattern if "net.0" in config else PLAN)


def test_a_loop_in_fabric_walks_the_plan_through_its_wrappers():
    fabric = Fabric(accelerator="cpu", devices=1)
    module = Net()
    model, optimizer = fabric.setup(module.net, torch.optim.AdamW(module.parameters(), lr=0.01))
    phases = redense.PhaseScheduler(model, optimizer, PLAN)
    batches = fabric.setup_dataloaders(data())
    zeros = []
    for _ in range(len(PLAN)):
        for x, y in batches:
            optimizer.zero_grad()
            fabric.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            zeros.append(int((module.net[0].weight == 0).sum()))
        phases.step()
    assert [zero == 24 for zero in zeros] == [False] * 8 + [True] * 8 + [False] * 8
