"""Hold chosen weights of a live model at exactly zero, and let them go again.

The model is never changed: no wrapper, no new key, the same `Parameter` objects. A hook on each
weight masks its gradient the moment it is complete (on one GPU all of them at once, when the
backward pass ends), so clipping, logging and the optimizer see zeros. Most optimizers then leave a
zero weight at zero by themselves; for the others, such as Muon, the weight is zeroed again after
each step.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Variable
from torch.optim import Optimizer

from .masks import MaskFunction, build_masks
from .optimizers import (
    ELEMENTWISE,
    KnownState,
    Optimizers,
    forget_history,
    hold_state,
    optimizers_in,
    optimizers_of,
    release_state,
    wrappers_in,
)
from .plan import Sparsity, check_sparsity, plain_name
from .prunable import Patterns, prunable
from .tensors.sharded import is_sharded, shard_of
from .tensors.watching import Watch
from .tensors.zeroing import Kept, zero_all_pruned_, zero_pruned_


@contextmanager
def sparse(
    model: nn.Module,
    optimizer: Optimizers,
    sparsity: Sparsity,
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    mask: str | MaskFunction = "magnitude",
) -> Iterator[Constraint]:
    """Hold a share of each prunable tensor at zero inside the block; after it they are free again,
    from zero.

    Args:
        model: any module; see `prunable` for what is held by default and for ``include`` and
            ``exclude``.
        optimizer: the one that trains it, or several that share its weights (Muon and AdamW, say).
        sparsity: share of each tensor, in [0, 1), or one for each pattern of names, as for
            `redense.Phase`.
        mask: ``magnitude``, ``random``, ``global`` or a function ``(weight, sparsity) -> bool
            mask``, True = kept.

    >>> with sparse(model, optimizer, 0.3) as held:
    ...     train(epochs=20)
    >>> held.masks["layer1.weight"].float().mean()
    tensor(0.7000)
    """
    check_sparsity(sparsity)
    optimizers_in(optimizer)
    weights = prunable(model, include, exclude)
    check_free(weights)
    held = Constraint(model, optimizer, build_masks(weights, sparsity, mask))
    try:
        yield held
    finally:
        held.release()


def release(model: nn.Module) -> None:
    """Free every weight of ``model``, whoever holds it: after a training that ended in the middle
    of a sparse phase.

    >>> phases = redense.PhaseScheduler(model, optimizer, plan)  # and then an exception
    >>> release(model)
    """
    for weight in model.parameters():
        if holder := _holder(weight):
            holder.constraint.release()


class Constraint:
    """Some weights of a live model held at zero, from construction to `release`.

    What anything but the optimizer writes to a held weight or its gradient is zeroed at the end of
    the step that it was written in, or else before the next. A write in place through ``.data`` or
    numpy, which autograd's version counter does not see, is found at release, with a warning. It
    cannot be copied or pickled: save the scheduler's ``state_dict()``.

    Args:
        masks: one bool tensor per parameter name, True = kept, of the parameter's shape.

    Raises:
        KeyError: a name is no parameter of the model.
        TypeError: a mask is no bool tensor of its weight's shape.
        ValueError: a weight is in no param group of the optimizer, or is already held by another
            constraint.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizers, masks: Mapping[str, Tensor]
    ) -> None:
        self.masks = dict(masks)
        self._model = weakref.ref(model)
        optimizers = optimizers_in(optimizer)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if unknown := [name for name in self.masks if name not in parameters]:
            raise KeyError(
                f"the model has no parameter {unknown[0]!r}; masks are keyed by names of "
                "named_parameters()"
            )
        weights = {name: parameters[name] for name in self.masks}
        _check_holdable(weights, self.masks)
        trainers = optimizers_of(weights, optimizers)
        self._held = [
            _Held(self, name, weight, self.masks[name], trainers[name])
            for name, weight in weights.items()
        ]
        self._of = {
            opt: [held for held in self._held if opt in held.optimizers] for opt in optimizers
        }
        self._stepped = False
        self._task, self._complete = -1, list[_Held]()
        self._handles: list[Any] = []
        self._order: dict[Optimizer, _Order] = {}
        try:
            self._watch(optimizers, wrappers_in(optimizer))
        except Exception:
            self.detach()
            raise
        for held in self._held:
            held.hold()
        for opt in optimizers:
            forget_history(opt, {id(held.weight): held.mask for held in self._held})
        self._states = {
            opt: KnownState(opt, [held.weight for held in helds]) for opt, helds in self._of.items()
        }

    def _watch(self, optimizers: list[Optimizer], wrappers: list[Any]) -> None:
        for held in self._held:
            register: Any = held.weight.register_post_accumulate_grad_hook
            self._handles.append(register(held))
        # by Dynamo, which cannot look into compiled code
        unseen: Callable[[Any], Any] = torch.compiler.disable
        for opt in optimizers:
            before = opt.register_step_pre_hook(unseen(self._before_step))
            after = opt.register_step_post_hook(unseen(self._after_step))
            last = opt.register_step_post_hook(unseen(self._after_others))
            self._handles += [before, after, last]
            self._order[opt] = _Order(opt, before.id, after.id, last.id)
        for wrapper in wrappers:
            self._handles.append(_WrappedStep(wrapper, self._zero_after_wrapper))

    def __str__(self) -> str:
        """A line for each tensor: how many of its weights are held. Of a sharded one, this rank's
        share."""
        lines = [("weight", "shape", "weights", "held", "share")]
        counts = self.counts()
        for name, (pruned, total) in counts.items():
            shape = " x ".join(map(str, self.masks[name].shape))
            share = f"{100 * pruned / max(total, 1):.3g} %"
            lines.append((name, shape, f"{total:,}", f"{pruned:,}", share))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ["  ".join(map(str.ljust, line, widths)).strip() for line in lines]
        state = "are held at zero" if self.active else "were held at zero and are free"
        pruned, total = map(sum, zip(*counts.values(), strict=True)) if counts else (0, 0)
        return "\n".join([*rows, f"{pruned:,} of {total:,} weights {state}"])

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many weights of each tensor are held, and of how many; of a sharded one, of this
        rank's."""
        counts = {}
        for name, mask in self.masks.items():
            kept = shard_of(mask)[0]
            counts[name] = kept.numel() - int(kept.count_nonzero()), kept.numel()
        return counts

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Constraint holds one model and one optimizer and cannot be copied or pickled; save "
            "PhaseScheduler.state_dict() and load it beside the copy"
        )

    @property
    def active(self) -> bool:
        """Whether its hooks still stand: not after `release` or `detach`."""
        return bool(self._handles)

    @property
    def bypassed(self) -> bool:
        """Whether held weights moved though none of the optimizers has stepped: another one trains
        the model."""
        return not self._stepped and any(held.was_written() for held in self._held)

    def apply_to(self, average: nn.Module | Mapping[str, Tensor]) -> None:
        """Zero the held weights in an average of the model, or of a part of it, too: an
        ``AveragedModel``, an EMA, or tensors by parameter name.

        >>> with sparse(model, optimizer, 0.3) as held:
        ...     held.apply_to(torch.optim.swa_utils.AveragedModel(model))
        """
        if isinstance(average, nn.Module):
            average = dict(average.named_parameters(remove_duplicate=False))
        copies = {plain_name(name): weight for name, weight in average.items()}
        masks = {plain_name(name): mask for name, mask in self.masks.items()}
        part = _part_in(masks, copies)
        for name, mask in masks.items():
            if not name.startswith(part):
                continue
            if (inside := name.removeprefix(part)) not in copies:
                raise KeyError(f"the average has no parameter {inside!r}; is it of this model?")
            local = shard_of(copies[inside])[0]
            zero_pruned_(local, shard_of(mask)[0].to(local.device))

    def release(self) -> None:
        """Let the weights go: exactly zero, without momentum, and with no hook left. Twice is the
        same as once."""
        self.detach()
        escaped = [held.name for held in self._held if held.was_written_unseen()]
        gone = self._gone()
        _zero_weights(self._held)
        for held in self._held:
            for opt in held.optimizers:
                release_state(opt, held.weight, held.mask)
        self._held = []
        if gone:
            warnings.warn(
                f"{', '.join(gone)} left the model while it was held: a layer that took its place "
                "was never held, and trained dense; replace layers before a phase begins",
                stacklevel=2,
            )
        if escaped:
            warnings.warn(
                f"held weights of {', '.join(escaped)} were not zero at release: they were written "
                "to through .data or numpy, which autograd does not see; write to the weight "
                "itself under torch.no_grad()",
                stacklevel=2,
            )

    def _gone(self) -> list[str]:
        """Names of held weights that are no longer the model's; of sharded ones, which stand in
        for each other, none."""
        model = self._model()
        if model is None:
            return []
        there = {id(weight) for weight in model.parameters()}
        whole = (held for held in self._held if not is_sharded(held.weight))
        return [held.name for held in whole if id(held.weight) not in there]

    def detach(self) -> None:
        """Remove the hooks and nothing else: what a run does that stops here, to go on from its
        checkpoint."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._complete = [], []

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        # perhaps with the state of another phase, where held weights had momentum
        helds = self._of[optimizer]
        if self._states[optimizer].was_written():
            for held in helds:
                hold_state(optimizer, held.weight, held.mask)
        _zero_written_weights(helds)
        _zero_changed_gradients(helds)
        self._order[optimizer].put_last()
        if type(optimizer) in ELEMENTWISE:
            return _with_closure(args, kwargs, self._zero_after_closure)
        return None

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = True
        undisturbed = self._order[optimizer].was_last()
        exact = undisturbed and type(optimizer) in ELEMENTWISE
        helds = self._of[optimizer]
        rewritten = _zero_changed_gradients(helds)  # inside the step, by a closure
        for held in rewritten if undisturbed else helds:
            hold_state(optimizer, held.weight, held.mask)
        _zero_weights(rewritten if exact else helds)
        for held in helds:
            held.trust_weight()
        self._states[optimizer].trust()

    def _after_others(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Users' own step hooks have run by now."""
        _zero_written_weights(self._of[optimizer])

    def _zero_after_closure(self) -> None:
        _zero_written_weights(self._held)
        _zero_changed_gradients(self._held)

    def _zero_after_wrapper(self) -> None:
        _zero_written_weights(self._held)

    def zero_when_complete(self, held: _Held) -> None:
        """Zero the gradient of ``held`` together with all others when the backward pass that is
        under way has ended."""
        self._complete.append(held)
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            Variable._execution_engine.queue_callback(self._zero_complete)

    def _zero_complete(self) -> None:
        complete, self._complete = self._complete, []
        _zero_gradients(complete)


