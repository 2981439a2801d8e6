"""Weights from elsewhere: torchvision's published ones, a checkpoint's, a finished run's or an
export's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models as zoo

from redense.files.records import read_json
from redense.files.weights import load_exactly, read_weights
from redense.recipes.images import models


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


def restore(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(trained network, its config) of a finished run's folder or an exported one.

    Raises:
        FileNotFoundError, ValueError: it is neither, or not one of images.
    """
    weights, file = folder / "model.safetensors", folder / "network.json"
    file = file if file.is_file() else folder / "config.json"
    if not weights.is_file() or not file.is_file():
        raise FileNotFoundError(
            f"{folder} is neither a finished run nor an export: it needs model.safetensors and "
            "network.json or "
            f"config.json; redense train images --resume {folder} finishes a run"
        )
    config = read_json(file)
    if "classes" not in config or "architecture" not in config:
        raise ValueError(
            f"{file} is not of an image network; it needs the keys architecture and classes"
        )
    network = models.build(
        config["architecture"], len(config["classes"]), config["channels"], config["size"]
    )
    load_exactly(network, read_weights(weights), str(weights), config["architecture"])
    if config.get("transform_input"):
        network.transform_input = True  # type: ignore[assignment]
    return network.eval(), config
