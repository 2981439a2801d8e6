"""Pictures on disk: which files there are and what they show; nothing is decoded here."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torchvision.datasets import ImageNet

from redense.files.folders import (
    list_classes,
    place_of,
    plain_name,
    say,
    split_folders,
    split_of,
)
from redense.files.text import read_table
from redense.files.typed import check
from redense.recipes.images.forms import COLUMNS, ROW
from redense.runs.seeds import epoch_seed

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation that torchvision's published weights expect."""


class Part(Protocol):
    """One split's images, of whatever kind."""

    def __len__(self) -> int:
        """How many."""

    def pick(self, numbers: Tensor) -> Self:
        """The images of those numbers."""

    def first(self, most: int) -> Self:
        """So many of a shuffle that is the same for every run."""


AnyPart = TypeVar("AnyPart", bound=Part)


class Source(Part, Protocol):
    """One split's images where they lie, by number."""

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

    @property
    def labels(self) -> Tensor:
        """(N,) of all images in order."""


@dataclass(frozen=True)
class Files:
    """Images on disk: (path, label) each."""

    samples: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Tensor:
        """(N,) of all images in order."""
        return torch.tensor([label for _, label in self.samples], dtype=torch.long)

    def pick(self, numbers: Tensor) -> Files:
        """The images of those numbers."""
        return Files(tuple(self.samples[number] for number in numbers.tolist()))

    def first(self, most: int) -> Files:
        """So many of a shuffle that is the same for every run."""
        return self.pick(shuffled(len(self), 0, 0)[:most])

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
            place = unicodedata.normalize("NFC", "/".join(Path(path).parts[-2:]))
            yield f"{place} {Path(path).stat().st_size} {label}"


@dataclass(frozen=True)
class StreamedData:
    """A folder, list or shards by their three splits; ``test`` may be empty. Images come out as
    (channels, size, size).

    ``resize`` is the shorter side before the centre crop: 256 for 224, as in the paper; ``upright``
    is as for `read_picture`.
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
    upright: bool = True

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes and a sha256 over every file's name, length and labels, not its content."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            for line in split.lines():
                digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        sizes = {"train": len(self.train), "valid": len(self.valid), "test": len(self.test)}
        return {
            "name": self.name,
            "sizes": sizes,
            "classes": len(self.classes),
            "sha256": digest.hexdigest(),
            "sha256_of": "file names, lengths and labels",
        }


def list_pictures(
    path: Path, classes: tuple[str, ...] = ()
) -> tuple[dict[str, Files], tuple[str, ...]]:
    """(splits, class names) of a folder or a list, each picture's label by its class's name.

    Args:
        path: a folder with ``train/``, perhaps ``val/`` and ``test/``, of one folder per class; or
            a CSV or TSV with the columns path, label and split.
        classes: that labels shall count; default those of the training pictures, which a list need
            not have where these are given.

    Raises:
        ValueError, FileNotFoundError: no such data, no training picture, or a class that training
            has not, by name.
    """
    named = _rows_of_list(path) if is_list(path) else _rows_of_folder(path)
    if not named["train"] and not classes:
        raise ValueError(f"{path} has no row with split=train")
    classes = classes or tuple(sorted({label for _, label in named["train"]}))
    return {split: by_name(rows, classes) for split, rows in named.items() if rows}, classes


def by_name(rows: Sequence[tuple[str, str]], classes: Sequence[str]) -> Files:
    """(path, class) pairs as files whose labels count ``classes``.

    Raises:
        ValueError: names a class that is none of them.
    """
    place = {name: number for number, name in enumerate(classes)}
    for path, label in rows:
        if label not in place:
            raise ValueError(f"{path} is of class {label!r}, which is none of {few(classes)}")
    return Files(tuple((path, place[label]) for path, label in rows))


def by_class(pictures: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Files:
    """`by_name` of what `list_classes` lists."""
    return by_name([(path, label) for label, some in pictures.items() for path in some], classes)


def is_list(path: Path) -> bool:
    """Whether it is called like a CSV or TSV list."""
    return path.suffix.lower() in (".csv", ".tsv")


def complete(
    title: str, splits: Mapping[str, AnyPart], most: int | None, share: float | None
) -> tuple[AnyPart, AnyPart, AnyPart]:
    """(train, valid, test), where ``valid`` may have to be held out of train and test be empty.

    Args:
        most: training images to keep, of a shuffle that is the same for every run.
        share: of train that is held out where no split is for validation; default a tenth, at most
            5,000.
    """
    train, valid = splits["train"], splits.get("valid")
    if valid is None:
        held = max(min(len(train) // 10, 5000) if share is None else int(len(train) * share), 1)
        if held >= len(train):
            raise ValueError(f"{title} has {len(train)} training image; it needs two or more")
        order = shuffled(len(train), 0, 0)
        train, valid = train.pick(order[:-held]), train.pick(order[-held:])
    test = splits.get("test", train.pick(torch.empty(0, dtype=torch.long)))
    return train if most is None or most >= len(train) else train.first(most), valid, test


def complete_and_say(
    title: str, splits: Mapping[str, AnyPart], most: int | None, share: float | None
) -> tuple[AnyPart, AnyPart, AnyPart]:
    """`complete`, which of a user's own data says that validation images are held out."""
    train, valid, test = complete(title, splits, most, share)
    if "valid" not in splits:
        say(f"{title} has no validation split: {len(valid):,} training images are held out for it")
    return train, valid, test


