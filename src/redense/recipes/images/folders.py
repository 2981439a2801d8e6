"""Image folders that are streamed: which files there are and what they show; nothing is decoded
here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torchvision.datasets import ImageFolder, ImageNet

from redense.recipes.images.data import shuffled

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation that torchvision's published weights expect."""


class Source(Protocol):
    """One split's images where they lie, by number."""

    def __len__(self) -> int:
        """How many."""

    def order(self, batch: int, seed: int | None, epoch: int, rank: int, ranks: int) -> list[int]:
        """A rank's image numbers in batches one after another: the epoch's shuffle, or with no seed
        each image once."""

    def reader(self, workers: int) -> Callable[[int], tuple[Any, int]]:
        """A picklable function from an image's number to (what PIL opens, label), for one of so
        many processes."""

    def title(self, number: int) -> str:
        """Where that image lies, for errors."""

    def lines(self) -> Iterator[str]:
        """What a fingerprint is made of."""


@dataclass(frozen=True)
class Files:
    """Images on disk: (path, label) each."""

    samples: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.samples)

    def order(self, batch: int, seed: int | None, epoch: int, rank: int, ranks: int) -> list[int]:
        """Every so many-th of one shuffle, so that ranks together see the batches that one
        would."""
        numbers = range(len(self)) if seed is None else shuffled(len(self), seed, epoch).tolist()
        return list(numbers[rank::ranks])

    def reader(self, workers: int) -> Callable[[int], tuple[str, int]]:
        """From a number to (path, label)."""
        return self.samples.__getitem__

    def title(self, number: int) -> str:
        """The path."""
        return self.samples[number][0]

    def lines(self) -> Iterator[str]:
        """Each file's place in its folder, length and label."""
        for path, label in self.samples:
            yield f"{'/'.join(Path(path).parts[-2:])} {Path(path).stat().st_size} {label}"


@dataclass(frozen=True)
class StreamedData:
    """A folder or shards by their three splits; ``test`` may be empty. Images come out as
    (channels, size, size).

    ``resize`` is the shorter side before the centre crop: 256 for 224, as in the paper.
    """

    name: str
    classes: tuple[str, ...]
    train: Source
    valid: Source
    test: Source
    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    channels: int = 3

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes and a sha256 over every file's name, length and labels, not its content."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            for line in split.lines():
                digest.update(f"{line}\n".encode())
        sizes = {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}
        return {
            "name": self.name,
            "sizes": sizes,
            "classes": len(self.classes),
            "sha256": digest.hexdigest(),
            "sha256_of": "file names, lengths and labels",
        }


def open_folder(
    name: str, size: int, *, root: Path | None = None, most: int | None = None
) -> StreamedData:
    """List a folder with train/ and val/ of one folder a class; nothing is decoded yet.

    Args:
        name: the folder, torchvision's ImageNet layout among them, or ``imagenet`` for the one in
            ``root``, whose archives torchvision unpacks if that has not been done.
        most: training images to keep, of a shuffle that is the same for every run.

    Raises:
        ValueError, FileNotFoundError: no such folder, no images in a class, a class that train/ has
            not.
    """
    folder = Path(root or ".") if name.lower() == "imagenet" else Path(name)
    parts = {part: folder / part for part in ("train", "val", "test")}
    if name.lower() == "imagenet" and not all(parts[part].is_dir() for part in ("train", "val")):
        try:
            for part in ("train", "val"):
                ImageNet(str(folder), part)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"torchvision's ImageNet is not in --data-root {folder}: {error}"
            ) from error
    if missing := [part for part in ("train", "val") if not parts[part].is_dir()]:
        raise FileNotFoundError(
            f"data {str(folder)!r} has no folder {missing[0]}/; images are streamed from train/ "
            "and val/ with one "
            f"folder a class"
        )
    classes = tuple(sorted(entry.name for entry in parts["train"].iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise ValueError(
            f"{parts['train']} has {len(classes)} folder; a classifier needs two or more, one a "
            "class"
        )
    splits = {
        part: list_images(path, classes) for part, path in parts.items() if _has_classes(path)
    }
    train = splits["train"]
    if most is not None and most < len(train):
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[
            :most
        ].tolist()
        train = Files(tuple(train.samples[number] for number in chosen))
    test = splits.get("test", Files(()))
    return StreamedData(
        folder.resolve().name, classes, train, splits["val"], test, size, resized(size)
    )


def resized(size: int) -> int:
    """What the shorter side is resized to before a crop of ``size``: 256 for 224."""
    return round(size * 256 / 224)


def list_images(folder: Path, classes: tuple[str, ...] | None = None) -> Files:
    """Every image of a folder with one folder a class; labels count ``classes``, or the folders by
    name.

    Raises:
        ValueError, FileNotFoundError: a class that is not in ``classes``, or one without an image.
    """
    found = ImageFolder(str(folder))
    known = classes or tuple(found.classes)
    if unknown := next((name for name in found.classes if name not in known), None):
        raise ValueError(
            f"{folder} holds class {unknown!r}, which is none of {', '.join(known[:10])}"
        )
    place = {number: known.index(name) for name, number in found.class_to_idx.items()}
    return Files(tuple((path, place[label]) for path, label in found.samples))


def _has_classes(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
