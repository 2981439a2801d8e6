"""Graphs, graph breaks and recompilations of a compiled model and step while phases change."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import clear_compilation_metrics, counters, get_compilation_metrics

import redense

from .measure import machine


def switch(backend: str, with_step: bool, cycles: int = 3) -> dict[str, Any]:
    """Train through dense and sparse phases by turns; what torch.compile did in each."""
    torch._dynamo.reset()
    counters.clear()
    clear_compilation_metrics()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3))
    compiled = torch.compile(model, backend=backend)
    step = torch.compile(optimizer.step, backend=backend) if with_step else optimizer.step
    phases: list[dict[str, Any]] = []

    def phase(name: str) -> None:
        before = _counts()
        for _ in range(3):
            optimizer.zero_grad()
            compiled(torch.randn(16, 32)).square().mean().backward()
            step()
        phases.append(
            {"phase": name} | {key: value - before[key] for key, value in _counts().items()}
        )

    phase("dense")
    for number in range(1, cycles + 1):
        with redense.sparse(model, optimizer, 0.5) as held:
            phase(f"sparse {number}")
            exact = all(
                not model.get_parameter(name)[~mask].any() for name, mask in held.masks.items()
            )
            phases[-1]["exact"] = exact
        phase(f"dense {number}")
    return {
        "what": "model and optimizer step" if with_step else "model",
        "backend": backend,
        "phases": phases,
        "machine": machine(),
    }


def _counts() -> dict[str, int]:
    compiled = get_compilation_metrics()  # one entry a compiled frame; "frame/attempt" is its id
    return {
        "graphs": counters["stats"].get("unique_graphs", 0),
        "graph_breaks": sum(counters["graph_break"].values()),
        "frames": len(compiled),
        "recompiled": sum(not str(entry.compile_id).endswith("/0") for entry in compiled),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="inductor")
    chosen = parser.parse_args()
    print(json.dumps([switch(chosen.backend, with_step) for with_step in (False, True)]))
