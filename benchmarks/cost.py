"""What each preset costs, computed: operations, memory by phase, bytes that ranks exchange. Nothing
here is measured.

``python -m benchmarks.cost`` prints the tables of docs/cost.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as zoo

from redense.prunable import prunable
from redense.recipes.images.presets import PRESETS, Preset

IMAGES = 1_281_167
"""ImageNet-1k's training images."""
PEAK, UTILISATION = 312e12, 0.2
"""An A100's dense bf16 operations a second (NVIDIA's data sheet), and the share of them that we
assume is reached."""


@dataclass(frozen=True)
class Cost:
    """One preset's cost; operations count a multiplication and an addition as two."""

    preset: Preset
    forward: int
    weights: int
    held: int

    @property
    def epochs(self) -> int:
        """Of all three phases, as planned here."""
        flags = self.preset.flags
        return int(flags["dense"] + flags["sparse"] + flags["redense"])

    @property
    def training(self) -> float:
        """Operations of the whole plan: 3 x forward an image (forward, and twice that for the
        gradients)."""
        return 3.0 * self.forward * IMAGES * self.epochs

    @property
    def gpu_hours(self) -> float:
        """At the assumed speed of one A100."""
        return self.training / (PEAK * UTILISATION) / 3600

    @property
    def state(self) -> int:
        """Bytes of weights, gradients and momentum in float32: every phase."""
        return 12 * self.weights

    @property
    def mask(self) -> int:
        """Bytes of the masks of a sparse phase: one a weight that may be held."""
        return self.held

    def exchanged(self, ranks: int) -> float:
        """Bytes that each rank sends in a step of a ring all-reduce of float32 gradients."""
        return 2 * (ranks - 1) / ranks * 4 * self.weights


def cost(preset: Preset) -> Cost:
    """Count one network at 224 px, its auxiliary heads included, where nothing is computed."""
    with torch.device("meta"):
        model: nn.Module = (
            zoo.get_model(preset.name, weights=None, init_weights=False)
            if preset.name in ("googlenet", "vgg16")
            else zoo.get_model(preset.name, weights=None)
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(2, 3, 224, 224))
    weights = sum(parameter.numel() for parameter in model.parameters())
    held = sum(weight.numel() for weight in prunable(model).values())
    return Cost(preset, counter.get_total_flops() // 2, weights, held)


def tables() -> str:
    """Operations and hours; memory and communication: two Markdown tables."""
    costs = [cost(preset) for preset in PRESETS.values()]
    hours = [
        "| preset | epochs | forward, GFLOP an image | whole plan, EFLOP | A100 hours |",
        "|---|---|---|---|---|",
    ]
    memory = [
        "| preset | weights, M | may be held, M | state, every phase, MB | masks, sparse phase "
        "only, MB | share "
        "| masks on disk, MB | sent a step by each of 8 ranks, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for c in costs:
        hours.append(
            f"| {c.preset.name} | {c.epochs} | {c.forward / 1e9:.2f} | {c.training / 1e18:.2f} | "
            f"{c.gpu_hours:.0f} |"
        )
        memory.append(
            f"| {c.preset.name} | {c.weights / 1e6:.1f} | {c.held / 1e6:.1f} | {c.state / 1e6:.0f} "
            f"| {c.mask / 1e6:.1f} | {100 * c.mask / c.state:.1f} % | {c.mask / 8e6:.1f} "
            f"| {c.exchanged(8) / 1e6:.0f} |"
        )
    return "\n".join([*hours, "", *memory])


if __name__ == "__main__":
    print(tables())
