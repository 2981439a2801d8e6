"""One training step in a sparse phase, as a ratio to the dense step of the same model in the same
minutes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

import redense

from .contenders import CONTENDERS, dense
from .measure import machine, seconds, spread
from .workloads import OPTIMIZERS, WORKLOADS, asked_for

SPARSITY = 0.3


def steps(
    workload: str,
    optimizer: str,
    rounds: int,
    names: Sequence[str] = tuple(CONTENDERS),
    device: str = "cpu",
) -> dict[str, Any]:
    """Seconds a step of each contender, all on one model, by turns.

    Each turn is a step that is not timed and then one that is, as all but the first of a phase are.
    Before every two peers the dense step and ours have a turn, so that a machine that slows down
    for a while slows all, and what differs by a hundredth is timed most. A ratio is the median over
    rounds of a contender's median step of a round over the dense one of the same round.
    """
    torch.manual_seed(0)
    model, inputs, targets = (part.to(device) for part in WORKLOADS[workload]())
    trainer = OPTIMIZERS[optimizer](model)
    masks = redense.build_masks(redense.prunable(model), SPARSITY)
    often = [name for name in ("dense", "redense") if name in names]
    peers = [name for name in names if name not in often]
    pairs = [peers[first : first + 2] for first in range(0, len(peers), 2)] or [[]]
    turns = [*chain.from_iterable((*often, *pair) for pair in pairs)]
    samples: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first one warms up
        for name in names:
            samples[name].append([])
        for name in turns:
            with CONTENDERS.get(name, dense)(model, trainer, masks) as step:

                def once(step: Any = step) -> None:
                    trainer.zero_grad()
                    nn.functional.cross_entropy(model(inputs), targets).backward()
                    step()

                once()
                samples[name][-1].append(seconds(once, device))
            trainer.zero_grad()
        if number < 0:
            samples = {name: [] for name in names}
    bases = [statistics.median(found) for found in samples["dense"]]
    rows = {}
    for name, found in samples.items():
        ratios = [statistics.median(taken) / base for taken, base in zip(found, bases, strict=True)]
        rows[name] = {
            "seconds": spread([second for taken in found for second in taken]),
            "ratio": spread(ratios),
        }
    return {
        "workload": workload,
        "optimizer": optimizer,
        "threads": torch.get_num_threads(),
        "weights": sum(weight.numel() for weight in model.parameters()),
        "held": sum(mask.numel() for mask in masks.values()),
        "sparsity": SPARSITY,
        "contenders": rows,
        "machine": machine(),
    }


if __name__ == "__main__":
    chosen = asked_for(__doc__)
    print(json.dumps(steps(chosen.workload, chosen.optimizer, chosen.rounds)))
