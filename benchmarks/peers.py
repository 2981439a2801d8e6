"""Peers that need packages of their own: fasterai, NNCF and torchao's PAT, on the same step and the
same masks.

Run with the Python of an environment that has them: ``python -m benchmarks --peers
/tmp/venv-peers/bin/python``. A peer that can't run is a line that says why.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import redense

from .contenders import CONTENDERS, Step
from .measure import machine, seconds, spread
from .steps import SPARSITY
from .workloads import OPTIMIZERS, WORKLOADS


@contextmanager
def fasterai(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> Iterator[Step]:
    """fasterai's Sparsifier: weights are multiplied by float masks after each step, gradients are
    left dense."""
    from fasterai.core.criteria import large_final
    from fasterai.sparse.sparsifier import Sparsifier

    sparsifier = Sparsifier(
        model, "weight", "local", large_final, layer_type=(nn.Linear, nn.Conv2d)
    )
    sparsifier.sparsify_model(SPARSITY)

    def step() -> None:
        optimizer.step()
        sparsifier._apply_masks()

    yield step


@contextmanager
def nncf(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> Iterator[Step]:
    """NNCF's prune: a bool mask multiplied in at every use of a weight, by a hook on every torch
    function."""
    from nncf import PruneMode, prune

    inputs = model.inputs
    prune(model, PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL, ratio=SPARSITY, examples_inputs=inputs)
    yield optimizer.step


@contextmanager
def torchao_pat(
    model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]
) -> Iterator[Step]:
    """torchao's PAT while it heals: the mask is taken anew from the weights' zeros at each step."""
    from torchao.prototype.pat import PruneOptimizer

    held = [model.get_parameter(name) for name in masks]
    ids = set(map(id, held))
    (group,) = optimizer.param_groups
    free = {**group, "params": [weight for weight in group["params"] if id(weight) not in ids]}
    group["params"] = held
    group.update(prox_type="MinSparsityConstraint", group_type="ElemGrouper", min_sparsity=SPARSITY)
    optimizer.param_groups.append(free)
    wrapped = PruneOptimizer(optimizer, warmup_steps=0, healing_start_step=1, reg_lambda=0.0)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    wrapped.step()
    yield wrapped.step


PEERS = {
    "fasterai": (fasterai, "fasterai"),
    "NNCF": (nncf, "nncf"),
    "torchao PAT": (torchao_pat, "torchao"),
}


def compare(workload: str, optimizer: str, rounds: int, name: str) -> dict[str, Any]:
    """A peer's step and ours over the dense one; the peer has a model of its own, since it does not
    let go of it."""
    contender, package = PEERS[name]
    row: dict[str, Any] = {
        "peer": name,
        "workload": workload,
        "optimizer": optimizer,
        "machine": machine(),
    }
    try:
        row["version"] = metadata.version(package)
        models = {}
        for who in ("dense", name):
            torch.manual_seed(0)
            model, inputs, targets = WORKLOADS[workload]()
            model.inputs = inputs
            models[who] = (model, OPTIMIZERS[optimizer](model))
        models["redense"] = models["dense"]
        masks = redense.build_masks(redense.prunable(models["dense"][0]), SPARSITY)
        samples: dict[str, list[float]] = {who: [] for who in models}
        with contender(*models[name], masks) as peer_step:
            for turn in range(-1, rounds):
                for who, (model, trainer) in models.items():
                    with CONTENDERS["redense" if who == "redense" else "dense"](
                        model, trainer, masks
                    ) as own_step:
                        step = peer_step if who == name else own_step

                        def once(
                            model: Any = model, trainer: Any = trainer, step: Any = step
                        ) -> None:
                            trainer.zero_grad()
                            nn.functional.cross_entropy(model(inputs), targets).backward()
                            step()

                        taken = seconds(once)
                    trainer.zero_grad()
                    if turn >= 0:
                        samples[who].append(taken)
        weight = models[name][0].get_parameter(next(iter(masks)))
        row["exact_zeros_in_the_parameter"] = bool(
            (weight.detach() == 0).float().mean() > 0.9 * SPARSITY
        )
    except Exception as error:  # whatever stops a peer is what the table has to say about it
        first_line = next(iter(str(error).splitlines()), "")
        return row | {"not_run": f"{type(error).__name__}: {first_line}"[:200]}
    ratios = {
        who: [a / b for a, b in zip(found, samples["dense"], strict=True)]
        for who, found in samples.items()
    }
    row["contenders"] = {
        who: {"seconds": spread(found), "ratio": spread(ratios[who])}
        for who, found in samples.items()
    }
    return row | {"threads": torch.get_num_threads()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("optimizer", choices=OPTIMIZERS)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    print(json.dumps(compare(chosen.workload, chosen.optimizer, chosen.rounds, chosen.peer)))
