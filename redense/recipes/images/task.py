"""The image task: options, loss, accuracy, optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from redense.recipes.images import models
from redense.recipes.images.data import AUGMENTATIONS, Batches, Split, load


@dataclass(frozen=True)
class ImageOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (fashion-mnist, emoji-groups), torchvision class on disk (CIFAR10), folder with train/ and
            val/ of one folder a class, or CSV list with the columns path, label, split.
        data_root: where torchvision's data sets lie; default redense's cache folder.
        model: small, cifar-resnet20, cifar-resnet56 or any torchvision classifier (resnet18, vgg16, googlenet, ...).
        train_images: how many images of a seeded shuffle to train on; default all.
        size: pixels a side; default as stored, 64 for folders and lists.
        batch: images an optimizer step, over all devices together.
        lr: learning rate that the phases' factors multiply.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on every parameter as in the paper.
        augment: none, flip (mirrored at random) or flip-crop (mirrored and shifted by up to an eighth).
    """

    data: str = "fashion-mnist"
    data_root: str | None = None
    model: str = "small"
    train_images: int | None = None
    size: int | None = None
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: str = "flip"

    def __post_init__(self) -> None:
        models.check_name(self.model)
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {self.augment!r}")
        for name, lowest in (("batch", 1), ("size", 8), ("train_images", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {value}")
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lr" and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above' if name == 'lr' else 'at least'} 0, got {value}"
                )


class ImageTask(LightningModule):
    """A classifier on its data, as `redense.recipes.training.train` drives it."""

    metric, higher_is_better, unit = "top1", True, "points"

    def __init__(self, options: ImageOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        channels = None if options.model in ("small", "cifar-resnet20", "cifar-resnet56") else 3
        root = None if options.data_root is None else options.data_root
        self.data = load(options.data, size=options.size, channels=channels, root=root, most=options.train_images)
        _, planes, _, size = self.data.train.images.shape
        torch.manual_seed(seed)
        network = models.build(options.model, len(self.data.classes), planes, size)
        self.model: nn.Module = network.to(memory_format=torch.channels_last)  # pooling and convolution are faster so
        classes = len(self.data.classes)
        self.metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
            }
        )
        self.loss = MeanMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Cross entropy; auxiliary heads count 0.3 each (Szegedy et al. 2014)."""
        images, labels = batch
        logits, auxiliary = models.logits_and_auxiliary(self.model(images))
        loss = F.cross_entropy(logits, labels)
        for head in auxiliary:
            loss = loss + 0.3 * F.cross_entropy(head, labels)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Collect loss and accuracy."""
        images, labels = batch
        logits, _ = models.logits_and_auxiliary(self.model(images))
        self.loss.update(F.cross_entropy(logits, labels), len(labels))
        self.metrics.update(logits, labels)

    test_step = validation_step

    def scores(self) -> dict[str, float]:
        """Loss, and accuracy in per cent, since the last call."""
        found = {"loss": float(self.loss.compute())}
        found |= {name: 100 * float(value) for name, value in self.metrics.compute().items()}
        self.loss.reset()
        self.metrics.reset()
        return found

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD as in the paper; the plan sets the rate."""
        o = self.options
        return torch.optim.SGD(
            self.parameters(), lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=o.momentum > 0
        )

    def train_dataloader(self) -> Batches:
        """Shuffled and augmented by seed and epoch."""
        return self._batches(self.data.train, self.seed)

    def val_dataloader(self) -> Batches:
        """In order."""
        return self._batches(self.data.valid)

    def test_dataloader(self) -> Batches:
        """In order; read once, after training."""
        return self._batches(self.data.test)

    def fingerprint(self) -> dict[str, object]:
        """What the record says of the data."""
        return self.data.fingerprint()

    def config(self) -> dict[str, Any]:
        """What a loader must know to rebuild the network and its input."""
        _, channels, _, size = self.data.train.images.shape
        return {
            "architecture": self.options.model,
            "classes": list(self.data.classes),
            "channels": channels,
            "size": size,
            "mean": list(self.data.mean),
            "std": list(self.data.std),
        }

    def _batches(self, split: Split, seed: int | None = None) -> Batches:
        return Batches(
            self.data,
            split,
            self.options.batch if seed is not None else max(self.options.batch, 500),
            seed=seed,
            augment=self.options.augment,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )
