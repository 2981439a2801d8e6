"""Dense-Sparse-Dense training in a Lightning Trainer."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from .masks import check_agreement
from .plan import Plan
from .prunable import Patterns
from .scheduler import PhaseScheduler

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy
except ImportError as error:
    raise ImportError(
        "redense.lightning needs Lightning: pip install 'redense[lightning]'"
    ) from error


class DSDCallback(Callback):
    """Walk a plan beside Lightning's loop; checkpoints and resume go through Lightning's own files.

    A module whose ``configure_optimizers`` returns no learning-rate scheduler asks for the plan's
    rates: then they are set before every batch, and a phase's decay runs smoothly through its
    epochs. A module with a scheduler of its own keeps it, for instance ``LambdaLR(optimizer,
    plan.lr_factor)``.

    Args:
        plan: what to do when.
        unit: what the plan counts, ``epoch`` or ``step`` (optimizer steps).
        include, exclude: which weights may be held, passed to `redense.prunable`.

    >>> trainer = Trainer(max_epochs=len(plan), callbacks=[DSDCallback(plan)])
    """

    def __init__(
        self,
        plan: Plan,
        unit: Literal["epoch", "step"] = "epoch",
        *,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
    ) -> None:
        if unit not in ("epoch", "step"):
            raise ValueError(f"unit must be 'epoch' or 'step', got {unit!r}")
        self.plan, self.unit = plan, unit
        self.phases: PhaseScheduler | None = None
        """The scheduler, while training runs."""
        self.include, self.exclude = include, exclude
        self._saved: dict[str, Any] | None = None
        self._sets_rate = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a trainer that would stop before the plan does."""
        limit = trainer.max_epochs if self.unit == "epoch" else trainer.max_steps
        if limit is not None and 0 <= limit < len(self.plan):
            raise ValueError(
                f"the plan has {len(self.plan)} {self.unit}s but the Trainer stops after {limit}, "
                "in phase "
                f"{self.plan.at(limit).name!r}; pass max_{self.unit}s={len(self.plan)} or a "
                "shorter plan"
            )
        self._sets_rate = not trainer.lr_scheduler_configs
        if (
            not self._sets_rate
            and any(phase.lr != 1 for phase in self.plan)
            and not self._follows_plan(trainer)
        ):
            warnings.warn(
                "the module's own learning-rate scheduler does not follow the plan, whose phases "
                "change the rate; "
                "return no scheduler, or LambdaLR(optimizer, plan.lr_factor)",
                stacklevel=2,
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the plan: everything that a checkpoint restores is in place by now."""
        self.phases = PhaseScheduler(
            pl_module, trainer.optimizers, self.plan, include=self.include, exclude=self.exclude
        )
        if self._saved is not None:
            self.phases.load_state_dict(self._saved)
            self._saved = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the epoch's phase."""
        if self.unit == "epoch":
            self._seek(trainer, trainer.current_epoch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Enter the step's phase and set the rate."""
        if self.unit == "step":
            self._seek(trainer, trainer.global_step)
        if self._sets_rate:
            first = (
                batch_idx - batch_idx % trainer.accumulate_grad_batches
            )  # a step has one rate, its first batch's
            done = first / max(trainer.num_training_batches, 1) if self.unit == "epoch" else 0.0
            factor = self.plan.lr_factor(self._require().position + done)
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release what the last phase held; a plan that was cut short warns."""
        phases = self._require()
        done = trainer.current_epoch if self.unit == "epoch" else trainer.global_step
        if (
            done >= len(self.plan) or self.plan.at(done) == phases.phase
        ):  # a phase that never ran is not entered
            self._seek(trainer, done)
        phases.close()

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints: position, plan and packed masks."""
        return {} if self.phases is None else self.phases.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning restores callbacks before optimizers exist: kept until training starts."""
        self._saved = state_dict or None

    def _seek(self, trainer: Trainer, step: int) -> None:
        phases = self._require()
        before = phases.held
        phases.seek(min(step, len(self.plan)))
        if (
            phases.held is not None
            and phases.held is not before
            and isinstance(trainer.strategy, DDPStrategy)
        ):
            check_agreement(phases.held.masks)

    def _require(self) -> PhaseScheduler:
        if self.phases is None:
            raise RuntimeError(
                "DSDCallback's plan is not open; it opens when trainer.fit() starts training"
            )
        return self.phases

    def _follows_plan(self, trainer: Trainer) -> bool:
        lambdas = [
            getattr(config.scheduler, "lr_lambdas", []) for config in trainer.lr_scheduler_configs
        ]
        return any(function == self.plan.lr_factor for several in lambdas for function in several)
