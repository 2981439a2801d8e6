"""Hold chosen weights of a live model at exactly zero, and let them go again.

The model is never changed: no wrapper, no new key, the same `Parameter` objects. A hook on each weight masks its
gradient the moment it is complete, so clipping, logging and the optimizer see zeros. Most optimizers then leave a zero
weight at zero by themselves; for the others, such as Muon, the weight is zeroed again after each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .masks import MaskFunction, build_masks
from .plan import check_sparsity
from .prunable import Patterns, prunable
from .selection import shard_of
from .state import ELEMENTWISE, forget_history, hold_state, release_state

Optimizers = Optimizer | Iterable[Optimizer]

_CHUNK = 1 << 18  # four-byte elements: half of a common 2 MB cache
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def sparse(
    model: nn.Module,
    optimizer: Optimizers,
    sparsity: float,
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    mask: str | MaskFunction = "magnitude",
) -> Iterator[Constraint]:
    """Hold a share of each prunable tensor at zero inside the block; after it they are free again, from zero.

    Args:
        model: any module; see `prunable` for what is held by default and for ``include`` and ``exclude``.
        optimizer: the one that trains it, or several that share its weights (Muon and AdamW, say).
        sparsity: share of each tensor, in [0, 1).
        mask: ``magnitude``, ``random``, ``global`` or a function ``(weight, sparsity) -> bool mask``, True = kept.

    >>> with sparse(model, optimizer, 0.3) as held:
    ...     train(epochs=20)
    >>> held.masks["layer1.weight"].float().mean()
    tensor(0.7000)
    """
    check_sparsity(sparsity)
    held = Constraint(model, optimizer, build_masks(prunable(model, include, exclude), sparsity, mask))
    try:
        yield held
    finally:
        held.release()


class Constraint:
    """Some weights of a live model held at zero, from construction to `release`.

    Args:
        masks: a bool tensor a parameter name, True = kept, of the parameter's shape.

    Raises:
        KeyError: a name is no parameter of the model.
        ValueError: a weight is in no param group of the optimizer, or is already held by another constraint.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizers, masks: Mapping[str, Tensor]) -> None:
        self.masks = dict(masks)
        self._optimizers = unwrap(optimizer)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        trained = {id(p): opt for opt in self._optimizers for group in opt.param_groups for p in group["params"]}
        self._held: list[_Held] = []
        buffers: dict[torch.dtype, Tensor] = {}
        for name, mask in self.masks.items():
            if name not in parameters:
                raise KeyError(f"the model has no parameter {name!r}; masks are keyed by names of named_parameters()")
            weight = parameters[name]
            if id(weight) not in trained:
                raise ValueError(
                    f"{name} is in no param group of the optimizer, so it could not grow back after release; "
                    f"add it to the optimizer or pass exclude={name!r}"
                )
            hooks = getattr(weight, "_post_accumulate_grad_hooks", None) or {}
            if any(isinstance(hook, _Held) for hook in hooks.values()):
                raise ValueError(f"{name} is already held by another constraint; release that one first")
            self._held.append(_Held(weight, mask, trained[id(weight)], buffers))
        self._handles: list[Any] = []
        for held in self._held:
            held.hold()
            self._handles.append(held.weight.register_post_accumulate_grad_hook(held))  # type: ignore[no-untyped-call]
        for opt in self._optimizers:
            forget_history(opt, {id(held.weight): held.mask for held in self._held})
            self._handles.append(opt.register_step_pre_hook(self._before_step))
            self._handles.append(opt.register_step_post_hook(self._after_step))

    def release(self) -> None:
        """Let the weights go: exactly zero, without momentum, and with no hook left. Twice is the same as once."""
        self.detach()
        for held in self._held:
            held.zero_weight()
            release_state(held.optimizer, held.weight, held.mask)
        self._held = []

    def detach(self) -> None:
        """Remove the hooks and nothing else: what a run does that stops here, to go on from its checkpoint."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for held in self._held:
            if held.optimizer is optimizer:
                held.zero_written_weight()
                held.zero_changed_gradient()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        exact = type(optimizer) in ELEMENTWISE
        for held in self._held:
            if held.optimizer is optimizer:
                if held.zero_changed_gradient():  # written inside the step, by a closure
                    hold_state(optimizer, held.weight, held.mask)
                    held.zero_weight()
                elif not exact:
                    held.zero_weight()
                held.trust()


class _Held:
    """One weight and its mask; called as the weight's gradient hook."""

    def __init__(self, weight: Tensor, mask: Tensor, optimizer: Optimizer, buffers: dict[torch.dtype, Tensor]) -> None:
        self.weight, self.mask, self.optimizer = weight, mask, optimizer
        self._kept = shard_of(mask)[0]
        self._buffers = buffers
        self._masked: tuple[int, int] | None = None
        self._version = -1

    def __call__(self, weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        if gradient.is_sparse:
            raise NotImplementedError("a held weight got a sparse gradient; build its layer with sparse=False")
        self._zero(gradient)
        self._masked = (id(gradient), gradient._version)

    def hold(self) -> None:
        self.zero_weight()
        hold_state(self.optimizer, self.weight, self.mask)
        self(self.weight)
        self.trust()

    def zero_weight(self) -> None:
        self._zero(self.weight)

    def zero_written_weight(self) -> None:
        """Zero the weight if anything but the optimizer has written to it: a checkpoint, an average, a clamp."""
        if self.weight._version != self._version:
            self.zero_weight()

    def zero_changed_gradient(self) -> bool:
        """Zero the gradient if it was set or written to since the hook saw it (clipped, averaged, noised)."""
        gradient = self.weight.grad
        if gradient is None or (id(gradient), gradient._version) == self._masked:
            return False
        self(self.weight)
        return True

    def trust(self) -> None:
        self._version = self.weight._version
        gradient = self.weight.grad
        self._masked = None if gradient is None else (id(gradient), gradient._version)

    def _zero(self, tensor: Tensor) -> None:
        zero_pruned_(shard_of(tensor)[0], self._kept, self._buffers)


@torch.no_grad()
def zero_pruned_(tensor: Tensor, mask: Tensor, buffers: dict[torch.dtype, Tensor] | None = None) -> Tensor:
    """Set ``tensor`` to exactly +0.0 where ``mask`` is False, in place; NaN and infinities too.

    Multiplies the bits, as integers, by 0 or 1. On a CPU torch multiplies by a bool about ten times slower than by its
    own type, so the mask is widened a cache-sized chunk at a time; ``buffers`` keeps that chunk between calls.
    """
    integer = _INTEGER[tensor.element_size()]
    if tensor.device.type != "cpu":
        tensor.view(integer).mul_(mask)
        return tensor
    flat = _in_memory_order(tensor, mask)
    if flat is None:
        return tensor.masked_fill_(~mask, 0)
    bits, flags = flat[0].view(integer), flat[1].view(torch.int8)
    numel = bits.numel()
    buffers = {} if buffers is None else buffers
    buffer = buffers.get(integer)
    if buffer is None or buffer.numel() < min(numel, _CHUNK):
        buffer = buffers[integer] = torch.empty(min(numel, _CHUNK), dtype=integer)
    for start in range(0, numel, _CHUNK):
        stop = min(start + _CHUNK, numel)
        bits[start:stop].mul_(buffer[: stop - start].copy_(flags[start:stop]))
    return tensor


def _in_memory_order(tensor: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Flat views of both in the order they lie in memory, if that is the same for both and has no gaps."""
    if tensor.is_contiguous() and mask.is_contiguous():
        return tensor.view(-1), mask.view(-1)
    if tensor.stride() != mask.stride() or tensor.stride() != torch.empty_like(tensor, device="meta").stride():
        return None
    size = (tensor.numel(),)  # channels_last
    return tensor.as_strided(size, (1,)), mask.as_strided(size, (1,))


def unwrap(optimizer: Optimizers) -> list[Optimizer]:
    """The torch optimizers inside: of a list, and of wrappers such as Accelerate's, whose own have no hooks."""
    listed = [optimizer] if isinstance(optimizer, Optimizer) or not isinstance(optimizer, Iterable) else list(optimizer)
    found = []
    for opt in listed:
        while isinstance(inner := getattr(opt, "optimizer", None), Optimizer):
            opt = inner
        if not isinstance(opt, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer or several, got {type(opt).__name__}")
        found.append(opt)
    if not found:
        raise ValueError("optimizer must be one or more torch optimizers, got an empty list")
    return found