def check_free(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that another constraint holds."""
    for name, weight in weights.items():
        if _holder(weight):
            raise ValueError(
                f"{name} is already held by another constraint; release that one first, or "
                "whatever holds the model with redense.release(model)"
            )


def _check_holdable(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    check_free(weights)
    taken: set[int] = set()
    for name, weight in weights.items():
        mask = masks[name]
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise TypeError(
                f"{name}: a mask must be a bool tensor of the weight's shape "
                f"{tuple(weight.shape)}, got {mask.dtype} {tuple(mask.shape)}"
            )
        if id(weight) in taken:
            raise ValueError(
                f"{name} is tied to another weight of these masks; give one mask for both"
            )
        if weight.grad is not None and weight.grad.is_sparse:
            raise NotImplementedError(
                f"{name} has a sparse gradient; build its layer with sparse=False"
            )
        taken.add(id(weight))


def _holder(weight: Tensor) -> _Held | None:
    hooks = getattr(weight, "_post_accumulate_grad_hooks", None) or {}
    return next((hook for hook in hooks.values() if isinstance(hook, _Held)), None)


class _Order:
    """Our step hooks among those of others: right before and right after the step, and last of
    all."""

    def __init__(self, optimizer: Optimizer, before: int, after: int, last: int) -> None:
        # torch keeps hooks in the order of their calls, though it types them as a dict
        self._pre = cast("OrderedDict[int, Any]", optimizer._optimizer_step_pre_hooks)
        self._post = cast("OrderedDict[int, Any]", optimizer._optimizer_step_post_hooks)
        self._before, self._last = before, last
        self._post.move_to_end(after, last=False)

    def put_last(self) -> None:
        """Before a step: behind hooks that were registered since the last one."""
        self._post.move_to_end(self._last)

    def was_last(self) -> bool:
        """After a step: whether nobody's hook ran between ours and the step. From now on none
        does."""
        undisturbed: bool = next(reversed(self._pre)) == self._before
        self._pre.move_to_end(self._before)
        return undisturbed


class _WrappedStep:
    """The step of a wrapper that torch calls no hooks for, with a call after it; a handle, as hooks
    have one."""

    def __init__(self, wrapper: Any, after: Callable[[], None]) -> None:
        inner = wrapper.step

        @functools.wraps(inner)  # with the marks that torch's schedules leave there
        def step(*args: Any, **kwargs: Any) -> Any:
            loss = inner(*args, **kwargs)
            if not self._removed:
                after()
            return loss

        self._wrapper, self._step, self._removed = wrapper, step, False
        self._before = vars(wrapper).get("step")
        wrapper.step = step

    def remove(self) -> None:
        self._removed = True
        if vars(self._wrapper).get("step") is not self._step:
            return  # somebody has wrapped it once more
        if self._before is None:
            del self._wrapper.step
        else:
            self._wrapper.step = self._before


def _with_closure(args: Any, kwargs: Any, after: Callable[[], None]) -> Any:
    """A step's arguments with ``after`` called after its closure, or None if it has none."""
    given = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(given):
        return None

    def closure() -> Any:
        loss = given()
        after()
        return loss

    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def _part_in(names: Iterable[str], copies: Container[str]) -> str:
    """What to take off the names to have those of ``copies``: "net." if it is a copy of
    ``model.net``, nothing if it is one of the whole model."""
    for name in names:
        steps = name.split(".")
        for cut in range(len(steps)):
            if ".".join(steps[cut:]) in copies:
                return "".join(f"{step}." for step in steps[:cut])
    return ""


def _zero_weights(helds: Iterable[_Held]) -> None:
    zero_all_pruned_((held.of_this_rank(held.weight), held.kept) for held in helds)


def _zero_written_weights(helds: Iterable[_Held]) -> None:
    written = [held for held in helds if held.was_written()]
    _zero_weights(written)
    for held in written:
        held.trust_weight()


def _zero_gradients(helds: Iterable[_Held]) -> None:
    pairs = [(held, held.weight.grad) for held in helds]
    given = [(held, _dense(gradient)) for held, gradient in pairs if gradient is not None]
    zero_all_pruned_((held.of_this_rank(gradient), held.kept) for held, gradient in given)
    for held, gradient in given:
        held.trust_gradient(gradient)


def _zero_changed_gradients(helds: Iterable[_Held]) -> list[_Held]:
    """Those whose gradient was set or written to since it was zeroed (clipped, averaged,
    noised)."""
    changed = [held for held in helds if held.gradient_was_changed()]
    _zero_gradients(changed)
    return changed


def _at_once(gradient: Tensor) -> bool:
    """Whether gradients wait for each other, to be zeroed by a few launches. Not where ranks
    exchange them: DDP and FSDP read them before the backward pass ends."""
    return gradient.is_cuda and not (dist.is_available() and dist.is_initialized())


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        raise NotImplementedError(
            "a held weight got a sparse gradient; build its layer with sparse=False"
        )
    return gradient


class _Held(Watch):
    """One weight and its mask; called as the weight's gradient hook."""

    def __init__(
        self,
        constraint: Constraint,
        name: str,
        weight: Tensor,
        mask: Tensor,
        optimizers: list[Optimizer],
    ) -> None:
        super().__init__(weight, Kept(shard_of(mask)[0]))
        self.constraint, self.name = constraint, name
        self.mask, self.optimizers = mask, optimizers
        self._distributed = is_sharded(weight)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.constraint.__reduce_ex__(protocol)

    def zero_gradient(self, gradient: Tensor) -> None:
        if _at_once(gradient):
            self.constraint.zero_when_complete(self)
            return
        _dense(gradient)
        self.kept.zero_(shard_of(gradient)[0] if self._distributed else gradient)
        self.trust_gradient(gradient)

    def hold(self) -> None:
        _zero_weights([self])
        for optimizer in self.optimizers:
            hold_state(optimizer, self.weight, self.mask)
        _zero_gradients([self])
        self.trust_weight()

    def of_this_rank(self, tensor: Tensor) -> Tensor:
        """This rank's part of the weight or of its gradient."""
        return shard_of(tensor)[0] if self._distributed else tensor

    def was_written_unseen(self) -> bool:
        """Whether a held weight is not zero though nobody is seen to have written to it."""
        if self.was_written():
            return False
        local = shard_of(self.weight)[0].detach()
        return bool(local[~self.kept.mask].any())
