"""Shrink and perturb: how to start from a trained network without its habits."""

from __future__ import annotations

import copy

import torch
from torch import nn


def shrink_and_perturb(model: nn.Module, keep: float, seed: int) -> None:
    """Make each parameter ``keep`` of itself and the rest of a fresh initial value.

    With 0.4 a weight of 0.5, which would begin at 0.1, becomes 0.4 x 0.5 + 0.6 x 0.1 = 0.26. Ash
    and Adams, On Warm-Starting Neural Network Training, 2020 (arXiv 1910.08475), with one number
    for their two. Buffers such as batch-norm's statistics stay; the random generators are left as
    they were.

    Raises:
        ValueError: a module holds parameters and has no ``reset_parameters()``.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            _reset(name, module)
    with torch.no_grad():
        for weight, initial in zip(model.parameters(), fresh.parameters(), strict=True):
            weight.mul_(keep).add_(initial, alpha=1 - keep)


def _reset(name: str, module: nn.Module) -> None:
    if next(module.parameters(recurse=False), None) is None:
        return
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None:  # the second is torch's MultiheadAttention's
        raise ValueError(
            f"shrink-and-perturb needs fresh initial values, and {name or 'the model'} "
            f"({type(module).__name__}) has no reset_parameters(); give it one, or leave this "
            "method out"
        )
    reset()
