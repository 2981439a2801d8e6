"""Walk a plan beside any training loop: open a constraint where a phase is sparse, release it where
the phase ends."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .constraint import Constraint, check_free
from .masks import build_masks, check_choosable
from .optimizers import Optimizers, moments, optimizers_in, optimizers_of
from .plan import Phase, Plan, plain_name
from .prunable import Patterns, patterns, prunable
from .tensors.packing import pack, unpack
from .tensors.sharded import shard_of


class PhaseScheduler:
    """Holds and releases weights as a plan says, one `step` at a time.

    Args:
        model, optimizer: as for `redense.sparse`; rates stay with the caller (``LambdaLR(optimizer,
            plan.lr_factor)``).
        plan: its unit, epochs or optimizer steps, is whatever the caller counts with `step`.
        include, exclude: passed to `redense.prunable`.
        averages: models that average this one (``AveragedModel``, timm's ``ModelEmaV3``): what is
            held is zeroed in them too, since old values would linger there.

    >>> phases = PhaseScheduler(model, optimizer, plan)
    >>> for epoch in range(len(plan)):
    ...     train_one_epoch(model, optimizer)
    ...     phases.step()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        plan: Plan,
        *,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        averages: Iterable[nn.Module] = (),
    ) -> None:
        if not isinstance(plan, Plan):
            raise TypeError(
                f"plan must be a redense.Plan, got {type(plan).__name__}; redense.dsd(30, 20, 20) "
                "makes one"
            )
        if not len(plan):
            raise ValueError("plan is empty: there is nothing to walk; train without a scheduler")
        self.plan = plan
        self.position = 0
        """Steps done, 0 to len(plan)."""
        self.held: Constraint | None = None
        """What is held now; None in a dense phase and after the plan."""
        self._model, self._optimizer = model, optimizer
        self._include, self._exclude = patterns("include", include), patterns("exclude", exclude)
        self._weights: Mapping[str, Tensor] = {}
        self._trainers: dict[str, list[Optimizer]] = {}
        optimizers_in(optimizer)
        if any(phase.sparsity for phase in plan):
            self._look()
        for phase in plan:  # what cannot be held is an error now, not after the dense phase
            check_choosable(self._weights, phase.sparsity, phase.mask)
        self._averages = tuple(averages)
        self._regrowth: _Regrowth | None = None
        trained = (weight for weight in model.parameters() if weight.requires_grad)
        witness = next(iter(self._weights.values()), None)
        self._beginning: _Beginning | None = _Beginning(
            next(trained) if witness is None else witness
        )
        self._enter()
        self._beginning.end()

    @property
    def phase(self) -> Phase:
        """The phase that the next training step belongs to; after the plan its last one."""
        return self.plan.at(min(self.position, len(self.plan) - 1))

    @property
    def finished(self) -> bool:
        """Whether the whole plan has run."""
        return self.position == len(self.plan)

    def step(self) -> None:
        """Count one unit of training as done; at a phase's end its weights are released and the
        next is opened."""
        if self.finished:
            raise RuntimeError(
                f"the plan's {len(self.plan)} steps are done; make a longer plan or stop calling "
                "step()"
            )
        self.seek(self.position + 1)

    def seek(self, step: int) -> None:
        """Go to ``step`` of the plan, 0 to len(plan). Inside the present phase nothing is released
        or chosen anew."""
        if not isinstance(step, int):
            raise TypeError(f"step must be a whole number, got {step!r}")
        if not 0 <= step <= len(self.plan):
            raise ValueError(
                f"step must lie in 0 to {len(self.plan)}, the plan's length, got {step}"
            )
        if step == self.position:
            self._beginning = None
            return
        if self.held is not None and self.held.bypassed:
            raise RuntimeError(
                f"phase {self.phase.name!r} held nothing: the weights moved but the optimizer "
                "given to PhaseScheduler never stepped; give it the one that trains, and build "
                "both anew together"
            )
        before, finished = self.phase, self.finished
        self.position = step
        self._beginning = None
        if self.phase is not before or self.finished != finished:
            self._leave()
            self._enter()

    def close(self) -> None:
        """Release what is held. Before the plan's end this warns, and names the phases that never
        ran."""
        self._leave()
        if not self.finished:
            cause = "early stopping, a limit of time or steps, or a forgotten step() cut it short"
            warnings.warn(f"{self._unfinished()}: {cause}", stacklevel=2)
        self._beginning = None

    def detach(self) -> None:
        """Remove the hooks and nothing else: what a run does that stops here, to go on from its
        checkpoint."""
        self._leave(release=False)
        self._beginning = None

    def state_dict(self) -> dict[str, Any]:
        """Where the plan stands and what is held, one bit a weight; safe for
        ``torch.load(weights_only=True)``.

        The same on any number of ranks. With sharded weights every rank must call it.
        """
        masks = (
            {}
            if self.held is None
            else {name: pack(mask) for name, mask in self.held.masks.items()}
        )
        return {"position": self.position, "plan": self.plan.to_records(), "masks": masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; load the model's and the optimizer's own state as
        well, in any order.

        Raises:
            ValueError: the state was saved under another plan or after `close`, or is of another
                model.
        """
        if missing := [key for key in ("plan", "position", "masks") if key not in state]:
            raise ValueError(
                f"the state has no {missing[0]!r}: it is none that state_dict() gave; its keys are "
                f"{', '.join(map(str, state)) or 'none'}"
            )
        saved = Plan.from_records(state["plan"])
        if saved != Plan.from_records(self.plan.to_records()):  # mask functions by name
            raise ValueError(
                f"the state was saved under another plan:\n{saved}\nthis scheduler "
                f"walks:\n{self.plan}"
            )
        packed, position = state["masks"], state["position"]
        if position < len(self.plan) and self.plan.at(position).sparsity and not packed:
            raise ValueError(
                f"the state stands at step {position}, in phase {self.plan.at(position).name!r}, "
                "but holds no masks: it was saved after closing, or read by one that fills "
                "an existing state (torch.distributed.checkpoint), for which masks have no place; "
                "save state_dict() before closing, with torch.save, or "
                "phases.stateful() with torch.distributed.checkpoint"
            )
        packed = self._named_as_here(packed)
        for name, bits in packed.items():
            if name not in self._weights:
                raise ValueError(
                    f"the state holds {name!r}, which is no prunable weight of this model; same "
                    "include?"
                )
            if bits.numel() != -(-self._weights[name].numel() // 8):
                shape = tuple(self._weights[name].shape)
                raise ValueError(
                    f"the state's mask of {name!r} does not fit its shape {shape}; same model?"
                )
        self._leave(release=False)
        if self._beginning is not None:
            self._beginning.give_back()
            self._beginning = None
        self.position = position
        if packed:
            self._hold({name: unpack(bits, self._weights[name]) for name, bits in packed.items()})

    def stateful(self) -> _WholeState:
        """This scheduler for ``torch.distributed.checkpoint``, which fills the entries of an
        existing state and so would lose masks: its state as one entry.

            dcp.load({"model": model, "phases": phases.stateful()}, checkpoint_id=folder)
        """
        return _WholeState(self)

    def _named_as_here(self, packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks by this model's names, whatever wrappers (``torch.compile``, DDP) were around it
        when they were saved."""
        here = {plain_name(name): name for name in self._weights}
        return {here.get(plain_name(name), name): bits for name, bits in packed.items()}

    def _enter(self) -> None:
        if self.phase.sparsity and not self.finished:
            if self._beginning is None:
                self._look_anew()
            check_free(self._weights)
            masks = self._choose()
            if self._beginning is not None:
                self._beginning.remember(self._values_under(masks))
            self._hold(masks)

    def _choose(self) -> dict[str, Tensor]:
        with warnings.catch_warnings():
            index = self.plan.index(self.position)
            if index and self.plan.phases[index - 1].sparsity:  # what that one held is all zero
                warnings.filterwarnings("ignore", "whole rows are held")
            return build_masks(self._weights, self.phase.sparsity, self.phase.mask)

    def _hold(self, masks: Mapping[str, Tensor]) -> None:
        self._regrowth = None
        self.held = Constraint(self._model, self._optimizer, masks)
        for average in self._averages:
            self.held.apply_to(average)

    def _look_anew(self) -> None:
        """The weights as they are now: layers may have been replaced, added, frozen or tied."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the scheduler was built
            self._look()

    def _look(self) -> None:
        self._weights = prunable(self._model, self._include, self._exclude)
        self._trainers = optimizers_of(self._weights, optimizers_in(self._optimizer))

    def _values_under(self, masks: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What holding ``masks`` will overwrite, weights and moments: (tensor, where, values)."""
        overwritten = []
        for name, mask in masks.items():
            weight, pruned = self._weights[name], ~shard_of(mask)[0]
            tensors: list[Tensor] = [weight]
            for opt in self._trainers[name]:
                tensors += moments(opt, weight)
            for average in self._averages:
                tensors += [
                    copied
                    for other, copied in average.named_parameters(remove_duplicate=False)
                    if plain_name(other) == plain_name(name)
                ]
            for tensor in tensors:
                local = shard_of(tensor)[0].detach()
                overwritten.append((local, pruned, local[pruned]))
        return overwritten

    def _leave(self, release: bool = True) -> None:
        regrown, self._regrowth = self._regrowth, None
        if regrown is not None and release:
            regrown.warn()
        if self.held is not None:
            weights = {name: self._weights[name] for name in self.held.masks}
            if release:
                self.held.release()
                self._regrowth = _Regrowth(weights)
            else:
                self.held.detach()
            self.held = None

    def _unfinished(self) -> str:
        left = [phase.name for phase in self.plan.phases[self.plan.index(self.position) :]]
        return (
            f"the plan stopped at step {self.position} of {len(self.plan)}: {', '.join(left)} did "
            "not run to the end"
        )

    def __del__(self) -> None:
        beginning: _Beginning | None = getattr(self, "_beginning", None)
        held: Constraint | None = getattr(self, "held", None)
        if beginning is not None and beginning.is_over():
            remedy = "call step() after every epoch or training step"
            warnings.warn(f"{self._unfinished()}; {remedy}", stacklevel=1)
        elif held is not None and held.active and _is_shared(self._model):
            warnings.warn(
                f"PhaseScheduler is gone in phase {self.phase.name!r} and its weights stay held at "
                "zero: call close() when a training ends early, or redense.release(model)",
                stacklevel=1,
            )


def _is_shared(model: nn.Module) -> bool:
    """Whether anybody but a scheduler has the model, who could go on with it."""
    ours = 3  # the scheduler's, the argument's, and getrefcount's own
    return not sys.is_finalizing() and sys.getrefcount(model) > ours


class _Beginning:
    """A scheduler's first moment, until it is stepped, sought or loaded.

    Two things are told from it: what the first phase overwrote, when a state is loaded behind the
    model's; and that the weights have moved without any `step`, when the scheduler goes.
    """

    def __init__(self, witness: Tensor) -> None:
        self._witness, self._version = witness, witness._version
        self._overwritten: list[tuple[Tensor, Tensor, Tensor]] = []
        self._versions: list[int] = []

    def remember(self, overwritten: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """What the first phase will overwrite: (tensor, where, values)."""
        self._overwritten = overwritten

    def end(self) -> None:
        """The scheduler is built: what is written from now on is the caller's."""
        self._version = self._witness._version
        self._versions = [tensor._version for tensor, _, _ in self._overwritten]

    def give_back(self) -> None:
        """Put back what was not loaded since, so was loaded before the scheduler was built."""
        for (tensor, where, values), version in zip(self._overwritten, self._versions, strict=True):
            if tensor._version == version:
                tensor[where] = values

    def is_over(self) -> bool:
        """Whether the weights have moved since."""
        return self._witness._version != self._version


class _Regrowth:
    """Whether released weights grow back, told by how many are zero, from a release to the end of
    the phase behind it."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._zeros = {name: _zeros(weight) for name, weight in weights.items()}
        self._versions = {name: weight._version for name, weight in weights.items()}

    def warn(self) -> None:
        """Name the weights of which none grew although others were trained."""
        trained = any(
            weight._version != self._versions[name] for name, weight in self._weights.items()
        )
        still = [
            name
            for name, weight in self._weights.items()
            if self._zeros[name] and _zeros(weight) >= self._zeros[name]
        ]
        if trained and still:
            more = f" and {len(still) - 3} more tensors" if len(still) > 3 else ""
            warnings.warn(
                f"the released weights of {', '.join(still[:3])}{more} are still zero: no "
                "gradient or no rate reached them since; is the layer frozen or unused?",
                stacklevel=4,
            )


def _zeros(weight: Tensor) -> int:
    local = shard_of(weight)[0]
    return local.numel() - int(local.count_nonzero())


class _WholeState:
    """A scheduler's state as one entry, `PhaseScheduler.stateful`."""

    def __init__(self, phases: PhaseScheduler) -> None:
        self._phases = phases

    def state_dict(self) -> dict[str, bytes]:
        whole = io.BytesIO()
        torch.save(self._phases.state_dict(), whole)
        return {"phases": whole.getvalue()}

    def load_state_dict(self, state: Mapping[str, bytes]) -> None:
        whole = io.BytesIO(state["phases"])
        self._phases.load_state_dict(torch.load(whole, weights_only=True))
