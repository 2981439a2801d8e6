"""Dense-Sparse-Dense training in the Hugging Face Trainer."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .plan import Plan
from .prunable import Patterns
from .rates import Rates, follows
from .scheduler import PhaseScheduler
from .tensors.packing import unpack
from .walk import Unit, Walk

try:
    from transformers import TrainerCallback, TrainerState, TrainingArguments
    from transformers.optimization import GreedyLR
    from transformers.utils import logging
except ImportError as error:
    raise ImportError(
        "redense.huggingface needs Transformers: pip install 'redense[huggingface]'"
    ) from error

FILE = "redense.pt"
"""What a checkpoint folder holds beside the Trainer's own files: position, plan and packed
masks."""

_LOGGER = logging.get_logger(f"transformers.{__name__}")  # under it, the Trainer's verbosity counts


class DSDCallback(TrainerCallback):
    """Walk a plan beside the Trainer's loop; checkpoints and resume go through the Trainer's own
    folders.

    Each step trains at the Trainer's scheduled rate times the plan's factor, so
    ``lr_scheduler_type="constant"`` gives the plan's rates alone and any other schedule is their
    envelope; the Trainer logs the product. Of a plan in epochs each epoch has one factor. A
    schedule that already is ``LambdaLR(optimizer, plan.lr_factor)`` (``Trainer(optimizers=...)``)
    is left as it is.

    The first step of a phase opens it: the checkpoint of a dense phase's last epoch is still dense.
    The Trainer tells no callback of an exception: what was held then is let go when the next
    ``train()`` begins, when the Trainer is collected, or by ``redense.release(model)``. An empty
    plan, ``Plan(())``, does nothing.

    Args:
        plan: what to do when.
        unit: what the plan counts, ``epoch`` or ``step`` (optimizer steps).
        include, exclude: which weights may be held, passed to `redense.prunable`.
        averages: models that average this one (timm's ``ModelEmaV3``, an ``AveragedModel``): what
            is held is zeroed in them too.
        smooth: let a phase's decay run on inside an epoch, from step to step.

    >>> args = TrainingArguments("out", num_train_epochs=len(plan), lr_scheduler_type="constant")
    >>> Trainer(model, args, train_dataset=data, callbacks=[DSDCallback(plan)]).train()
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
        """The scheduler, from the training's begin on; None with an empty plan."""
        self._epochs = 0
        self._follows_plan = False
        self._rates = Rates()

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Refuse a second callback on one Trainer."""
        _claim("init", state)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Open the plan, or go on with it: model, optimizer and schedule are restored by now."""
        _claim("train", state)
        if not len(self.plan):
            return
        if self.unit == "epoch":
            remedy = f"num_train_epochs={len(self.plan)} without max_steps"
            self._walk.check_length(state.num_train_epochs, remedy)
        else:
            self._walk.check_length(state.max_steps, f"max_steps={len(self.plan)}")
        self._follows_plan = follows(kwargs["lr_scheduler"], self.plan.lr_factor)
        if self._follows_plan and self.unit == "epoch":
            raise ValueError(
                "LambdaLR(optimizer, plan.lr_factor) counts optimizer steps but unit='epoch' "
                "counts epochs; pass no "
                "schedule, the callback follows the plan's rates, or count the plan in steps with "
                "unit='step'"
            )
        if self.phases is not None:  # an earlier train() that an exception ended
            self.phases.detach()
        model = kwargs["model"]
        self.phases = self._walk.open(model, kwargs["optimizer"])
        self._epochs = int(state.epoch)
        if state.global_step:
            self.phases.load_state_dict(_saved(args, state, model))
        weakref.finalize(state, self.phases.detach)  # the Trainer is gone, perhaps by an exception
        _LOGGER.info(self._walk.preview(model))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Enter the epoch's phase."""
        if self.unit == "epoch":
            self._seek(self._epochs)
        self._epochs += 1

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Enter the step's phase."""
        if self.unit == "step":
            self._seek(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Multiply the scheduled rate by the plan's factor, for this step only: schedules read the
        rate they set."""
        if self.phases is not None and not self._follows_plan:
            done = state.epoch if self.smooth and self.unit == "epoch" else 0
            factor = self.plan.lr_factor(max(done, self.phases.position))
            self._rates.apply(kwargs["optimizer"].param_groups, factor)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Put the scheduled rate back, but leave the one that was used for the Trainer's log."""
        schedule = kwargs["lr_scheduler"]
        if not isinstance(schedule, (ReduceLROnPlateau, GreedyLR)):  # logged from the optimizer
            schedule._last_lr = [group["lr"] for group in kwargs["optimizer"].param_groups]
            self._rates.restore()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Put back the rate of a schedule that waits for the evaluation."""
        self._rates.restore()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Write the plan's state into the checkpoint that the Trainer has just written."""
        if self.phases is None:
            return
        phases = self.phases.state_dict()  # of sharded weights every rank has a part
        if args.should_save:
            path = _checkpoint(args, state) / FILE
            partial = path.with_suffix(".partial")
            torch.save({"global_step": state.global_step, "phases": phases}, partial)
            partial.replace(path)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Release what the last phase held; a plan that was cut short warns."""
        phases = self.phases
        if phases is None:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            phases.detach()  # the weights are another phase's now: nothing of them is to be zeroed
            if not self.plan.phases[-1].sparsity:
                _say_if_sparse(Path(state.best_model_checkpoint))
        done = int(state.epoch) if self.unit == "epoch" else state.global_step
        done = min(done, len(self.plan))
        if done == len(self.plan) or self.plan.at(done) == phases.phase:  # no step trains another
            phases.seek(done)
        phases.close()

    def _seek(self, step: int) -> None:
        if self.phases is not None and (news := self._walk.seek(self.phases, step)):
            _LOGGER.info(news)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in ``folder`` that was written to its end, None where there is none.

    A killed process may leave a folder that lacks files; the plan's state is written last, in one
    step. Keep two (``save_total_limit=2``), so that the one before is there then.

    >>> args = TrainingArguments("out", num_train_epochs=len(plan), save_total_limit=2)
    >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[DSDCallback(plan)])
    >>> newest = last_checkpoint("out")  # None the first time
    >>> trainer = Trainer(model, TrainingArguments("out"), train_dataset=data)
    >>> trained = trainer.train(resume_from_checkpoint=newest)
    """
    whole = {
        int(file.parent.name.removeprefix("checkpoint-")): str(file.parent)
        for file in Path(folder).glob(f"checkpoint-*/{FILE}")
    }
    return whole[max(whole)] if whole else None


def _say_if_sparse(best: Path) -> None:
    """Whether the checkpoint that ``load_best_model_at_end`` has loaded is of a sparse phase."""
    if not (best / FILE).is_file():
        return
    saved = torch.load(best / FILE, map_location="cpu", weights_only=True)
    held = saved["phases"]["masks"]
    if held:
        warnings.warn(
            f"load_best_model_at_end has loaded {best.name}, which is of a sparse phase: "
            f"{len(held)} tensors hold zeros, and what was trained after it is not in the model; "
            "load_best_model_at_end=False keeps the last phase's",
            stacklevel=2,
        )


_CLAIMS: list[tuple[str, weakref.ref[TrainerState]]] = []
"""The trainings, by their state, that a callback walks its plan in."""


def _claim(event: str, state: TrainerState) -> None:
    """Refuse a second callback in one training: its factor would multiply the first one's."""
    _CLAIMS[:] = [claim for claim in _CLAIMS if claim[1]() is not None]
    if any(kind == event and claimed() is state for kind, claimed in _CLAIMS):
        raise ValueError(
            "the Trainer has two DSDCallbacks, whose rates would multiply and whose states would "
            "overwrite each other; pass one, with a mask function for what differs from layer to "
            "layer"
        )
    _CLAIMS.append((event, weakref.ref(state)))


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of the present step; a hyperparameter search has one more level, and the newest is
    the present trial's."""
    output, name = Path(args.output_dir or "."), f"checkpoint-{state.global_step}"
    trials = output.glob(f"*/{name}") if state.is_hyper_param_search else []
    return max(trials, key=lambda folder: folder.stat().st_mtime, default=output / name)


def _saved(args: TrainingArguments, state: TrainerState, model: nn.Module) -> dict[str, Any]:
    """The plan's state beside the checkpoint that ``model`` was resumed from; the Trainer tells no
    callback where."""
    folders = [_checkpoint(args, state)]
    if isinstance(args.resume_from_checkpoint, str):
        folders.append(Path(args.resume_from_checkpoint))
    for folder in folders:
        if (folder / FILE).is_file():
            saved = torch.load(folder / FILE, weights_only=True)
            if saved["global_step"] == state.global_step and _fits(model, saved["phases"]["masks"]):
                phases: dict[str, Any] = saved["phases"]
                return phases
    raise FileNotFoundError(
        f"no {FILE} of the resumed checkpoint, step {state.global_step}, in "
        f"{' or '.join(map(str, folders))}: a kill while it was written leaves it out, then "
        "resume from redense.huggingface.last_checkpoint(folder); else name its folder in "
        "TrainingArguments(resume_from_checkpoint=...) too; if DSDCallback did not write it, load "
        "its model and train a plan without a dense phase"
    )


def _fits(model: nn.Module, masks: dict[str, torch.Tensor]) -> bool:
    """Whether what the masks hold is zero in the resumed weights: of another run's checkpoint it is
    not."""
    parameters = dict(model.named_parameters())
    held = [(parameters[name], bits) for name, bits in masks.items() if name in parameters]
    return not any(weight[~unpack(bits, weight)].any() for weight, bits in held)
