"""Top-1 and top-5 of any network on a folder, shards or a packaged set: one centre crop an image,
as in the paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from redense import datasets
from redense.files.folders import list_classes, split_folders
from redense.recipes.images import models
from redense.recipes.images.data import Batches, load
from redense.recipes.images.folders import (
    Files,
    Source,
    StreamedData,
    complete,
    few,
    is_list,
    list_images,
    list_pictures,
    resized,
)
from redense.recipes.images.shards import has_shards, open_shards
from redense.recipes.images.streams import StreamedBatches
from redense.recipes.images.use import seen_by
from redense.recipes.images.weights import start_from
from redense.recipes.trained import restore


@dataclass(frozen=True)
class Accuracy:
    """How many of ``images`` had their label first, and among the first five, of the network's
    answers."""

    images: int
    top1: int
    top5: int

    def __str__(self) -> str:
        return "\n".join(
            f"{name}  {100 * right / self.images:.2f} % right, "
            f"{100 - 100 * right / self.images:.2f} % error "
            f"({right:,} of {self.images:,} images)"
            for name, right in (("top-1", self.top1), ("top-5", self.top5))
        )


def evaluate(
    network: str,
    data: str,
    *,
    model: str | None = None,
    size: int | None = None,
    batch: int = 64,
    workers: int | None = None,
    device: str | None = None,
) -> Accuracy:
    """Answer each image of ``data`` and count.

    Args:
        network: a finished run's folder or an exported one; a file of weights, or ``pretrained``
            for torchvision's own, of ``model``.
        data: a folder with one folder per class; a folder, list or Parquet shards that training
            takes, for the validation images; or a packaged set's name, for its test images, which
            are cropped as in training.
        size: of the crop; default the run's, else 224. The shorter side is resized to 256/224 of
            it. device: ``cpu``, ``cuda``, ...; default cuda where there is one.

    Raises:
        FileNotFoundError, ValueError: no such network or data; classes that are not the network's.
    """
    if data in datasets.names() and not Path(data).is_dir():
        net, images, batches = _packaged(network, data, model, size, batch)
    elif Path(data).is_dir() or is_list(Path(data)):
        net, images, batches = _streamed(network, Path(data), model, size, batch, workers)
    else:
        raise FileNotFoundError(
            f"data {data!r}: no such folder; it takes one folder per class, a val/ with them, a "
            f".csv list, a folder of Parquet shards, or {', '.join(datasets.names())}"
        )
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    net = net.to(device=where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    top1 = top5 = 0
    with torch.inference_mode():
        for pixels, labels in batches:
            logits, _ = models.logits_and_auxiliary(net(pixels.to(where)))
            right = logits.topk(min(5, logits.shape[1])).indices.cpu() == labels.view(
                -1, 1
            )  # (B, 5)
            top1 += int(right[:, 0].sum())
            top5 += int(right.sum())
    return Accuracy(images, top1, top5)


def _packaged(
    source: str, name: str, model: str | None, size: int | None, batch: int
) -> tuple[nn.Module, int, Batches]:
    """The network, how many test images there are, and batches of them as it was trained on."""
    if Path(source).is_dir():
        net, config = restore(Path(source), "images")
        data = load(name, size=size or config["size"], channels=config["channels"])
        if data.classes != tuple(config["classes"]):
            raise ValueError(
                f"{source} knows {few(config['classes'])}; {name} has {few(data.classes)}"
            )
        data = replace(data, mean=tuple(config["mean"]), std=tuple(config["std"]))
    else:
        data = load(name, size=size, channels=None if model in models.SMALL else 3)
        net = _network_of_file(source, model, len(data.classes), data.channels, data.size)
    split = data.test if len(data.test) else data.valid
    return net, len(split), Batches(data, split, batch)


def _streamed(
    source: str, path: Path, model: str | None, size: int | None, batch: int, workers: int | None
) -> tuple[nn.Module, int, StreamedBatches]:
    """The network, how many images there are, and batches of them as it expects them."""
    if Path(source).is_dir():
        net, config = restore(Path(source), "images")
        classes = tuple(config["classes"])
        split, _ = _pictures(path, classes, config.get("valid_share"))
        seen = seen_by(config, size)
    else:
        split, classes = _pictures(path)
        side = size or 224
        published = source == "pretrained"
        net = _network_of_file(source, model, 1000 if published else len(classes), 3, side)
        if published and len(classes) != 1000:
            raise ValueError(
                f"torchvision's {model} knows ImageNet's 1000 classes, the data has {len(classes)}"
            )
        none = Files(())
        seen = StreamedData(source, classes, none, none, none, side, resized(side))
    return net, len(split), StreamedBatches(seen, split, batch, workers=workers)


def _pictures(
    path: Path, known: tuple[str, ...] = (), valid_share: float | None = None
) -> tuple[Source, tuple[str, ...]]:
    """(what is to be answered, the classes that its labels count): ``known`` or the data's own."""
    if has_shards(path):
        data = open_shards(path, 0, classes=known, valid_share=valid_share)
        return data.valid, data.classes
    if is_list(path) or "train" in split_folders(path):
        splits, classes = list_pictures(path, known)
        _, valid, _ = complete(str(path), splits, None, valid_share)
        return valid, classes
    folder = split_folders(path).get("valid", path)
    classes = known or tuple(list_classes(folder))
    return list_images(folder, classes), classes


def _network_of_file(
    source: str, model: str | None, classes: int, channels: int, side: int
) -> nn.Module:
    if model is None:
        raise ValueError(
            f"--model names the network whose weights {source} are, resnet50 for instance"
        )
    net = models.build(model, classes, channels, side)
    start_from(net, model, source)
    return net