def open_folder(
    name: str,
    size: int,
    *,
    root: Path | None = None,
    most: int | None = None,
    valid_share: float | None = None,
) -> StreamedData:
    """List a folder or a CSV list; nothing is decoded yet.

    Args:
        name: see `list_pictures`; torchvision's ImageNet layout is among them, and ``imagenet`` is
            the one in ``root``, whose archives torchvision unpacks if that has not been done.
        most, valid_share: see `complete`.

    Raises:
        ValueError, FileNotFoundError: no such folder, or fewer than two classes.
    """
    path = Path(name)
    if name.lower() == "imagenet":
        path = Path(root or ".")
        _unpack_imagenet(path)
    splits, classes = list_pictures(path)
    check_classes(name, classes)
    parts = complete_and_say(name, splits, most, valid_share)
    return StreamedData(path.resolve().name, classes, *parts, size, resized(size))


def check_classes(name: str, classes: Sequence[str]) -> None:
    """Raise ValueError where there are fewer than two."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} has one class only, {', '.join(classes)}; a classifier needs two or more"
        )


def shuffled(length: int, seed: int, epoch: int) -> Tensor:
    """The epoch's order of ``length`` images, the same on every rank."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    return torch.randperm(length, generator=generator)


def resized(size: int) -> int:
    """What the shorter side is resized to before a crop of ``size``: 256 for 224."""
    return round(size * 256 / 224)


def few(classes: Sequence[str]) -> str:
    """``3 classes (blue, green, red)``, the first ten of them."""
    more = ", ..." if len(classes) > 10 else ""
    return f"{len(classes)} classes ({', '.join(classes[:10])}{more})"


def _rows_of_folder(folder: Path) -> dict[str, list[tuple[str, str]]]:
    if folder.is_file():
        raise ValueError(
            f"data {str(folder)!r}: a file of a kind that is not read; give a folder with train/, "
            "unpacked, or a .csv list"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"data {str(folder)!r}: no such folder; it needs train/")
    parts = split_folders(folder)
    if "train" not in parts:
        raise FileNotFoundError(
            f"data {str(folder)!r} has no folder train/, of one folder per class"
        )
    named = {
        split: [(path, label) for label, files in list_classes(part).items() for path in files]
        for split, part in parts.items()
    }
    known = {label for _, label in named["train"]}
    for split, part in parts.items():
        if not named[split] and split != "test":
            raise ValueError(f"{part} holds no image; it needs one folder per class")
    if "test" in named and not any(label in known for _, label in named["test"]):
        say(f"{parts['test']} has no folder of a class that is trained; it is no test split")
        del named["test"]
    return named


def _rows_of_list(path: Path) -> dict[str, list[tuple[str, str]]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"data {str(path)!r}: no such list; it needs the columns path, label and split"
        )
    named: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    unlabelled = 0
    for number, row in read_table(path):
        if missing := [field.names[0] for field in COLUMNS if field.names[0] not in row]:
            raise ValueError(
                f"{path} needs a header with the columns path, label and split, got {list(row)}; "
                f"it has no {missing[0]}"
            )
        cells = {**row, "path": row["path"].strip(), "split": row["split"].strip().lower()}
        check(cells, ROW, f"{path}, line {number}")
        if not row["label"].strip():
            unlabelled += 1
            continue
        file, split = str(place_of(path.parent, cells["path"])), split_of(cells["split"])
        named[str(split)].append((file, plain_name(row["label"], path)))
    if unlabelled:
        say(f"{path}: {unlabelled} rows without a label are left out")
    _check_apart(path, named)
    return named


def _check_apart(path: Path, named: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Say which pictures are in two splits, where scores flatter; refuse one of two classes."""
    classes: dict[str, str] = {}
    for file, label in (row for rows in named.values() for row in rows):
        if (first := classes.setdefault(file, label)) != label:
            raise ValueError(
                f"{path}: {file} is of class {first!r} and of class {label!r}; give it one"
            )
    files = {split: {file for file, _ in rows} for split, rows in named.items()}
    for one, other in combinations(files, 2):
        if shared := files[one] & files[other]:
            say(
                f"{path}: {len(shared)} images are in {one} and in {other}, {min(shared)} first, "
                "so scores flatter; keep each in one"
            )


def _unpack_imagenet(folder: Path) -> None:
    if all((folder / part).is_dir() for part in ("train", "val")):
        return
    try:
        for part in ("train", "val"):
            ImageNet(str(folder), part)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"torchvision's ImageNet is not in --data-root {folder}: {error}"
        ) from error
