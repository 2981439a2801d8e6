"""Images for training: any packaged, torchvision or folder data set as whole tensors, and seeded
batches of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from redense import datasets
from redense.files.names import near
from redense.recipes.images import readers
from redense.recipes.images.erasing import erase
from redense.recipes.images.folders import (
    check_classes,
    complete,
    is_list,
    shuffled,
)
from redense.recipes.images.noise import mislabel
from redense.recipes.images.readers import Split
from redense.runs.seeds import rank_seed

_MOST_FLOATS = 40_000_000


@dataclass(frozen=True)
class ImageData:
    """A data set by its three splits; ``test`` may be empty; ``mean`` and ``std`` of train's pixels
    in [0, 1]; ``notes`` are what a reader of its scores must know; ``upright`` as for
    `read_picture`."""

    name: str
    classes: tuple[str, ...]
    train: Split
    valid: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    upright: bool = True

    @property
    def channels(self) -> int:
        """Planes of an image."""
        return self.train.images.shape[1]

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[3]

    @property
    def resize(self) -> int:
        """The shorter side before the centre crop."""
        return self.size

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes and a sha256 over every pixel and label, for the record."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            digest.update(split.images.contiguous().numpy())
            digest.update(split.labels.contiguous().numpy())
        sizes = {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}
        found: dict[str, object] = {
            "name": self.name,
            "sizes": sizes,
            "classes": len(self.classes),
            "sha256": digest.hexdigest(),
        }
        return found | ({"notes": list(self.notes)} if self.notes else {})


@lru_cache(maxsize=1)  # a study's worker runs many jobs on the same data
def load(
    name: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    root: Path | None = None,
    most: int | None = None,
    valid_share: float | None = None,
    label_noise: float = 0.0,
    upright: bool = True,
) -> ImageData:
    """Read a data set whole into memory.

    Args:
        name: a packaged set (``fashion-mnist``), a torchvision class on disk under ``root``
            (``CIFAR10``), or a folder or list that `folders.list_pictures` reads.
        size: height and width; shorter side resized, centre cropped. Default: as stored, 64 for
            folders and lists.
        channels: 1 or 3; default as stored, 3 for folders and lists.
        most, valid_share: see `folders.complete`.
        label_noise: share of the training labels that `mislabel` replaces.
        upright: of pictures on disk, as for `read_picture`.

    Raises:
        ValueError, FileNotFoundError: a missing folder, a damaged image, a label outside the
            classes: each by name.
    """
    path = Path(name)
    if is_list(path) or path.is_dir():
        train, valid, test, classes = readers.read_pictures(
            path, size or 64, most, valid_share, upright
        )
    else:
        splits, classes = _read_named(name, root)
        check_classes(name, classes)
        for kind, split in splits.items():
            _check_labels(f"{name} {kind}", split, len(classes))
        train, valid, test = complete(name, splits, most, valid_share)
    train, valid, test = (_reshape(split, size, channels) for split in (train, valid, test))
    # every so many-th image, for their pixels as floats take four times the memory
    apart = max(len(train) // 10_000, math.ceil(train.images.numel() / _MOST_FLOATS), 1)
    std, mean = torch.std_mean(train.images[::apart].float().div_(255), dim=(0, 2, 3))
    notes = ()
    if label_noise:
        given = train.labels
        train = Split(train.images, mislabel(given, label_noise, len(classes)))
        notes = (_note(given, train.labels),)
    return ImageData(
        path.name,
        classes,
        train,
        valid,
        test,
        tuple(mean.tolist()),
        tuple((std + 1e-6).tolist()),
        notes,
        upright,
    )


class Batches:
    """Normalised, augmented batches of a split: the same for the same seed and epoch, on however
    many ranks.

    Iterating gives (images (B, C, H, W) float32, labels (B,)); ``set_epoch`` comes before each
    epoch.
    """

    def __init__(
        self,
        data: ImageData,
        split: Split,
        batch: int,
        *,
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
    ) -> None:
        self._mean = torch.tensor(data.mean).view(-1, 1, 1)
        self._scale = 1 / torch.tensor(data.std).view(-1, 1, 1)
        self._split, self._seed, self._augment, self._rank, self._ranks = (
            split,
            seed,
            augment,
            rank,
            ranks,
        )
        self._batch, self._accumulate = max(batch // ranks, 1), accumulate
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        if self._seed is None:
            return math.ceil(
                len(self._split) / (self._batch * self._ranks)
            )  # on every rank, though its last be empty
        whole = len(self._split) // (self._batch * self._ranks)
        return max(whole - whole % self._accumulate, 1)  # whole optimizer steps only

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._seed is None:
            order = torch.arange(self._rank, len(self._split), self._ranks)
            generator = None
        else:
            order = shuffled(len(self._split), self._seed, self._epoch)[self._rank :: self._ranks]
            generator = torch.Generator().manual_seed(
                rank_seed(self._seed, self._epoch, self._rank)
            )
        for number in range(len(self)):
            chosen = order[number * self._batch : (number + 1) * self._batch]
            images = self._split.images[chosen]
            if generator is not None:
                images = _AUGMENT[self._augment](images, generator)
            pixels = images.float().div_(255).sub_(self._mean).mul_(self._scale)
            yield pixels.contiguous(memory_format=torch.channels_last), self._split.labels[chosen]


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)


def _flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored or not, and shifted by up to an eighth of the side on zeros (He et al. 2015: 4 of 32
    pixels)."""
    n, _, height, width = images.shape
    pad = max(height // 8, 1)
    padded = F.pad(_flip(images, generator), (pad, pad, pad, pad))
    down, right = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + down).unsqueeze(2)  # (B, H, 1)
    columns = (torch.arange(width) + right).unsqueeze(1)  # (B, 1, W)
    return padded[torch.arange(n).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2).contiguous()


