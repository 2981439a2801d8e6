"""Choosing masks: time and memory, layerwise and global, against torch.nn.utils.prune and against a
read of memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import redense

from .measure import available, machine, peak, resident, seconds, spread
from .workloads import WORKLOADS

SPARSITY = 0.3


def choose(workload: str, rounds: int, slow_rounds: int) -> dict[str, Any]:
    """Seconds and bytes at peak to choose all masks of a model's matrices, 30 % of each or of
    all."""
    torch.manual_seed(0)
    model = WORKLOADS[workload]().model
    places = [
        (module, "weight")
        for module in model.modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim > 1
    ]
    weights = {str(number): module.weight for number, (module, _) in enumerate(places)}
    total = sum(weight.numel() for weight in weights.values())
    before = [weight.detach().clone() for weight in weights.values()]

    def restored() -> None:
        for module, leaf in places:
            if prune.is_pruned(module):
                prune.remove(module, leaf)
        with torch.no_grad():
            for (module, _), value in zip(places, before, strict=True):
                module.weight.copy_(value)

    def layerwise_prune() -> None:
        for module, leaf in places:
            prune.l1_unstructured(module, leaf, SPARSITY)

    def global_prune() -> None:
        prune.global_unstructured(places, prune.L1Unstructured, amount=SPARSITY)

    fast: dict[str, Callable[[], Any]] = {
        "w.sum(), one read": lambda: [weight.detach().sum() for weight in weights.values()],
        "w.abs().sum(), one read and a copy": lambda: [
            weight.detach().abs().sum() for weight in weights.values()
        ],
        "a new byte a weight, written": lambda: [
            torch.ones(w.shape, dtype=torch.uint8) for w in weights.values()
        ],
        "redense layerwise": lambda: redense.build_masks(weights, SPARSITY),
        "redense global": lambda: redense.build_masks(weights, SPARSITY, "global"),
        "redense random": lambda: redense.build_masks(weights, SPARSITY, "random"),
    }
    rows: dict[str, Any] = {}
    samples: dict[str, list[float]] = {name: [] for name in fast}
    for number in range(-1, rounds):
        for name, function in fast.items():
            taken = seconds(function)
            if number >= 0:
                samples[name].append(taken)
    for name, function in fast.items():
        kept, grown = peak(function)
        rows[name] = {"seconds": spread(samples[name]), "peak_bytes_a_weight": grown / total}
        del kept
    for name, function in (
        ("torch l1_unstructured", layerwise_prune),
        ("torch global_unstructured", global_prune),
    ):
        taken, grown = [], []
        for _ in range(slow_rounds):
            one, most = peak(lambda function=function: seconds(function))
            taken.append(one)
            grown.append(most / total)
            restored()
        rows[name] = {"seconds": spread(taken), "peak_bytes_a_weight": max(grown)}
    return {
        "workload": workload,
        "tensors": len(weights),
        "weights": total,
        "sparsity": SPARSITY,
        "threads": torch.get_num_threads(),
        "rows": rows,
        "machine": machine(),
    }


def grow(sizes: list[int], rounds: int) -> dict[str, Any]:
    """Seconds and bytes at peak for one tensor of each size, as far as memory allows."""
    points = []
    for size in sizes:
        if 7 * size > available():
            points.append(
                {"weights": size, "not_run": f"needs {7 * size:,} bytes, {available():,} are free"}
            )
            continue
        weight = torch.empty(size).normal_(std=0.02)
        many = max(3, min(rounds, 4_000_000_000 // size))
        redense.magnitude_mask(weight, SPARSITY)
        read, chosen = [], []
        for _ in range(many):
            read.append(seconds(weight.sum))
            chosen.append(seconds(lambda weight=weight: redense.magnitude_mask(weight, SPARSITY)))
        mask, grown = peak(lambda weight=weight: redense.magnitude_mask(weight, SPARSITY))
        zeros = size - int(torch.count_nonzero(mask))
        points.append(
            {
                "weights": size,
                "read": spread(read),
                "seconds": spread(chosen),
                "peak_bytes_a_weight": grown / size,
                "exact": zeros == round(SPARSITY * size),
            }
        )
        del weight, mask
    return {
        "sparsity": SPARSITY,
        "threads": torch.get_num_threads(),
        "points": points,
        "machine": machine(),
    }


def hold(workload: str) -> dict[str, Any]:
    """Bytes a held weight over the dense model: while masks are built and taken up, held, and after
    the release."""
    torch.manual_seed(0)
    model, inputs, targets = WORKLOADS[workload]()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    step()
    step()
    weights = redense.prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    start = resident()

    def build() -> redense.Constraint:
        return redense.Constraint(model, optimizer, redense.build_masks(weights, SPARSITY))

    held, building = peak(build)
    masks = sum(_bytes(mask) for mask in held.masks.values())
    _, training = peak(step)
    sparse = resident()
    held.release()
    del held
    dense = resident()
    hooks = sum(len(weight._post_accumulate_grad_hooks or ()) for weight in weights.values())
    return {
        "workload": workload,
        "held": total,
        "peak_building": building / total,
        "masks": masks / total,
        "grown_held": (sparse - start) / total,
        "grown_released": (dense - start) / total,
        "peak_of_a_sparse_step": training / total,
        "hooks_after_release": hooks,
        "machine": machine(),
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("choose", "grow", "hold"))
    parser.add_argument("--workload", choices=WORKLOADS, default="VGG-16, batch 4 at 64 px")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--slow-rounds", type=int, default=3, help="of torch.nn.utils.prune, half a minute each"
    )
    parser.add_argument("--sizes", type=lambda text: [int(float(size)) for size in text.split(",")])
    chosen = parser.parse_args()
    if chosen.what == "choose":
        print(json.dumps(choose(chosen.workload, chosen.rounds, chosen.slow_rounds)))
    elif chosen.what == "grow":
        print(json.dumps(grow(chosen.sizes, chosen.rounds)))
    else:
        print(json.dumps(hold(chosen.workload)))
