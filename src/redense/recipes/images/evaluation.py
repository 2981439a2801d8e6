"""Top-1 and top-5 of any network on a folder, shards or a packaged set: one centre crop an image,
as in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redense import datasets
from redense.files.folders import list_classes, say, split_folders
from redense.recipes.images import models
from redense.recipes.images.data import Batches, load
from redense.recipes.images.folders import (
    Files,
    Source,
    StreamedData,
    by_class,
    complete_and_say,
    few,
    is_list,
    list_pictures,
    resized,
)
from redense.recipes.images.readers import torchvision_class
from redense.recipes.images.shards import has_shards, open_shards
from redense.recipes.images.streams import StreamedBatches
from redense.recipes.images.use import seen_by
from redense.recipes.images.weights import start_from
from redense.recipes.inputs import choose_split
from redense.recipes.trained import described, restore


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
    split: str | None = None,
    data_root: str | None = None,
    model: str | None = None,
    size: int | None = None,
    batch: int = 64,
    workers: int | None = None,
    device: str | None = None,
) -> Accuracy:
    """Answer each image of ``data`` and count.

    Args:
        network: a finished run's folder or an exported one, or a file of weights in one; any other
            file of weights, or ``pretrained`` for torchvision's own, of ``model``.
        data: a folder with one folder per class; or what training takes: a folder, list or Parquet
            shards; a packaged or torchvision's set by name, whose images are cropped as in
            training. split: as for `choose_split`.
        data_root: where torchvision's sets lie.
        size: of the crop; default the run's, else 224. The shorter side is resized to 256/224 of
            it. device: ``cpu``, ``cuda``, ...; default cuda where there is one.

    Raises:
        FileNotFoundError, ValueError: no such network or data; classes that are not the network's.
    """
    where = _device(device)
    if model is not None and Path(network).is_dir():
        raise ValueError(f"{network} knows its architecture; leave out model {model!r}")
    if Path(data).is_dir() or is_list(Path(data)):
        if data_root is not None:
            raise ValueError(f"data {data} is no set of torchvision's; leave out data_root")
        net, images, batches = _streamed(network, Path(data), split, model, size, batch, workers)
    elif data in datasets.names() or torchvision_class(data) is not None:
        if workers is not None:
            raise ValueError(f"data {data} is held in memory; leave out workers {workers}")
        root = Path(data_root) if data_root else None
        net, images, batches = _named(network, data, root, split, model, size, batch)
    else:
        raise FileNotFoundError(
            f"data {data!r}: no such folder; it takes one folder per class, train/, val/ or test/ "
            "with them, a .csv list, a folder of Parquet shards, a torchvision class such as "
            f"CIFAR10, or {', '.join(datasets.names())}"
        )
    net = net.to(device=where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    top1 = top5 = 0
    with torch.inference_mode():
        for pixels, labels in batches:
            logits = _answers(net, pixels.to(where))
            right = logits.topk(min(5, logits.shape[1])).indices.cpu() == labels.view(
                -1, 1
            )  # (B, 5)
            top1 += int(right[:, 0].sum())
            top5 += int(right.sum())
    return Accuracy(images, top1, top5)


def _device(name: str | None) -> torch.device:
    """The device of that name, if this machine can use it."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).sum().item()
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); cpu can") from error
    return device


def _answers(net: nn.Module, pixels: Tensor) -> Tensor:
    try:
        logits, _ = models.logits_and_auxiliary(net(pixels))
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the network takes no {len(pixels)} images of {pixels.shape[-1]} px ({reason}); leave "
            "out --size, or pass another --size or --batch"
        ) from error
    return logits


def _named(
    source: str,
    name: str,
    root: Path | None,
    wanted: str | None,
    model: str | None,
    size: int | None,
    batch: int,
) -> tuple[nn.Module, int, Batches]:
    """The network, how many images there are, and batches of them as it was trained on."""
    if trained := _trained(source, model):
        net, config = trained
        data = load(
            name,
            size=size or config["size"],
            channels=config["channels"],
            root=root,
            valid_share=config.get("valid_share"),
        )
        if data.classes != tuple(config["classes"]):
            raise ValueError(
                f"{source} knows {few(config['classes'])}; {name} has {few(data.classes)}"
            )
        data = replace(data, mean=tuple(config["mean"]), std=tuple(config["std"]))
    else:
        channels = None if model in models.SMALL else 3
        data = load(name, size=size, channels=channels, root=root)
        net = _network_of_file(source, model, len(data.classes), data.channels, data.size)
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    chosen = choose_split(splits, wanted, name)
    say(f"{len(splits[chosen]):,} images of {chosen}")
    return net, len(splits[chosen]), Batches(data, splits[chosen], batch)


def _streamed(
    source: str,
    path: Path,
    wanted: str | None,
    model: str | None,
    size: int | None,
    batch: int,
    workers: int | None,
) -> tuple[nn.Module, int, StreamedBatches]:
    """The network, how many images there are, and batches of them as it expects them."""
    if trained := _trained(source, model):
        net, config = trained
        classes = tuple(config["classes"])
        split, _ = _pictures(path, wanted, classes, config.get("valid_share"))
        seen = seen_by(config, size)
    else:
        split, classes = _pictures(path, wanted)
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
    path: Path,
    wanted: str | None,
    known: tuple[str, ...] = (),
    valid_share: float | None = None,
) -> tuple[Source, tuple[str, ...]]:
    """(what is to be answered, the classes that its labels count): ``known`` or the data's own."""
    parts: Mapping[str, Source]
    if has_shards(path):
        data = open_shards(path, 0, classes=known, valid_share=valid_share)
        parts, classes = {"train": data.train, "valid": data.valid, "test": data.test}, data.classes
    elif is_list(path) or "train" in split_folders(path):
        parts, classes = list_pictures(path, known)
        if "train" in parts:
            train, valid, test = complete_and_say(str(path), parts, None, valid_share)
            parts = {"train": train, "valid": valid, "test": test}
    elif folders := split_folders(path):
        listed = {split: list_classes(folder) for split, folder in folders.items()}
        classes = known or tuple(sorted(set().union(*listed.values())))
        parts = {split: by_class(pictures, classes) for split, pictures in listed.items()}
    else:
        pictures = list_classes(path)
        if not pictures:
            raise ValueError(f"data {str(path)!r} has no folder of a class with a picture in it")
        if wanted is not None:
            raise ValueError(
                f"data {str(path)!r} has no split {wanted!r}: its folders are classes; leave it out"
            )
        classes = known or tuple(pictures)
        found = by_class(pictures, classes)
        say(f"{len(found):,} images of {len(pictures)} classes")
        return found, classes
    chosen = choose_split(parts, wanted, str(path))
    say(f"{len(parts[chosen]):,} images of {chosen}")
    return parts[chosen], classes


def _trained(source: str, model: str | None) -> tuple[nn.Module, dict[str, Any]] | None:
    """A network of ours and what it was trained on: of a folder, or of a file of weights in one;
    None of any other file."""
    path = Path(source)
    if path.is_dir():
        return restore(path, "images")
    config = described(path) if path.is_file() else None
    if config is None or config["recipe"] != "images":
        return None
    if model not in (None, config["architecture"]):
        return None
    net = models.network(config)
    try:
        start_from(net, config["architecture"], source)
    except ValueError:
        if model is None:
            raise
        return None  # weights from elsewhere that lie there
    return net, config


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
