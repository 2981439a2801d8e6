"""A classifier for other runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from redense.recipes.portable import Portable


def portable(network: nn.Module, config: Mapping[str, Any], folder: Path) -> list[Portable]:
    """Pixels (B, C, H, W) to logits (B, classes)."""
    draw = torch.Generator().manual_seed(0)
    shape = (config["channels"], config["size"], config["size"])
    mean, std = (tuple(round(x, 4) for x in config[name]) for name in ("mean", "std"))
    return [
        Portable(
            "model",
            network,
            network,
            [torch.randn(many, *shape, generator=draw) for many in (2, 1, 5)],
            {0: "batch"},
            "pixels",
            "logits",
            f"in [0, 1], minus {mean}, divided by {std}",
        )
    ]
