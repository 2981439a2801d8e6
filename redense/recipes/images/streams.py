"""Image folders too large for memory: each image is decoded and augmented anew, by worker processes, when it is due."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder, ImageNet
from torchvision.transforms import v2

from redense.recipes.images.data import shuffled

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation that torchvision's published weights expect."""
AUGMENTATIONS = ("resize-crop", "scale-crop", "scale-crop-colour")
"""Those that need the whole image and so always stream; the others stream when the folder exceeds memory."""
_MOST_BYTES = 8 << 30


@dataclass(frozen=True)
class Files:
    """Images on disk: (path, label) each."""

    samples: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class StreamedData:
    """A folder by its three splits; ``test`` may be empty. Images come out as (channels, size, size).

    ``resize`` is the shorter side before the centre crop: 256 for 224, as in the paper.
    """

    name: str
    classes: tuple[str, ...]
    train: Files
    valid: Files
    test: Files
    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    channels: int = 3

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes and a sha256 over every file's place in its folder and length, not its content."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            for path, label in split.samples:
                digest.update(f"{'/'.join(Path(path).parts[-2:])} {Path(path).stat().st_size} {label}\n".encode())
        sizes = {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}
        return {
            "name": self.name,
            "sizes": sizes,
            "classes": len(self.classes),
            "sha256": digest.hexdigest(),
            "sha256_of": "file names and lengths",
        }


def wanted(name: str, augment: str, size: int | None) -> bool:
    """Whether to stream: the augmentation needs whole images, or ``name`` is a folder that memory would not hold."""
    if augment in AUGMENTATIONS or name.lower() == "imagenet":
        return True
    if not Path(name).is_dir():
        return False
    fit = _MOST_BYTES // (3 * (size or 64) ** 2)
    return any(number >= fit for number, _ in enumerate((Path(name) / "train").glob("*/*")))


