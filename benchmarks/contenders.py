"""Ways to train under a fixed mask: ours and its peers, each entered and left on a live model.

A contender is a context manager ``(model, optimizer, masks) -> step``; ``step()`` stands where
``optimizer.step()`` would. Peers are called as their own documentation does; a loop that is no
package is written out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.ao.pruning.sparsifier.utils import FakeSparsity
from torch.nn.utils import parametrize, prune
from torch.optim import Optimizer

import redense
from redense.tensors import zeroing

Step = Callable[[], object]
Contender = Callable[[nn.Module, Optimizer, Mapping[str, Tensor]], AbstractContextManager[Step]]


@contextmanager
def dense(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> Iterator[Step]:
    """No mask at all."""
    yield optimizer.step


@contextmanager
def ours(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> Iterator[Step]:
    """`redense.Constraint`, a sparse phase."""
    held = redense.Constraint(model, optimizer, masks)
    yield optimizer.step
    held.detach()


@contextmanager
def ours_plain(
    model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]
) -> Iterator[Step]:
    """The same where no kernel was compiled at installation: torch's operations alone."""
    kernel, zeroing.kernel = zeroing.kernel, None
    try:
        with ours(model, optimizer, masks) as step:
            yield step
    finally:
        zeroing.kernel = kernel


@contextmanager
def torch_prune(
    model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]
) -> Iterator[Step]:
    """torch.nn.utils.prune, as most people and Lightning use it."""
    places = [_place(model, name) for name in masks]
    for (module, leaf), mask in zip(places, masks.values(), strict=True):
        prune.custom_from_mask(module, leaf, mask)
    yield optimizer.step
    for module, leaf in places:
        prune.remove(module, leaf)


@contextmanager
def torch_ao_pruning(
    model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]
) -> Iterator[Step]:
    """torch.ao.pruning: the parametrization that its sparsifiers install; they know linear layers
    only."""
    places = [_place(model, name) for name in masks]
    for (module, leaf), mask in zip(places, masks.values(), strict=True):
        parametrize.register_parametrization(module, leaf, FakeSparsity(mask.float()))
    yield optimizer.step
    for module, leaf in places:
        parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)


def _around_the_step(dtype: torch.dtype) -> Contender:
    @contextmanager
    def contender(
        model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]
    ) -> Iterator[Step]:
        pairs = [(model.get_parameter(name), mask.to(dtype)) for name, mask in masks.items()]

        @torch.no_grad()
        def step() -> None:
            for weight, mask in pairs:
                weight.grad.mul_(mask)
            optimizer.step()
            for weight, mask in pairs:
                weight.mul_(mask)

        yield step

    return contender


asp = _around_the_step(torch.bool)
"""apex ASP's optimizer step: gradients, step, weights, with its bool masks."""

asp_float = _around_the_step(torch.float32)
"""The same with four bytes a mask element, which a CPU multiplies ten times faster."""

CONTENDERS: dict[str, Contender] = {
    "dense": dense,
    "redense": ours,
    "redense, plain torch": ours_plain,
    "torch.nn.utils.prune": torch_prune,
    "torch.ao.pruning": torch_ao_pruning,
    "ASP loop, bool masks": asp,
    "ASP loop, float masks": asp_float,
}


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf
