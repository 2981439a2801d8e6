"""All hooks of a sparse step together, against an in-place ``neg_`` of the same gradients: both
timed where they run, inside the step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import redense

from .measure import machine, seconds, spread
from .workloads import OPTIMIZERS, WORKLOADS, asked_for

SPARSITY = 0.3


class Clock:
    """Adds up the time inside the functions that it wraps."""

    def __init__(self) -> None:
        self.taken, self.calls = 0.0, 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, with its time counted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.taken += time.perf_counter() - start
                self.calls += 1

        return timed

    def read(self) -> tuple[float, int]:
        """Seconds and calls since the last time."""
        found, self.taken, self.calls = (self.taken, self.calls), 0.0, 0
        return found


@contextmanager
def ours(
    model: nn.Module, optimizer: torch.optim.Optimizer, masks: dict[str, Tensor], clock: Clock
) -> Iterator[None]:
    """`redense.Constraint`, each of its hooks on the clock."""
    held = redense.Constraint(model, optimizer, masks)
    weights = [model.get_parameter(name) for name in masks]
    gradients: Any = [weight._post_accumulate_grad_hooks for weight in weights]
    steps: Any = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    own = {handle.id for handle in held._handles}
    for hooks in (*gradients, *steps):
        for number in own & hooks.keys():
            hooks[number] = clock.around(hooks[number])
    try:
        yield
    finally:
        held.detach()


@contextmanager
def negated(
    model: nn.Module, optimizer: torch.optim.Optimizer, masks: dict[str, Tensor], clock: Clock
) -> Iterator[None]:
    """A hook on each of the same weights that changes its gradient's sign, in place."""

    def negate(weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad.neg_()

    handles = [
        model.get_parameter(name).register_post_accumulate_grad_hook(clock.around(negate))
        for name in masks
    ]
    yield
    for handle in handles:
        handle.remove()


CONTENDERS = {"neg_": negated, "redense": ours}


def hooks(workload: str, optimizer: str, rounds: int, steps: int = 3) -> dict[str, Any]:
    """Seconds inside the hooks, a step, by turns on one model; the ratio is the median over rounds
    of ours over ``neg_`` of the same round."""
    torch.manual_seed(0)
    model, inputs, targets = WORKLOADS[workload]()
    trainer = OPTIMIZERS[optimizer](model)
    masks = redense.build_masks(redense.prunable(model), SPARSITY)
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    calls: dict[str, int] = {}
    whole: list[float] = []

    def step() -> None:
        trainer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        trainer.step()

    for number in range(-1, rounds):  # the first one warms up
        for name, contender in CONTENDERS.items():
            clock = Clock()
            with contender(model, trainer, masks, clock):
                step()
                clock.read()
                whole_step = [seconds(step) for _ in range(steps)]
                inside, called = clock.read()
            trainer.zero_grad()
            calls[name] = called // steps
            if number >= 0:
                taken[name].append(inside / steps)
                whole += whole_step
    ratios = [mine / other for mine, other in zip(taken["redense"], taken["neg_"], strict=True)]
    return {
        "workload": workload,
        "optimizer": optimizer,
        "threads": torch.get_num_threads(),
        "tensors": len(masks),
        "held": sum(mask.numel() for mask in masks.values()),
        "seconds": {name: spread(found) for name, found in taken.items()},
        "calls": calls,
        "ratio": spread(ratios),
        "step": spread(whole),
        "machine": machine(),
    }


if __name__ == "__main__":
    chosen = asked_for(__doc__)
    print(json.dumps(hooks(chosen.workload, chosen.optimizer, chosen.rounds)))
