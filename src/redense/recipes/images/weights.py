"""Weights to start an image network from: torchvision's published ones, or those of a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision import models as zoo

from redense.files.weights import load_exactly, read_weights


def start_from(network: nn.Module, name: str, source: str) -> None:
    """Load ``pretrained`` weights or those of a file into the network called ``name``.

    Raises:
        FileNotFoundError: no such file, or torchvision's weights are not in the local cache;
            nothing is downloaded. ValueError: keys or shapes are not the network's; the first few
            of each are listed.
    """
    file = published(name) if source == "pretrained" else Path(source)
    load_exactly(network, read_weights(file), f"{file}", name)
    if source == "pretrained" and hasattr(network, "transform_input"):
        network.transform_input = (
            True  # torchvision's GoogLeNet and Inception weights expect pixels in [-1, 1]
        )


def published(name: str) -> Path:
    """The file of torchvision's weights in the hub's cache: the classical recipe's (V1) where there
    are several."""
    if name not in zoo.list_models(zoo):
        raise ValueError(
            f"torchvision publishes no weights of {name}; it does of resnet50 and others"
        )
    kinds = zoo.get_model_weights(name)
    weights = getattr(kinds, "IMAGENET1K_V1", next(iter(kinds)))
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file():
        raise FileNotFoundError(
            f"torchvision's weights of {name} are not in {file}; put {weights.url} there, or name "
            "a file that has them"
        )
    return file
