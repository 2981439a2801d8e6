"""The image recipe's flags."""

from __future__ import annotations

import math
from dataclasses import dataclass

AUGMENTATIONS = ("none", "flip", "flip-crop", "flip-erase")
"""Of images in memory."""
STREAMED_AUGMENTATIONS = ("resize-crop", "scale-crop", "scale-crop-colour")
"""Of images that are decoded as they are needed."""


@dataclass(frozen=True)
class ImageOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (fashion-mnist, emoji-groups), torchvision class on disk (CIFAR10),
            folder with train/ (val/, test/) of one folder a class, CSV list with the columns path,
            label, split, or folder of Parquet shards (train-00000.parquet,
            validation-00000.parquet, ... with image and label, as the hub's ImageNet; classes from
            the shards or classes.txt). Shards, imagenet and folders that memory would not hold are
            streamed.
        data_root: where torchvision's data sets lie; default redense's cache folder.
        model: small, vgg-small (the paper's kind, without batch-norm; --lr 0.02), vgg-small-bn
            (with batch-norm, wider), cifar-resnet20, cifar-resnet56 or any torchvision classifier
            (resnet18, vgg16, googlenet, ...).
        init: trained weights to start from instead of a first dense phase: a .pt, .ckpt or
            .safetensors file with the model's keys, a run's or an export's folder, or pretrained
            for torchvision's published ones in the local cache.
        head: kept, or new where --init knows other classes: its last layer is left out, and that of
            the data's classes starts afresh.
        train_images: how many images of a seeded shuffle to train on; default all.
        valid_share: of the training images, held out for validation where the data have no split
            for it; default a tenth, at most 5,000.
        label_noise: share of the training labels that are replaced by another class, drawn at
            random and the same for every seed; images in memory only.
        size: pixels a side; default as stored, 64 for folders and lists, 224 for streamed ones.
        upright: turn pictures as their EXIF data say the camera was held; false leaves them as they
            are stored, as torchvision does.
        batch: images an optimizer step, over all devices together.
        accumulate: parts that a step's images are trained in one after another, where memory is
            short. lr: learning rate that the phases' factors multiply.
        momentum: of SGD.
        weight_decay: L2 penalty, on every parameter as in the paper.
        nesterov: momentum as Nesterov's.
        ema: evaluate and export an exponential moving average of the weights, of this decay (0.999,
            say), that starts anew with each phase and so holds a sparse phase's zeros; default off.
        augment: none, flip (mirrored at random), flip-crop (mirrored and shifted by up to an
            eighth) or flip-erase (mirrored, and half of them with a piece of up to a third
            missing); for streamed folders also resize-crop (a crop of the image at 256/224 of the
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
    label_noise: float = 0.0
    size: int | None = None
    upright: bool = True
    init: str | None = None
    head: str = "kept"
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
        if self.augment not in (*AUGMENTATIONS, *STREAMED_AUGMENTATIONS):
            raise ValueError(
                f"augment must be one of {', '.join(AUGMENTATIONS)}, got {self.augment!r}; "
                f"streamed folders also take {', '.join(STREAMED_AUGMENTATIONS)}"
            )
        if self.head not in ("kept", "new"):
            raise ValueError(f"head must be kept or new, got {self.head!r}")
        if self.head == "new" and self.init is None:
            raise ValueError("head new needs trained weights to leave one out of; pass --init")
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
        if not 0 <= self.label_noise < 1:
            raise ValueError(
                f"label_noise must lie in [0, 1), got {self.label_noise}; 0.2 makes a fifth of the "
                "training labels wrong"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(
                f"ema must lie between 0 and 1, got {self.ema}; 0.999 and 0.9999 are usual"
            )
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum}; 0.9 is usual")
        for name in ("lr", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "lr" and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above' if name == 'lr' else 'at least'} 0, "
                    f"got {value}"
                )

    def check_sharding(self) -> None:
        """FSDP2 keeps no moving average, and Lightning resumes no optimizer without state (its
        `_rekey_optimizer_state_if_needed`, 2.6)."""
        if self.ema:
            raise ValueError(
                "strategy fsdp2 keeps no moving average of its shards; leave out --ema"
            )
        if not self.momentum:
            raise ValueError(
                "strategy fsdp2 needs a momentum above 0: Lightning resumes no optimizer without "
                "state"
            )