def _flip_erase(images: Tensor, generator: torch.Generator) -> Tensor:
    return erase(_flip(images, generator), generator)


_AUGMENT = {
    "none": lambda images, generator: images,
    "flip": _flip,
    "flip-crop": _flip_crop,
    "flip-erase": _flip_erase,
}


def _read_named(name: str, root: Path | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    if name in datasets.names():
        return readers.read_packaged(name)
    if known := readers.torchvision_class(name):
        return readers.read_torchvision(known, root or datasets.cache())
    if Path(name).is_file():
        raise ValueError(
            f"data {name!r}: a file of a kind that is not read; give a folder with train/, "
            "unpacked, or a .csv list"
        )
    if "/" in name or Path(name).suffix:
        raise FileNotFoundError(
            f"data {name!r}: no such folder; it needs train/ with one folder per class"
        )
    known_names = [*datasets.names(), "CIFAR10", "CIFAR100"]
    hint = near(name, known_names, 0.6) or "there is none alike:"
    raise ValueError(
        f"no data set is called {name!r}; {hint} it takes {', '.join(datasets.names())}, a "
        "torchvision class such as CIFAR10, a folder with train/, or a .csv list"
    )


def _note(given: Tensor, mislabelled: Tensor) -> str:
    return (
        f"{int((given != mislabelled).sum()):,} of {len(given):,} training labels are wrong on "
        "purpose (--label-noise); those of validation and test are the data's own"
    )


def _check_labels(title: str, split: Split, classes: int) -> None:
    if not len(split):
        raise ValueError(f"{title} is empty")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{title}: label {low if low < 0 else high} lies outside the {classes} classes (0 to "
            f"{classes - 1})"
        )


def _reshape(split: Split, size: int | None, channels: int | None) -> Split:
    images = split.images
    if channels is not None and channels != images.shape[1]:
        images = (
            images.expand(-1, 3, -1, -1).contiguous()
            if channels == 3
            else T.rgb_to_grayscale(images)
        )
    if size is not None and len(images) and images.shape[2:] != (size, size):
        images = T.center_crop(T.resize(images, [size], antialias=True), [size, size])
    return Split(images, split.labels)
