"""Dense-Sparse-Dense training in a Lightning Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from .masks import check_agreement
from .plan import Plan
from .prunable import Patterns
from .rates import Rates, follows
from .scheduler import PhaseScheduler
from .walk import Unit, Walk

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import StochasticWeightAveraging
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.utilities.rank_zero import rank_zero_info
except ImportError as error:
    raise ImportError(
        "redense.lightning needs Lightning: pip install 'redense[lightning]'"
    ) from error


class DSDCallback(Callback):
    """Walk a plan beside Lightning's loop; checkpoints and resume go through Lightning's own files.

    Each step trains at the module's own rate times the plan's factor: without a schedule these are
    the plan's rates, and any other schedule is their envelope. A schedule that already is
    ``LambdaLR(optimizer, plan.lr_factor)`` is left as it is. Of a plan in epochs each epoch has one
    factor, as in a loop that steps that schedule once per epoch.

    It moves to the front of the Trainer's callbacks, so that all others see the phase and the rate
    that a batch is trained with. Under ``fast_dev_run`` each batch stands for a phase. An empty
    plan, ``Plan(())``, does nothing.

    Args:
        plan: what to do when.
        unit: what the plan counts, ``epoch`` or ``step``: optimizer steps, with several optimizers
            the batches after which one of them has stepped.
        include, exclude: which weights may be held, passed to `redense.prunable`.
        averages: models that average the module, or a part of it, beside those that other
            callbacks keep (``WeightAveraging``, ``StochasticWeightAveraging``, an ``AveragedModel``
            or timm's ``ModelEmaV3``): what is held is zeroed in them too.
        smooth: let a phase's decay run on inside an epoch, from step to step.

    >>> trainer = Trainer(max_epochs=len(plan), callbacks=[DSDCallback(plan)])
    """

    def __init__(
        self,
        plan: Plan,
        unit: Unit = "epoch",
        *,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        averages: Iterable[nn.Module] = (),
        smooth: bool = False,
    ) -> None:
        self.plan, self.unit, self.smooth = plan, unit, smooth
        self._walk = Walk(plan, unit, include, exclude, averages)
        self.phases: PhaseScheduler | None = None
        """The scheduler, while training runs; None with an empty plan."""
        self._saved: dict[str, Any] | None = None
        self._rates = Rates()
        self._factor = 1.0
        self._in_step = False
        self._steps = self._stepped = 0
        self._handles: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Go first among the callbacks; a second one Lightning refuses by itself."""
        others = [callback for callback in trainer.callbacks if callback is not self]
        trainer.callbacks = [self, *others]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a trainer that would stop before the plan does."""
        limit = trainer.max_epochs if self.unit == "epoch" else trainer.max_steps
        if limit is not None and limit >= 0 and not trainer.fast_dev_run:
            self._walk.check_length(limit, f"max_{self.unit}s={len(self.plan)}")
        for config in trainer.lr_scheduler_configs:
            if follows(config.scheduler, self.plan.lr_factor) and config.interval != self.unit:
                raise ValueError(
                    f"LambdaLR(optimizer, plan.lr_factor) is stepped every {config.interval} but "
                    f"the plan counts {self.unit}s; return it with 'interval': {self.unit!r}, or "
                    "return no scheduler, the callback follows the plan's rates"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the plan: everything that a checkpoint restores is in place by now."""
        if not len(self.plan):
            return
        done = self._done(trainer)
        saved = self._saved or self._state_without_masks(done)
        self._saved = None
        self.phases = self._walk.open(pl_module, trainer.optimizers)
        if saved is not None:
            self.phases.load_state_dict(saved)
            self._steps = saved.get("steps", saved["position"])
        self._stepped = trainer.global_step
        self._in_step = False
        self._hook_rates(trainer)
        self._hold_averages(trainer)
        rank_zero_info(f"DSDCallback\n{self._walk.preview(pl_module)}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the epoch's phase, and show its rate to loggers."""
        if self.phases is not None:
            self._seek(trainer, self._done(trainer))
            self._show_rate(trainer, 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Enter the batch's phase: an epoch that a checkpoint was taken in has no start."""
        if self.phases is None:
            return
        done = self._done(trainer)
        if trainer.fast_dev_run:
            done = self.plan.starts[min(batch_idx, len(self.plan.starts) - 1)]
        self._seek(trainer, done)
        self._show_rate(trainer, batch_idx)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """A step that mixed precision may skip: a schedule must not see the factor after it."""
        if not self._in_step:
            self._rates.restore()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch if it stepped, and show the module's own rates to checkpoints."""
        self._rates.restore()
        self._steps += trainer.global_step > self._stepped
        self._stepped = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the module's own rates to checkpoints."""
        self._rates.restore()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release what the last phase held; a plan that was cut short warns."""
        self._unhook_rates()
        if self.phases is None:
            return
        done = len(self.plan) if trainer.fast_dev_run else self._done(trainer)
        if (
            done >= len(self.plan) or self.plan.at(done) == self.phases.phase
        ):  # a phase that never ran is not entered
            self._seek(trainer, done)
        self.phases.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no hook behind; what was held can still be saved."""
        self._unhook_rates()
        if self.phases is not None and self.phases.held is not None:
            self.phases.held.detach()

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints: position, plan and packed masks."""
        return {} if self.phases is None else self.phases.state_dict() | {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning restores callbacks before optimizers exist: kept until training starts."""
        self._saved = state_dict or None

    def _done(self, trainer: Trainer) -> int:
        if self.unit == "epoch":
            return trainer.current_epoch
        return trainer.global_step if len(trainer.optimizers) == 1 else self._steps

    def _seek(self, trainer: Trainer, step: int) -> None:
        assert self.phases is not None
        before = self.phases.held
        news = self._walk.seek(self.phases, step)
        held = self.phases.held
        if held is not None and held is not before:
            self._hold_averages(trainer)
            if isinstance(trainer.strategy, DDPStrategy):
                check_agreement(held.masks)
        if news:
            rank_zero_info(news)

    def _hold_averages(self, trainer: Trainer) -> None:
        if self.phases is not None and self.phases.held is not None:
            for average in _averages_in(trainer):
                self.phases.held.apply_to(average)

    def _state_without_masks(self, done: int) -> dict[str, Any] | None:
        """A training that goes on without this callback's state: the plan opens where the Trainer
        stands, if what was held until then need not be known."""
        step = min(done, len(self.plan))
        if step == 0:
            return None
        before = step if step == len(self.plan) or not self.plan.at(step).sparsity else step - 1
        if before < len(self.plan) and self.plan.at(before).sparsity:
            raise ValueError(
                f"training goes on at {self.unit} {done}, in phase {self.plan.at(step).name!r}, "
                "without DSDCallback's state, so what was held is unknown; resume from a "
                "checkpoint that was written with DSDCallback, or load the weights alone and "
                "train a plan from its start"
            )
        return {"position": before, "plan": self.plan.to_records(), "masks": {}}

    def _hook_rates(self, trainer: Trainer) -> None:
        """Every step of every optimizer trains at its own rate times the plan's factor."""
        self._unhook_rates()
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        if any(follows(schedule, self.plan.lr_factor) for schedule in schedules):
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])  # as torch's schedules keep it
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))

    def _unhook_rates(self) -> None:
        self._rates.restore()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _show_rate(self, trainer: Trainer, batch_idx: int) -> None:
        if not self._handles:
            return
        assert self.phases is not None
        done = 0.0
        if self.smooth and self.unit == "epoch" and not trainer.fast_dev_run:
            # a step has one rate, its first batch's
            first = batch_idx - batch_idx % trainer.accumulate_grad_batches
            done = first / max(trainer.num_training_batches, 1)
        self._factor = self.plan.lr_factor(self.phases.position + done)
        for optimizer in trainer.optimizers:
            self._rates.apply(optimizer.param_groups, self._factor)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._in_step = True
        self._rates.apply(optimizer.param_groups, self._factor)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._in_step = False
        self._rates.restore()


def _averages_in(trainer: Trainer) -> Iterator[nn.Module]:
    """The averages of the module that other callbacks keep; Lightning has no public name for
    them."""
    for callback in trainer.callbacks:
        for kept in vars(callback).values():
            if isinstance(kept, nn.Module) and _is_average(kept, callback):
                yield kept


def _is_average(kept: nn.Module, callback: Callback) -> bool:
    if isinstance(kept, AveragedModel) or isinstance(callback, StochasticWeightAveraging):
        return True
    return any(kind.__name__ in ("ModelEmaV2", "ModelEmaV3") for kind in type(kept).__mro__)
