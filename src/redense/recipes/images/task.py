"""The image task: options, loss, accuracy, optimizer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from redense.recipes.images import models, streams
from redense.recipes.images.data import AUGMENTATIONS, Batches, ImageData, Split, load
from redense.recipes.images.folders import Source, StreamedData
from redense.recipes.images.presets import PRESETS
from redense.recipes.images.streams import StreamedBatches, open_stream
from redense.recipes.images.weights import start_from
from redense.runs.checkpoints import write_text
from redense.runs.sharding import shard

__all__ = ["PRESETS", "ImageOptions", "ImageTask"]


@dataclass(frozen=True)
class ImageOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (fashion-mnist, emoji-groups), torchvision class on disk (CIFAR10),
            folder with train/ and val/ of one folder a class, CSV list with the columns path,
            label, split, or folder of Parquet shards (train-00000.parquet,
            validation-00000.parquet, ... with image and label, as the hub's ImageNet; classes from
            the shards or classes.txt). Shards, imagenet and folders that memory would not hold are
            streamed.
        data_root: where torchvision's data sets lie; default redense's cache folder.
        model: small, cifar-resnet20, cifar-resnet56 or any torchvision classifier (resnet18, vgg16,
            googlenet, ...). init: trained weights to start from instead of a first dense phase: a
            .pt, .ckpt or .safetensors file with the
            model's keys, or pretrained for torchvision's published ones in the local cache.
        train_images: how many images of a seeded shuffle to train on; default all.
        valid_share: of the training images, held out for validation where the data have no split
            for it; default a tenth, at most 5,000.
        size: pixels a side; default as stored, 64 for folders and lists, 224 for streamed ones.
        batch: images an optimizer step, over all devices together.
        accumulate: parts that a step's images are trained in one after another, where memory is
            short. lr: learning rate that the phases' factors multiply.
        momentum: of SGD.
        weight_decay: L2 penalty, on every parameter as in the paper.
        nesterov: momentum as Nesterov's.
        ema: evaluate and export an exponential moving average of the weights, of this decay (0.999,
            say), that starts anew with each phase and so holds a sparse phase's zeros; default off.
        augment: none, flip (mirrored at random) or flip-crop (mirrored and shifted by up to an
            eighth); for streamed folders also resize-crop (a crop of the image at 256/224 of the
            size), scale-crop (of any scale and aspect) and scale-crop-colour (and colours
            jittered), all mirrored.
        workers: processes that decode streamed images; default one a core, at most 8.
        compile: torch.compile the network.
    """

    data: str = "fashion-mnist"
    data_root: str | None = None
    model: str = "small"
    train_images: int | None = None
    valid_share: float | None = None
    size: int | None = None
    init: str | None = None
    batch: int = 128
    accumulate: int = 1
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    ema: float | None = None
    augment: str = "flip"
    workers: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        models.check_name(self.model)
        if self.augment not in (*AUGMENTATIONS, *streams.AUGMENTATIONS):
            raise ValueError(
                f"augment must be one of {', '.join(AUGMENTATIONS)}, got {self.augment!r}; "
                "streamed folders also take "
                f"{', '.join(streams.AUGMENTATIONS)}"
            )
        for name, lowest in (
            ("batch", 1),
            ("size", 8),
            ("train_images", 1),
            ("accumulate", 1),
            ("workers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {value}")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch {self.batch}, got {self.accumulate}")
        if self.valid_share is not None and not 0 < self.valid_share < 1:
            raise ValueError(
                f"valid_share must lie between 0 and 1, got {self.valid_share}; 0.1 is usual"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(
                f"ema must lie between 0 and 1, got {self.ema}; 0.999 and 0.9999 are usual"
            )
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lr" and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above' if name == 'lr' else 'at least'} 0, "
                    f"got {value}"
                )


class ImageTask(LightningModule):
    """A classifier on its data, as `redense.runs.training.train` drives it."""

    metric, higher_is_better, unit = "top1", True, "points"

    def __init__(self, options: ImageOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        channels = None if options.model in models.SMALL else 3
        root = None if options.data_root is None else Path(options.data_root)
        self.data: ImageData | StreamedData
        if streams.wanted(options.data, options.augment, options.size):
            self.data = open_stream(
                options.data,
                options.size or 224,
                root=root,
                most=options.train_images,
                valid_share=options.valid_share,
            )
        else:
            self.data = load(
                options.data,
                size=options.size,
                channels=channels,
                root=root,
                most=options.train_images,
                valid_share=options.valid_share,
            )
        if options.accumulate > 1 and options.batch > len(self.data.train):
            raise ValueError(
                f"batch {options.batch} is more than the {len(self.data.train)} training images; "
                "accumulate needs "
                f"whole steps, pass a smaller --batch"
            )
        torch.manual_seed(seed)
        network = models.build(
            options.model, len(self.data.classes), self.data.channels, self.data.size
        )
        if options.init is not None:
            start_from(network, options.model, options.init)
        if options.compile:
            network.compile()
        self.model: nn.Module = network.to(
            memory_format=torch.channels_last
        )  # pooling and convolution are faster so
        classes = len(self.data.classes)
        self.metrics = MetricCollection(
            {
                "top1": MulticlassAccuracy(classes, average="micro"),
                "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
            }
        )
        self.loss = MeanMetric()

    def on_fit_start(self) -> None:
        """The loader gives a step's images in this many parts."""
        self.trainer.accumulate_grad_batches = self.options.accumulate

    def configure_model(self) -> None:
        """With --strategy fsdp2 each device keeps its shard of the network."""
        if self.device_mesh is not None:
            shard(self.model, self.device_mesh["data_parallel"])

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
        if not len(labels):  # this rank has one image fewer than others, but computes with them
            return
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
            self.parameters(),
            lr=o.lr,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
            nesterov=o.nesterov and o.momentum > 0,
        )

    def train_dataloader(self) -> Batches | StreamedBatches:
        """Shuffled and augmented by seed and epoch."""
        return self._batches(self.data.train, self.seed)

    def val_dataloader(self) -> Batches | StreamedBatches:
        """In order."""
        return self._batches(self.data.valid)

    def test_dataloader(self) -> Batches | StreamedBatches:
        """In order; read once, after training."""
        return self._batches(self.data.test)

    def phase_ended(self, phase: str, folder: Path) -> None:
        """Keep in network.json what the network is."""
        write_text(folder / "network.json", json.dumps(self.config(), indent=2) + "\n")

    def fingerprint(self) -> dict[str, object]:
        """What the record says of the data."""
        return self.data.fingerprint()

    def config(self) -> dict[str, Any]:
        """What a loader must know to rebuild the network and its input."""
        found = {
            "architecture": self.options.model,
            "classes": list(self.data.classes),
            "channels": self.data.channels,
            "size": self.data.size,
            "resize": self.data.resize,
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "valid_share": self.options.valid_share,
        }
        return found | (
            {"transform_input": True} if getattr(self.model, "transform_input", False) else {}
        )

    def _batches(self, split: Split | Source, seed: int | None = None) -> Batches | StreamedBatches:
        o = self.options
        part = o.batch // o.accumulate
        if part % self.trainer.world_size:
            raise ValueError(
                f"batch {o.batch} in {o.accumulate} part{'s' * (o.accumulate > 1)} cannot be "
                "shared evenly by "
                f"{self.trainer.world_size} processes; pass a --batch that their product divides"
            )
        how: dict[str, Any] = {
            "seed": seed,
            "augment": o.augment,
            "rank": self.trainer.global_rank,
            "ranks": self.trainer.world_size,
            "accumulate": o.accumulate,
        }
        if isinstance(self.data, StreamedData):
            return StreamedBatches(self.data, split, part, workers=o.workers, **how)  # type: ignore[arg-type]
        return Batches(self.data, split, part if seed is not None else max(part, 500), **how)  # type: ignore[arg-type]
