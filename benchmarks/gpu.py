"""What a sparse phase costs on one CUDA device: ``python -m benchmarks.gpu``.

Steps and masks against their peers, peak memory, kernels a step for few tensors and for many,
whether anything waits for the device, and a whole step in a CUDA graph. Without a device it says so
and ends with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune
from torch.profiler import ProfilerActivity, profile

import redense

from .contenders import CONTENDERS
from .measure import machine, peak, seconds, spread
from .steps import SPARSITY, steps
from .workloads import OPTIMIZERS, WORKLOADS, Workload

OUT = Path(__file__).parents[1] / "results/bench/gpu.json"
PEERS = [name for name in CONTENDERS if name != "redense, plain torch"]  # no kernel of ours there
LARGE = ("VGG-16, batch 4 at 64 px", "3 x Linear(4096), batch 32", "ResNet-50, batch 8 at 112 px")
ROUNDS, REPLAYS = 9, 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a line each and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: torch sees no CUDA device here, nothing was run", file=sys.stderr)
        return 2
    record: dict[str, Any] = {"device": _device()}
    for part, measured in (
        ("steps", _all_steps),
        ("masks", lambda: [choose(name, "cuda") for name in LARGE]),
        ("memory", lambda: [hold(name, "cuda") for name in LARGE]),
        ("launches", lambda: [launches(layers, "cuda") for layers in (10, 100, 300)]),
        ("waits", waits),
        ("graph", replay),
    ):
        record[part] = measured()
        print(f"{part}: {json.dumps(record[part])}", flush=True)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(record | machine(), indent=1) + "\n")
    return 0


def _all_steps() -> list[dict[str, Any]]:
    return [
        steps(workload, optimizer, ROUNDS, PEERS, device="cuda")
        for workload in LARGE
        for optimizer in OPTIMIZERS
    ]


def choose(workload: str, device: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Seconds and bytes at peak a weight to choose masks of all matrices, 30 % of each or of all;
    ours and torch's own."""
    model = WORKLOADS[workload]().model.to(device)
    places = [
        (module, "weight")
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    weights = {str(number): module.weight.detach() for number, (module, _) in enumerate(places)}
    total = sum(weight.numel() for weight in weights.values())

    def undone(pruning: Callable[[], object]) -> Callable[[], object]:
        def both() -> None:
            pruning()
            for module, leaf in places:
                prune.remove(module, leaf)

        return both

    def layerwise() -> None:
        for module, leaf in places:
            prune.l1_unstructured(module, leaf, SPARSITY)

    def over_all() -> None:
        prune.global_unstructured(places, prune.L1Unstructured, amount=SPARSITY)

    rivals: dict[str, Callable[[], object]] = {
        "w.abs().sum(), one read": lambda: [weight.abs().sum() for weight in weights.values()],
        "redense layerwise": lambda: redense.build_masks(weights, SPARSITY),
        "redense global": lambda: redense.build_masks(weights, SPARSITY, "global"),
        "torch l1_unstructured": undone(layerwise),
        "torch global_unstructured": undone(over_all),
    }
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(-1, rounds):  # the first one warms up
        for name, rival in rivals.items():
            taken = seconds(rival, device)
            if number >= 0:
                samples[name].append(taken)
    rows = {
        name: {
            "seconds": spread(samples[name]),
            "peak_bytes_a_weight": peak(rival, device)[1] / total,
        }
        for name, rival in rivals.items()
    }
    return {"workload": workload, "tensors": len(weights), "weights": total, "rows": rows}


def hold(workload: str, device: str) -> dict[str, Any]:
    """Bytes a held weight: of the masks, at peak while they are chosen and taken up, and at peak of
    a step, dense and sparse."""
    trial = _Trial(WORKLOADS[workload](), device)
    trial.step()
    weights = redense.prunable(trial.model)
    total = sum(weight.numel() for weight in weights.values())
    _, dense = peak(trial.step, device)
    held, building = peak(trial.hold, device)
    _, sparse = peak(trial.step, device)
    masks = sum(mask.numel() * mask.element_size() for mask in held.masks.values())
    held.release()
    found = {"masks": masks, "building": building, "dense_step": dense, "sparse_step": sparse}
    return {"workload": workload, "held": total} | {
        name: many / total for name, many in found.items()
    }


def launches(layers: int, device: str) -> dict[str, Any]:
    """Kernels of one step, dense and sparse, of a network with so many linear layers; on a CPU
    torch's operations."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(layers)))
    work = Workload(model, torch.randn(8, 64), torch.randint(64, (8,)))
    trial = _Trial(work, device, foreach=True)
    counts = {}
    for phase in ("dense", "sparse"):
        held = trial.hold() if phase == "sparse" else None
        trial.step()
        trial.step()
        counts[phase] = _kernels(trial.step, device)
        if held is not None:
            held.release()
    return {"layers": layers, **counts, "ours": counts["sparse"] - counts["dense"]}


def waits() -> bool:
    """Whether a sparse step makes the process wait for the device."""
    trial = _Trial(WORKLOADS["3 x Linear(512), batch 32"](), "cuda")
    held = trial.hold()
    trial.step()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trial.step()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
        held.release()
    return False


def replay(replays: int = REPLAYS) -> dict[str, Any]:
    """A whole sparse step captured in a CUDA graph and replayed on new batches: whether held
    weights stay at zero and the others train, and seconds beside the same step without a graph."""
    torch.manual_seed(0)
    trial = _Trial(WORKLOADS["3 x Linear(512), batch 32"](), "cuda")
    held = trial.hold()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            trial.step()
    torch.cuda.current_stream().wait_stream(aside)
    eager = [seconds(trial.step, "cuda") for _ in range(replays)]
    trial.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        trial.step()
    before = {name: trial.model.get_parameter(name).detach().clone() for name in held.masks}
    taken = []
    for _ in range(replays):
        trial.inputs.normal_()
        taken.append(seconds(graph.replay, "cuda"))
    zero, moved = True, True
    for name, mask in held.masks.items():
        weight = trial.model.get_parameter(name).detach()
        zero &= not bool(weight[~mask].any())
        moved &= bool((weight != before[name])[mask].any())
    held.release()
    return {
        "replays": replays,
        "held_weights_stay_zero": zero,
        "others_train": moved,
        "seconds": spread(taken),
        "without_a_graph": spread(eager),
    }


class _Trial:
    """A workload on a device with SGD, and its training step."""

    def __init__(self, work: Workload, device: str, foreach: bool | None = None) -> None:
        self.model = work.model.to(device)
        self.inputs, self.targets = work.inputs.to(device), work.targets.to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-4, momentum=0.9, foreach=foreach
        )

    def step(self) -> None:
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()

    def hold(self) -> redense.Constraint:
        masks = redense.build_masks(redense.prunable(self.model), SPARSITY)
        return redense.Constraint(self.model, self.optimizer, masks)


def _kernels(step: Callable[[], None], device: str) -> int:
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    wanted = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    return sum(
        event.device_type == wanted and not event.is_user_annotation
        for event in profiler.events() or ()
    )


def _device() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    sys.exit(main())
