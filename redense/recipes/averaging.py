"""Average the weights over the epochs of a phase (SWA, Izmailov et al. 2018), as the study's competitor."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.swa_utils import AveragedModel, update_bn

from redense.plan import Plan


class Averaging(Callback):
    """After each epoch of ``phase`` its weights join a running mean; `take_over` puts that into the model."""

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
        """Once training is over: the mean becomes the weights, batch-norm is measured anew over one epoch of data."""
        mean = AveragedModel(task.model)
        mean.load_state_dict(self.state_dict() or self._saved)
        with torch.no_grad():
            for weight, average in zip(task.model.parameters(), mean.module.parameters(), strict=True):
                weight.copy_(average)
        update_bn((batch[0] for batch in task.train_dataloader()), task.model)

    def state_dict(self) -> dict[str, Any]:
        """The mean so far."""
        return {} if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._saved = state_dict
