"""Average the weights: over a phase's epochs (SWA, Izmailov et al. 2018, the study's competitor) or
its steps (EMA)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, update_bn

from redense.plan import Plan


class Averaging(Callback):
    """After each epoch of ``phase`` its weights join a running mean; `take_over` puts that into the
    model."""

    def __init__(self, plan: Plan, phase: str) -> None:
        self._plan, self._phase = plan, phase
        self._mean: AveragedModel | None = None
        self._saved: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the mean of a checkpoint."""
        self._mean = AveragedModel(pl_module.model)  # type: ignore[arg-type]
        if self._saved:
            self._mean.load_state_dict(self._saved)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add this epoch's weights."""
        if self._mean is not None and self._plan.at(trainer.current_epoch).name == self._phase:
            self._mean.update_parameters(pl_module.model)  # type: ignore[arg-type]

    def take_over(self, task: Any) -> None:
        """Once training is over: the mean becomes the weights, batch-norm is measured anew over one
        epoch of data."""
        mean = AveragedModel(task.model)
        mean.load_state_dict(self.state_dict() or self._saved)
        with torch.no_grad():
            for weight, average in zip(
                task.model.parameters(), mean.module.parameters(), strict=True
            ):
                weight.copy_(average)
        # torch takes the first of a tuple, and a batch's sounds are one themselves
        update_bn(([batch[0]] for batch in task.train_dataloader()), task.model)

    def state_dict(self) -> dict[str, Any]:
        """The mean so far."""
        return {} if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._saved = state_dict


class MovingAverage(Callback):
    """An exponential moving average of weights and buffers, which validation, tests and the
    exported network use.

    After update n of a phase the average keeps min(decay, (1 + n) / (10 + n)) of itself (as
    TensorFlow's), so that a short phase is not ruled by its first steps. It starts anew with every
    phase: in a sparse phase it has seen held weights at zero only and is exactly zero there too;
    after a release it does not pull weights back to zero. Training itself, the checkpoints' weights
    and the histograms are those without averaging.
    """

    def __init__(self, plan: Plan, decay: float) -> None:
        self._plan, self._decay = plan, decay
        self._mean: AveragedModel | None = None
        self._saved: dict[str, Any] = {}
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the average of a checkpoint."""
        self._mean = self._average_of(pl_module.model)
        self._steps = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew with a phase."""
        if self._mean is not None and trainer.current_epoch in self._plan.starts:
            self._mean.n_averaged.zero_()  # the next update copies

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the weights of an optimizer step; parts of one are passed over."""
        if self._mean is not None and trainer.global_step > self._steps:
            self._mean.update_parameters(pl_module.model)  # type: ignore[arg-type]
            self._steps = trainer.global_step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the network's place."""
        self._swap(pl_module.model)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the network back."""
        self._swap(pl_module.model)

    def take_over(self, task: Any) -> None:
        """Once training is over: the average becomes the network."""
        task.model.load_state_dict(self._average_of(task.model).module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The average so far."""
        return self._saved if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._saved = state_dict

    def _average_of(self, network: Any) -> AveragedModel:
        average = AveragedModel(network, multi_avg_fn=self._update, use_buffers=True)
        if state := self.state_dict():
            average.load_state_dict(state)
        return average

    @torch.no_grad()
    def _update(self, averages: Any, values: Any, updates: Any) -> None:
        if averages[0].is_floating_point():
            kept = min(self._decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(averages, values, 1 - kept)
        else:
            torch._foreach_copy_(averages, values)  # batch-norm's counters

    @torch.no_grad()
    def _swap(self, network: Any) -> None:
        if self._mean is not None:
            for ours, theirs in zip(_tensors(self._mean.module), _tensors(network), strict=True):
                kept = ours.clone()
                ours.copy_(theirs)
                theirs.copy_(kept)


def _tensors(network: Any) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
