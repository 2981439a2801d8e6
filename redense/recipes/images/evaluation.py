"""Top-1 and top-5 of any network on a folder of images, one centre crop each, as the paper measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from redense.recipes.images import models
from redense.recipes.images.streams import Files, StreamedBatches, StreamedData, list_images, resized
from redense.recipes.images.weights import restore, start_from


@dataclass(frozen=True)
class Accuracy:
    """How many of ``images`` had their label first, and among the first five, of the network's answers."""

    images: int
    top1: int
    top5: int

    def __str__(self) -> str:
        return "\n".join(
            f"{name}  {100 * right / self.images:.2f} % right, {100 - 100 * right / self.images:.2f} % error "
            f"({right:,} of {self.images:,} images)"
            for name, right in (("top-1", self.top1), ("top-5", self.top5))
        )


def evaluate(
    network: str,
    data: Path,
    *,
    model: str | None = None,
    size: int | None = None,
    batch: int = 64,
    workers: int | None = None,
    device: str | None = None,
) -> Accuracy:
    """Answer each image of ``data``, a folder with one folder a class or one that has such a val/, and count.

    Args:
        network: a finished run's folder or an exported one; a file of weights, or ``pretrained`` for torchvision's
            own, of ``model``.
        size: of the crop; default the run's, else 224. The shorter side is resized to 256/224 of it.
        device: ``cpu``, ``cuda``, ...; default cuda where there is one.

    Raises:
        FileNotFoundError, ValueError: no such network or folder; classes that are not the network's.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"data {str(data)!r}: no such folder; it needs one folder a class, or a val/ with them")
    folder = data / "val" if (data / "val").is_dir() else data
    net, found = _network(network, model, _classes(folder), size)
    files = list_images(folder, found.classes)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    net = net.to(device=where, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    top1 = top5 = 0
    with torch.inference_mode():
        for images, labels in StreamedBatches(found, files, batch, workers=workers):
            logits, _ = models.logits_and_auxiliary(net(images.to(where)))
            right = logits.topk(min(5, logits.shape[1])).indices.cpu() == labels.view(-1, 1)  # (B, 5)
            top1 += int(right[:, 0].sum())
            top5 += int(right.sum())
    return Accuracy(len(files), top1, top5)


def _network(source: str, model: str | None, classes: tuple[str, ...], size: int | None) -> tuple[nn.Module, Any]:
    """The network, and how its images are prepared."""
    none = Files(())
    if Path(source).is_dir():
        net, config = restore(Path(source))
        side = size or config["size"]
        resize = config["resize"] if side == config["size"] else resized(side)
        mean, std, known = tuple(config["mean"]), tuple(config["std"]), tuple(config["classes"])
        return net, StreamedData(source, known, none, none, none, side, resize, mean, std, config["channels"])
    if model is None:
        raise ValueError(f"--model names the network whose weights {source} are, resnet50 for instance")
    side = size or 224
    net = models.build(model, 1000 if source == "pretrained" else len(classes), 3, side)
    start_from(net, model, source)
    if source == "pretrained" and len(classes) != 1000:
        raise ValueError(f"torchvision's {model} knows ImageNet's 1000 classes, the data has {len(classes)} folders")
    return net, StreamedData(source, classes, none, none, none, side, resized(side))


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
