"""The models that steps are timed on, each with one batch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Workload(NamedTuple):
    """A model and a batch for it."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor


def vgg16(batch: int = 4, side: int = 64) -> Workload:
    """138 M weights with their thousand classes, three quarters of them in one linear layer."""
    from torchvision.models import vgg16

    return Workload(vgg16(), torch.randn(batch, 3, side, side), torch.randint(1000, (batch,)))


class Linears(nn.Module):
    """Three linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(3)])

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, width) -> (batch, width)."""
        first, second, third = self.layers
        return third(second(first(inputs).relu()).relu())


def linear(batch: int = 32, width: int = 4096) -> Workload:
    """Most of the time in the optimizer and in memory: the hardest case for anything that touches
    each weight."""
    return Workload(Linears(width), torch.randn(batch, width), torch.randint(width, (batch,)))


def resnet50(batch: int = 8, side: int = 112) -> Workload:
    """Fifty-four tensors, 25 M weights, most of the time in convolutions."""
    from torchvision.models import resnet50

    return Workload(resnet50(), torch.randn(batch, 3, side, side), torch.randint(1000, (batch,)))


class Encoder(nn.Module):
    """Transformer blocks of four matrices each."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, width)."""
        return self.blocks(inputs)[:, 0]


def transformer(blocks: int = 75, width: int = 64, batch: int = 4) -> Workload:
    """300 small matrices: what each tensor costs, not what each weight does."""
    targets = torch.randint(width, (batch,))
    return Workload(Encoder(blocks, width), torch.randn(batch, 16, width), targets)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "VGG-16, batch 4 at 64 px": vgg16,
    "3 x Linear(4096), batch 32": linear,
    "ResNet-50, batch 8 at 112 px": resnet50,
    "transformer, 300 matrices": transformer,
    "3 x Linear(512), batch 32": lambda: linear(width=512),
    "3 x Linear(16), batch 4": lambda: linear(batch=4, width=16),
}

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4
    ),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-5),
}


def asked_for(description: str | None) -> argparse.Namespace:
    """The workload, optimizer and rounds that a measurement's command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("optimizer", choices=OPTIMIZERS)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()
