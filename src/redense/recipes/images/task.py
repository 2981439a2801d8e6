"""The image task: loss, accuracy, optimizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from redense.recipes.images import models, streams
from redense.recipes.images.data import Batches, ImageData, Split, load
from redense.recipes.images.folders import Source, StreamedData
from redense.recipes.images.options import ImageOptions
from redense.recipes.images.plain import plain_scores
from redense.recipes.images.streams import StreamedBatches, open_stream
from redense.recipes.images.weights import head_of, start_from
from redense.runs.checkpoints import write_text
from redense.runs.sharding import shard
from redense.runs.task import Metric


class ImageTask(LightningModule):
    """A classifier on its data, as `redense.runs.training.fit` drives it."""

    metric = Metric("top1", True, "points")
    prunes = ()
    elsewhere = ("data", "data_root", "init", "workers", "compile")

    def __init__(self, options: ImageOptions, seed: int) -> None:
        super().__init__()
        models.check_name(options.model)
        self.options, self.seed = options, seed
        channels = None if options.model in models.SMALL else 3
        root = None if options.data_root is None else Path(options.data_root)
        self.data: ImageData | StreamedData
        if streams.wanted(options.data, options.augment, options.size):
            if options.label_noise:
                raise ValueError(
                    f"label_noise needs images in memory, and {options.data} is streamed with "
                    f"--augment {options.augment}; leave out --label-noise"
                )
            self.data = open_stream(
                options.data,
                options.size or 224,
                root=root,
                most=options.train_images,
                valid_share=options.valid_share,
                upright=options.upright,
            )
        else:
            self.data = load(
                options.data,
                size=options.size,
                channels=channels,
                root=root,
                most=options.train_images,
                valid_share=options.valid_share,
                upright=options.upright,
                label_noise=options.label_noise,
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
            build = (options.model, len(self.data.classes), self.data.channels, self.data.size)
            keep = options.head == "kept"
            start_from(network, options.model, options.init, head_of(*build), keep_head=keep)
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
                "ece": MulticlassCalibrationError(classes),
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
        """Loss, and in per cent accuracy and calibration error (in expectation, 15 bins: Guo et al.
        2017), since the last call."""
        found = {"loss": float(self.loss.compute())}
        measured = self.metrics.compute()
        found |= {name: 100 * float(measured[name]) for name in ("top1", "top5", "ece")}
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

    @property
    def batch(self) -> int:
        """Images per optimizer step."""
        return self.options.batch

    @property
    def moving_average(self) -> float | None:
        """Decay of --ema."""
        return self.options.ema

    def examples(self) -> dict[str, Any]:
        """None are kept."""
        return {}

    def notes(self) -> list[str]:
        """There are none."""
        return []

    def keep(self, folder: Path, examples: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep in network.json what the network is."""
        write_text(folder / "network.json", json.dumps(self.config(), indent=2) + "\n")

    def fingerprint(self) -> dict[str, object]:
        """What the record says of the data, with the scores of the plainest answers."""
        return self.data.fingerprint() | {"plain": plain_scores(self.data)}

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
            "upright": self.data.upright,
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
