"""Weights to start an image network from: torchvision's published ones, or those of a file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn
from torchvision import models as zoo

from redense.files.weights import fits, load_exactly, read_weights
from redense.recipes.images import models


def start_from(
    network: nn.Module,
    name: str,
    source: str,
    head: Collection[str] = (),
    *,
    keep_head: bool = True,
) -> None:
    """Load ``pretrained`` weights or those of a file, or of a run's or an export's folder, into the
    network called ``name``.

    Args:
        head: the tensors that depend on the number of classes; see `head_of`.
        keep_head: whether those are the source's too, or stay as they are.

    Raises:
        FileNotFoundError: no such file, or torchvision's weights are not in the local cache;
            nothing is downloaded. ValueError: keys or shapes are not the network's; the first few
            of each are listed.
    """
    file = published(name) if source == "pretrained" else Path(source)
    if file.is_dir():  # a run's, or an export's
        file = file / "model.safetensors"
    weights, title = read_weights(file), f"{file}"
    try:
        load_exactly(network, weights, title, name, leave=() if keep_head else head)
    except ValueError as error:
        if not keep_head or not fits(network, weights, leave=head):
            raise
        raise ValueError(
            f"{error}; all but the last layer fits, which is for other classes: --head new starts "
            "that one afresh"
        ) from error
    if source == "pretrained" and hasattr(network, "transform_input"):
        network.transform_input = (
            True  # torchvision's GoogLeNet and Inception weights expect pixels in [-1, 1]
        )


def head_of(name: str, classes: int, channels: int, size: int) -> frozenset[str]:
    """The tensors of a network whose shapes depend on the number of classes.

    >>> sorted(head_of("resnet18", 10, 3, 224))
    ['fc.bias', 'fc.weight']
    """
    with torch.device("meta"):
        one, more = (
            models.build(name, many, channels, size).state_dict() for many in (classes, classes + 1)
        )
    return frozenset(key for key, tensor in one.items() if tensor.shape != more[key].shape)


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
