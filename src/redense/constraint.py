"""Hold chosen weights of a live model at exactly zero, and let them go again.

The model is never changed: no wrapper, no new key, the same `Parameter` objects. A hook on each
weight masks its gradient the moment it is complete, so clipping, logging and the optimizer see
zeros. Most optimizers then leave a zero weight at zero by themselves; for the others, such as Muon,
the weight is zeroed again after each step.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .masks import MaskFunction, build_masks
from .optimizers import (
    ELEMENTWISE,
    Optimizers,
    forget_history,
    hold_state,
    release_state,
    trainers_of,
    unwrap,
)
from .plan import check_sparsity
from .prunable import Patterns, prunable
from .tensors.sharded import is_sharded, shard_of
from .tensors.zeroing import zero_pruned_


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
    """Hold a share of each prunable tensor at zero inside the block; after it they are free again,
    from zero.

    Args:
        model: any module; see `prunable` for what is held by default and for ``include`` and
            ``exclude``. optimizer: the one that trains it, or several that share its weights (Muon
            and AdamW, say). sparsity: share of each tensor, in [0, 1).
        mask: ``magnitude``, ``random``, ``global`` or a function ``(weight, sparsity) -> bool
            mask``, True = kept.

    >>> with sparse(model, optimizer, 0.3) as held:
    ...     train(epochs=20)
    >>> held.masks["layer1.weight"].float().mean()
    tensor(0.7000)
    """
    check_sparsity(sparsity)
    held = Constraint(
        model, optimizer, build_masks(prunable(model, include, exclude), sparsity, mask)
    )
    try:
        yield held
    finally:
        held.release()


class Constraint:
    """Some weights of a live model held at zero, from construction to `release`.

    What anything but the optimizer writes to a held weight or its gradient is zeroed at the next
    step. Only a write in place through ``.data`` or numpy escapes, since autograd's version counter
    does not see it.

    Args:
        masks: a bool tensor a parameter name, True = kept, of the parameter's shape.

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
        self._optimizers = unwrap(optimizer)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if unknown := [name for name in self.masks if name not in parameters]:
            raise KeyError(
                f"the model has no parameter {unknown[0]!r}; masks are keyed by names of "
                "named_parameters()"
            )
        trainers = trainers_of({name: parameters[name] for name in self.masks}, self._optimizers)
        self._held: list[_Held] = []
        for name, mask in self.masks.items():
            weight = parameters[name]
            if mask.dtype != torch.bool or mask.shape != weight.shape:
                raise TypeError(
                    f"{name}: a mask must be a bool tensor of the weight's shape "
                    f"{tuple(weight.shape)}, "
                    f"got {mask.dtype} {tuple(mask.shape)}"
                )
            hooks = getattr(weight, "_post_accumulate_grad_hooks", None) or {}
            if any(isinstance(hook, _Held) for hook in hooks.values()):
                raise ValueError(
                    f"{name} is already held by another constraint; release that one first"
                )
            if any(held.weight is weight for held in self._held):
                raise ValueError(
                    f"{name} is tied to another weight of these masks; give one mask for both"
                )
            self._held.append(_Held(weight, mask, trainers[name]))
        self._loaded: set[Optimizer] = set()
        self._handles: list[Any] = []
        for held in self._held:
            held.hold()
            self._handles.append(held.weight.register_post_accumulate_grad_hook(held))  # type: ignore[no-untyped-call]
        for opt in self._optimizers:
            forget_history(opt, {id(held.weight): held.mask for held in self._held})
            self._handles.append(opt.register_step_pre_hook(self._before_step))
            self._handles.append(opt.register_step_post_hook(self._after_step))
            self._handles.append(opt.register_load_state_dict_post_hook(self._after_load))

    def release(self) -> None:
        """Let the weights go: exactly zero, without momentum, and with no hook left. Twice is the
        same as once."""
        self.detach()
        for held in self._held:
            held.zero_weight()
            for opt in held.optimizers:
                release_state(opt, held.weight, held.mask)
        self._held = []

    def detach(self) -> None:
        """Remove the hooks and nothing else: what a run does that stops here, to go on from its
        checkpoint."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        loaded = optimizer in self._loaded
        self._loaded.discard(optimizer)
        for held in self._held:
            if optimizer in held.optimizers:
                if loaded:  # perhaps in another phase, where held weights had momentum
                    hold_state(optimizer, held.weight, held.mask)
                held.zero_written_weight()
                held.zero_changed_gradient()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        exact = type(optimizer) in ELEMENTWISE
        for held in self._held:
            if optimizer in held.optimizers:
                if held.zero_changed_gradient():  # written inside the step, by a closure
                    hold_state(optimizer, held.weight, held.mask)
                    held.zero_weight()
                elif not exact:
                    held.zero_weight()
                held.trust()

    def _after_load(self, optimizer: Optimizer) -> None:
        self._loaded.add(optimizer)


class _Held:
    """One weight and its mask; called as the weight's gradient hook."""

    def __init__(self, weight: Tensor, mask: Tensor, optimizers: list[Optimizer]) -> None:
        self.weight, self.mask, self.optimizers = weight, mask, optimizers
        self._kept = shard_of(mask)[0]
        self._distributed = is_sharded(weight)
        self._masked: tuple[weakref.ref[Tensor], int] | None = None
        self._seen = (-1, 0)

    def __call__(self, weight: Tensor) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        if gradient.is_sparse:
            raise NotImplementedError(
                "a held weight got a sparse gradient; build its layer with sparse=False"
            )
        self._zero(gradient)
        self._masked = (weakref.ref(gradient), gradient._version)

    def hold(self) -> None:
        self.zero_weight()
        for optimizer in self.optimizers:
            hold_state(optimizer, self.weight, self.mask)
        self(self.weight)
        self.trust()

    def zero_weight(self) -> None:
        self._zero(self.weight)

    def zero_written_weight(self) -> None:
        """Zero the weight if anything but the optimizer has written to it: a checkpoint, an
        average, a clamp."""
        if (self.weight._version, self.weight.data_ptr()) != self._seen:
            self.zero_weight()

    def zero_changed_gradient(self) -> bool:
        """Zero the gradient if it was set or written to since the hook saw it (clipped, averaged,
        noised)."""
        gradient = self.weight.grad
        if gradient is None:
            return False
        if (
            self._masked is not None
            and self._masked[0]() is gradient
            and self._masked[1] == gradient._version
        ):
            return False
        self(self.weight)
        return True

    def trust(self) -> None:
        self._seen = (self.weight._version, self.weight.data_ptr())
        gradient = self.weight.grad
        self._masked = None if gradient is None else (weakref.ref(gradient), gradient._version)

    def _zero(self, tensor: Tensor) -> None:
        zero_pruned_(shard_of(tensor)[0] if self._distributed else tensor, self._kept)