def open_folder(name: str, size: int, *, root: Path | None = None, most: int | None = None) -> StreamedData:
    """List a folder with train/ and val/ of one folder a class; nothing is decoded yet.

    Args:
        name: the folder, torchvision's ImageNet layout among them, or ``imagenet`` for the one in ``root``, whose
            archives torchvision unpacks if that has not been done.
        most: training images to keep, of a shuffle that is the same for every run.

    Raises:
        ValueError, FileNotFoundError: no such folder, no images in a class, a class that train/ has not.
    """
    folder = Path(root or ".") if name.lower() == "imagenet" else Path(name)
    parts = {part: folder / part for part in ("train", "val", "test")}
    if name.lower() == "imagenet" and not all(parts[part].is_dir() for part in ("train", "val")):
        try:
            for part in ("train", "val"):
                ImageNet(str(folder), part)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(f"torchvision's ImageNet is not in --data-root {folder}: {error}") from error
    if missing := [part for part in ("train", "val") if not parts[part].is_dir()]:
        raise FileNotFoundError(
            f"data {str(folder)!r} has no folder {missing[0]}/; images are streamed from train/ and val/ with one "
            f"folder a class"
        )
    classes = tuple(sorted(entry.name for entry in parts["train"].iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise ValueError(f"{parts['train']} has {len(classes)} folder; a classifier needs two or more, one a class")
    splits = {part: list_images(path, classes) for part, path in parts.items() if _has_classes(path)}
    train = splits["train"]
    if most is not None and most < len(train):
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:most].tolist()
        train = Files(tuple(train.samples[number] for number in chosen))
    test = splits.get("test", Files(()))
    return StreamedData(folder.resolve().name, classes, train, splits["val"], test, size, resized(size))


def resized(size: int) -> int:
    """What the shorter side is resized to before a crop of ``size``: 256 for 224."""
    return round(size * 256 / 224)


def list_images(folder: Path, classes: tuple[str, ...] | None = None) -> Files:
    """Every image of a folder with one folder a class; labels count ``classes``, or the folders by name.

    Raises:
        ValueError, FileNotFoundError: a class that is not in ``classes``, or one without an image.
    """
    found = ImageFolder(str(folder))
    known = classes or tuple(found.classes)
    if unknown := next((name for name in found.classes if name not in known), None):
        raise ValueError(f"{folder} holds class {unknown!r}, which is none of {', '.join(known[:10])}")
    place = {number: known.index(name) for name, number in found.class_to_idx.items()}
    return Files(tuple((path, place[label]) for path, label in found.samples))


class StreamedBatches:
    """Normalised, augmented batches: the same for the same seed and epoch, whatever the ranks and workers.

    Iterating gives (images (B, channels, size, size) float32 channels_last, labels (B,)); ``set_epoch`` comes before
    each epoch. Each image draws its augmentation from (seed, epoch, its number).
    """

    def __init__(
        self, data: StreamedData, split: Files, batch: int, *, seed: int | None = None, augment: str = "none",
        rank: int = 0, ranks: int = 1, accumulate: int = 1, workers: int | None = None,
    ) -> None:  # fmt: skip
        self._numbers = _Numbers(len(split), max(batch // ranks, 1), seed, rank, ranks, accumulate)
        self._shape = data.channels, data.size, data.size
        transform = transforms(data, "centre" if seed is None else augment)
        if workers is None:
            workers = min((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 8)
        self._loader = DataLoader(
            _Images(split, transform, seed, "L" if data.channels == 1 else "RGB"),
            batch_sampler=self._numbers,
            num_workers=workers,
            persistent_workers=workers > 0 and seed is not None,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_collate,
            generator=torch.Generator(),  # its own: else it would draw from the one that dropout draws from
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation come next."""
        self._numbers.epoch = epoch

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, str):
                raise ValueError(batch)
            yield batch[0].view(-1, *self._shape), batch[1]


def transforms(data: StreamedData, augment: str) -> v2.Transform:
    """From a PIL image to normalised pixels (channels, size, size)."""
    size, flip = data.size, v2.RandomHorizontalFlip()
    centre = [v2.Resize(data.resize, antialias=True), v2.CenterCrop(size)]
    whole = v2.RandomResizedCrop(size, antialias=True)
    first = {
        "centre": centre,
        "none": centre,
        "flip": [*centre, flip],
        "flip-crop": [*centre, flip, v2.RandomCrop(size, padding=max(size // 8, 1))],
        "resize-crop": [v2.Resize(data.resize, antialias=True), v2.RandomCrop(size), flip],
        "scale-crop": [whole, flip],
        "scale-crop-colour": [whole, v2.ColorJitter(0.4, 0.4, 0.4), flip],  # fb.resnet.torch's, without its Lighting
    }[augment]
    last = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std)]
    return v2.Compose([*first, *last])


class _Numbers:
    """Batches of (epoch, image number): shuffled and in whole optimizer steps with a seed, else all in order."""

    def __init__(self, length: int, batch: int, seed: int | None, rank: int, ranks: int, accumulate: int) -> None:
        self.epoch = 0
        self._length, self._batch, self._seed = length, batch, seed
        self._rank, self._ranks, self._accumulate = rank, ranks, accumulate

    def __len__(self) -> int:
        if self._seed is None:
            return math.ceil(self._length / (self._batch * self._ranks))  # on every rank, though its last be empty
        whole = self._length // (self._batch * self._ranks)
        return max(whole - whole % self._accumulate, 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        numbers = range(self._length) if self._seed is None else shuffled(self._length, self._seed, self.epoch).tolist()
        own = numbers[self._rank :: self._ranks]
        for start in range(0, len(self) * self._batch, self._batch):
            yield [(self.epoch, number) for number in own[start : start + self._batch]]


class _Images(Dataset[Any]):
    """Item (epoch, number): (pixels, label), or what is wrong with the file."""

    def __init__(self, split: Files, transform: v2.Transform, seed: int | None, mode: str) -> None:
        self._samples, self._transform, self._seed, self._mode = split.samples, transform, seed, mode

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, number = item
        path, label = self._samples[number]
        try:
            with Image.open(path) as image:
                pixels = image.convert(self._mode)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{path} is not a whole image ({error}); repair or remove it"
        with torch.random.fork_rng([], enabled=self._seed is not None):
            if self._seed is not None:
                drawn = hashlib.sha256(f"{self._seed} {epoch} {number}".encode()).digest()
                torch.manual_seed(int.from_bytes(drawn[:8], "little"))
            return self._transform(pixels), label


def _collate(items: list[tuple[Tensor, int] | str]) -> tuple[Tensor, Tensor] | str:
    if broken := [item for item in items if isinstance(item, str)]:
        return broken[0]
    images = torch.stack([pixels for pixels, _ in items]) if items else torch.empty(0, 1, 1, 1)  # type: ignore[misc]
    labels = torch.tensor([label for _, label in items], dtype=torch.int64)
    return images.contiguous(memory_format=torch.channels_last), labels


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
