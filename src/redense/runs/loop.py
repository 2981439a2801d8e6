"""The loop behind `Run.epochs` and `Run.steps`: phases, rates, seeds, checkpoints, averages."""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, update_bn

from redense.files.records import with_rate
from redense.optimizers import optimizers_in
from redense.prunable import Patterns, prunable
from redense.rates import Rates
from redense.runs.at_hand import averages, shuffled_loaders, tensors_in
from redense.runs.checkpoints import DamagedCheckpointError, read, save_whole, write_text
from redense.runs.decay import WeightDecay
from redense.runs.generators import Drawn, generator_of, is_generator
from redense.runs.restoring import check_settings
from redense.runs.seeds import rank_seed
from redense.runs.shrinking import shrink_and_perturb
from redense.runs.weights import share_of_zeros
from redense.scheduler import PhaseScheduler

if TYPE_CHECKING:
    from redense.runs.run import Run, Stateful

RATES = ("plan", "own")
"""Whose rates count: the plan's factor times the user's, or the user's alone."""


ALONE = """\
The training function asks for run.plan: its epochs may depend on what comes after them, as with a
schedule over len(run.plan). So no other run starts from this one's phases.
"""


class DivergedError(ValueError):
    """A logged number or a score is NaN or infinite."""


class Loop:
    """Walks a run's plan beside the user's own loop; everything that it does is undone at its end.

    Args:
        run: whose plan, seed and folder.
        every: units between two checkpoints.
        unit: what the plan counts, ``epoch`` or ``step``.
        caller: the function that walks.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer],
        include: Patterns | None,
        exclude: Patterns | None,
        rates: str,
        loader: Iterable[Any] | None,
        stateful: Mapping[str, Stateful],
        every: int,
        unit: str,
        caller: FrameType,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if rates not in RATES:
            raise ValueError(f"rates must be one of {', '.join(RATES)}, got {rates!r}")
        stateful = {
            name: Drawn(value) if is_generator(value) else value for name, value in stateful.items()
        }
        if (shuffles := generator_of(loader)) is not None:
            stateful["loader's generator"] = Drawn(shuffles)
        for name, value in stateful.items():
            if not callable(getattr(value, "state_dict", None)):
                raise TypeError(
                    f"{name} has no state_dict() to be saved, got {type(value).__name__}"
                )
        self.finished = False
        self._run, self._plan, self._unit, self._every = run, run.config.to_plan(), unit, every
        self._model, self._optimizers, self._stateful = (
            model,
            optimizers_in(optimizer),
            dict(stateful),
        )
        self._check_trained()
        self._check_schedules()
        self._check_shuffles(caller)
        self._check_averages(caller)
        self._loader = loader
        self._logged: dict[str, float] = {}
        self._mean = AveragedModel(model) if run.config.average else None
        if self._mean is not None and loader is None and _has_batch_statistics(model):
            raise ValueError(
                "averaged weights need batch-norm statistics of their own: pass the training "
                "batches, run.epochs(model, optimizer, loader=train_loader)"
            )
        run.network, run.main = model, os.environ.get("RANK", "0") == "0"
        include = run.config.include or include
        self._chosen = include, exclude
        self._phases: PhaseScheduler | None = None
        self._position = 0
        self._saved_before = False
        self._since = time.perf_counter()
        self._rates: _PlanRates | None = None
        self._decay: WeightDecay | None = None
        if not len(self._plan):
            return
        self._phases = PhaseScheduler(
            model, optimizer, self._plan, include=include, exclude=exclude
        )
        weights = prunable(model, include, exclude)
        run.prunable = {name: tuple(weight.shape) for name, weight in weights.items()}
        try:
            self._go_on()
        except BaseException:
            self._phases.detach()
            raise
        if rates == "plan":
            self._rates = _PlanRates(self._optimizers)
        if run.config.weight_decay:
            self._decay = WeightDecay(self._optimizers)

    def log(self, values: Mapping[str, float]) -> None:
        """Keep numbers for the row that is being trained."""
        for name, value in values.items():
            if name in _OWN:
                raise ValueError(
                    f"run.log({name}=...): every row has its own {name}; log it by another name"
                )
            number = float(value)
            if not math.isfinite(number):
                raise DivergedError(
                    f"training has diverged: {name} is {number} in {self._unit} "
                    f"{self._position + 1} of {len(self._plan)}"
                )
            self._logged[name] = number

    def walk(self) -> Iterator[int]:
        """Give the number of each unit that is left, and save behind it."""
        try:
            while self._position < len(self._plan):
                self._begin()
                yield self._position
                self._end()
            self._take_over()
            self.finished = True
        finally:
            self._leave()

    def _begin(self) -> None:
        seed_everything(rank_seed(self._run.seed, self._position, _rank()))
        if self._rates is not None:
            self._rates.factor = self._plan.lr_factor(self._position)
        if self._decay is not None:
            phase = self._plan.index(self._position)
            self._decay.factor = self._run.config.weight_decay[phase]

    def _end(self) -> None:
        """Count the unit as done; the checkpoint holds the phase as it was trained, its masks
        included, and the release comes behind it, here as after a resume."""
        phase = self._plan.at(self._position)
        self._position += 1
        ends = self._position in (*self._plan.starts[1:], len(self._plan))
        if ends or self._position % self._every == 0:
            if self._mean is not None and phase.name == self._run.config.average:
                self._mean.update_parameters(self._model)
            self._write_row(phase.name)
            self._keep_best()
            self._save()
            if ends and self._run.main:
                if self._run.asked_for_plan:
                    write_text(self._run.files.alone, ALONE)
                self._run.files.mark_phase(self._position, phase.name)
        self._require_phases().step()

    def _write_row(self, phase: str) -> None:
        run, now = self._run, time.perf_counter()
        run.seconds += now - self._since
        self._since = now
        group = self._optimizers[0].param_groups[0]
        factor = 1.0 if self._rates is None else self._rates.factor
        row = {
            "epoch": self._position,
            "phase": phase,
            "rate": float(group["lr"]) * factor,
            "sparsity": share_of_zeros(prunable(self._model, *self._chosen).values()),
            **self._logged,
            "seconds": run.seconds,
        }
        self._logged = {}
        run.rows.append(row)
        run.show(row, self._unit)

    def _keep_best(self) -> None:
        """Keep the weights of the epoch whose judged score is the best so far: of the numbers that
        the first epoch logged the first. Where an epoch lacks it, no best is known."""
        run = self._run
        if not run.config.keeps_best:
            return
        logged = [own_numbers(row) for row in run.rows]
        name = next(iter(logged[0]), None)
        if name is None or any(name not in numbers for numbers in logged):
            if run.config.select == "best":
                raise ValueError(
                    "early stopping needs the judged score of every epoch, before anything else "
                    f"that is logged: epoch {len(logged)} has no {name or 'number'}; call "
                    "run.log(top1=...), by your metric's name, in each"
                )
            run.files.best_file.unlink(missing_ok=True)
            return
        best = best_row(run.rows, name, run.config.higher_is_better)
        if run.main and best == len(logged) - 1:
            save_whole({"state_dict": self._model.state_dict()}, run.files.best_file)

    def _check_schedules(self) -> None:
        """Refuse a schedule that no checkpoint would hold: a resumed run would begin it anew."""
        given = list(self._stateful.values())
        if any(not isinstance(one, LRScheduler) and hasattr(one, "step") for one in given):
            return  # a wrapper, which may hold one
        held = [one.optimizer for one in given if isinstance(one, LRScheduler)]
        for optimizer in self._optimizers:
            scheduled = hasattr(optimizer.step, "_wrapped_by_lr_sched")  # torch's mark
            if scheduled and not any(one is optimizer for one in held):
                raise ValueError(
                    "a schedule drives the optimizer, but a resumed run would begin it anew: pass "
                    f"it, run.{self._unit}s(model, optimizer, schedule=schedule)"
                )

    def _check_trained(self) -> None:
        """Refuse weights that are trained and that no checkpoint would hold, for the same reason: a
        loss with weights of its own, a head beside the model."""
        known = {id(weight) for module in self._modules() for weight in module.parameters()}
        memory = self._memory()
        outside = [
            tuple(weight.shape)
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
            if weight.requires_grad and id(weight) not in known and weight.data_ptr() not in memory
        ]
        if outside:
            raise ValueError(
                f"the optimizer trains weights that are not in the model: {len(outside)}, the "
                f"first of shape {outside[0]}; a run that is resumed, or starts from another's "
                f"epochs, would begin them anew. Pass the module that has them by a name, "
                f"run.{self._unit}s(model, optimizer, head=head)"
            )

    def _check_shuffles(self, caller: FrameType) -> None:
        """Refuse a generator that no checkpoint would hold, for the same reason."""
        kept = [one.generator for one in self._stateful.values() if isinstance(one, Drawn)]
        for name, generator in shuffled_loaders(caller):
            if not any(one is generator for one in kept):
                raise ValueError(
                    f"{name} shuffles by a generator of its own, so a resumed run would see other "
                    f"batches: pass it, run.{self._unit}s(model, optimizer, loader={name}), or "
                    "leave the generator out: every epoch is seeded"
                )

    def _check_averages(self, caller: FrameType) -> None:
        """Refuse an average of the weights that no checkpoint would hold, for the same reason."""
        held = {id(inner) for module in self._modules() for inner in module.modules()}
        held |= {id(one) for one in self._stateful.values()}
        memory = self._memory()
        for name, average in averages(caller):
            own = {tensor.data_ptr() for tensor in tensors_in(average.state_dict())}
            if id(average) not in held and own and not own & memory:
                raise ValueError(
                    f"{name} averages weights, but no checkpoint would hold it, so a run that is "
                    "resumed, or starts from another's epochs, would begin it anew: pass it, "
                    f"run.{self._unit}s(model, optimizer, {name}={name})"
                )

    def _modules(self) -> list[nn.Module]:
        """Whose weights a checkpoint holds."""
        given = [self._model, *self._stateful.values()]
        return [one for one in given if isinstance(one, nn.Module)]

    def _memory(self) -> set[int]:
        """Where the tensors lie that it holds of whatever is no module: a wrapper's, say."""
        wrappers = [one for one in self._stateful.values() if not isinstance(one, nn.Module)]
        return {tensor.data_ptr() for one in wrappers for tensor in tensors_in(one.state_dict())}

    def _save(self) -> None:
        self._check_schedules()
        content = {
            "position": self._position,
            "state_dict": self._model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "phases": self._require_phases().state_dict(),  # each rank has a part of sharded ones
            "stateful": {name: value.state_dict() for name, value in self._stateful.items()},
            "mean": {} if self._mean is None else self._mean.state_dict(),
            "rows": self._run.rows,
            "seconds": self._run.seconds,
            "settings": self._run.config.settings,
        }
        if not self._run.main:
            return
        file = self._run.files.epoch_file(self._position)
        save_whole(content, file)
        if not self._saved_before:
            self._saved_before = True
            try:
                read(file)
            except DamagedCheckpointError as error:
                file.unlink()
                named = (
                    f"the state of {', '.join(self._stateful)}" if self._stateful else "its state"
                )
                raise TypeError(
                    f"a checkpoint could not be read back, so no run could go on from it: {named} "
                    f"holds more than tensors, numbers, strings, lists and dictionaries ({error})"
                ) from error
        self._run.files.keep_last(2)

    def _go_on(self) -> None:
        """Take the newest checkpoint's state, if there is one."""
        if self._run.main and not self._run.evaluates:
            self._run.files.mark_ended(self._plan)
        newest = self._run.files.newest()
        if newest is not None and newest[1].get("position") == len(self._plan):
            newest = self._before_the_end(newest)
        if newest is None:
            if self._run.config.shrink < 1:
                shrink_and_perturb(self._model, self._run.config.shrink, self._run.seed)
            return
        file, content = newest
        if missing := [key for key in _PARTS if key not in content]:
            raise ValueError(
                f"{file} is no checkpoint of run.epochs(): it has no {missing[0]!r}; "
                f"start the run in another folder"
            )
        check_settings(file, content.get("settings", {}), self._run.config.settings)
        if (saved := set(content["stateful"])) != set(self._stateful):
            raise ValueError(
                f"{file} was saved with {', '.join(sorted(saved)) or 'nothing'} beside model and "
                f"optimizer, now it is {', '.join(sorted(self._stateful)) or 'nothing'}"
            )
        try:
            self._restore(content)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file} does not fit this training ({error}); start the run in another folder"
            ) from error
        if not self._run.quiet and self._run.main:
            print(f"going on from {file}", flush=True)

    def _before_the_end(self, last: Any) -> Any:
        """The checkpoint before the last one: the loop's body is run once at least, since a score
        may be computed there. Only who asks for nothing but scores begins at the end."""
        return last if self._run.evaluates else self._run.files.newest(before=len(self._plan))

    def _restore(self, content: Mapping[str, Any]) -> None:
        phases = self._require_phases()
        self._model.load_state_dict(content["state_dict"])
        for optimizer, state in zip(self._optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        phases.load_state_dict(content["phases"])
        for name, state in content["stateful"].items():
            self._stateful[name].load_state_dict(state)
        if self._mean is not None and content["mean"]:
            self._mean.load_state_dict(content["mean"])
        self._run.rows = [with_rate(row) for row in content["rows"]]
        self._run.seconds = content["seconds"]
        self._position = content["position"]
        phases.seek(self._position)

    def _take_over(self) -> None:
        """Once the plan is walked: the best or the averaged weights become the network's."""
        run = self._run
        if run.config.select == "best" and len(self._plan):
            self._model.load_state_dict(read(run.files.best_file)["state_dict"])
            name = next(iter(own_numbers(run.rows[0])))
            run.selected_by = name
            run.selected_row = best_row(run.rows, name, run.config.higher_is_better)
            run.selection = f"the weights of the best {self._unit} by {name}"
        if self._mean is not None:
            with torch.no_grad():
                pairs = zip(self._model.parameters(), self._mean.module.parameters(), strict=True)
                for weight, average in pairs:
                    weight.copy_(average)
            if self._loader is not None:
                seed_everything(rank_seed(self._run.seed, len(self._plan), _rank()))
                device = next(self._model.parameters()).device
                try:
                    update_bn(self._loader, self._model, device=device)
                except (AttributeError, KeyError, TypeError) as error:
                    raise ValueError(
                        "averaged weights (SWA) need batch-norm measured anew, for which the model "
                        f"is given each batch of loader, or the first part of it: {error!r}; pass "
                        "loader=[batch['pixels'] for batch in loader], say"
                    ) from error

    def _leave(self) -> None:
        if self._rates is not None:
            self._rates.remove()
        if self._decay is not None:
            self._decay.remove()
        if self._phases is not None and not self.finished:
            self._phases.detach()

    def _require_phases(self) -> PhaseScheduler:
        if self._phases is None:
            raise RuntimeError("an empty plan has no phase to train")
        return self._phases


_PARTS = ("position", "state_dict", "optimizers", "phases", "stateful", "mean", "rows", "seconds")
_OWN = ("epoch", "phase", "rate", "sparsity", "seconds")


def best_row(rows: Sequence[Mapping[str, Any]], name: str, higher_is_better: bool) -> int:
    """Which row has the best of a number; of equals the first."""
    sign = 1 if higher_is_better else -1
    return max(range(len(rows)), key=lambda row: (sign * rows[row][name], -row))


class _PlanRates:
    """Multiplies each group's rate by ``factor`` for the time of an optimizer step only, so that
    any schedule of the user's own reads and writes the rates that it set."""

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self.factor = 1.0
        self._handles: list[Any] = []
        for optimizer in optimizers:
            rates = Rates()
            self._handles.append(optimizer.register_step_pre_hook(self._multiply(rates)))
            self._handles.append(optimizer.register_step_post_hook(self._put_back(rates)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _multiply(self, rates: Rates) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            rates.apply(optimizer.param_groups, self.factor)

        return hook

    def _put_back(self, rates: Rates) -> Callable[..., None]:
        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            rates.restore()

        return hook


def own_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What the user logged in a row."""
    return {name: value for name, value in row.items() if name not in _OWN}


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's (where it is loaded) and torch's generators."""
    random.seed(seed)
    torch.manual_seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _has_batch_statistics(model: nn.Module) -> bool:
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return any(norm.track_running_stats for norm in norms)
