"""Read images whole into memory: packaged sets, torchvision's, and pictures on disk. Errors name
the file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2 import functional as T
from tqdm import tqdm

from redense.files.folders import SPLITS
from redense.files.pictures import middle, read_picture
from redense.recipes.images.folders import check_classes, complete_and_say, list_pictures, shuffled
from redense.recipes.packaged import open_packaged, read_tensors


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and their labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, numbers: Tensor) -> Split:
        """The images of those numbers."""
        return Split(self.images[numbers], self.labels[numbers])

    def first(self, most: int) -> Split:
        """So many of a shuffle that is the same for every run."""
        return self.pick(shuffled(len(self), 0, 0)[:most])


def read_packaged(name: str) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(splits, class names) of one of `redense.datasets`."""
    folder, card = open_packaged(name, "images")
    files = {kind: folder / f"{kind}.safetensors" for kind in ("train", "valid", "test")}
    splits = {kind: _read_split(file) for kind, file in files.items() if file.exists()}
    return splits, tuple(card.get("classes", ()))


def _read_split(file: Path) -> Split:
    tensors = read_tensors(file)
    if {"images", "labels"} - tensors.keys():
        raise ValueError(f"{file} holds {', '.join(tensors)}, not images and labels")
    return Split(tensors["images"], tensors["labels"].long())


def torchvision_class(name: str) -> type | None:
    """torchvision's data set of that name, in any case and with or without hyphens."""
    known = {key.lower(): key for key in torchvision.datasets.__all__}
    return (
        getattr(torchvision.datasets, known[key])
        if (key := name.lower().replace("-", "")) in known
        else None
    )


def read_torchvision(kind: type, root: Path) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(splits, class names) of a torchvision data set on disk."""
    parameters = inspect.signature(kind).parameters
    how = (
        ({"train": True}, {"train": False})
        if "train" in parameters
        else ({"split": "train"}, {"split": "test"})
    )
    try:
        sets = [kind(str(root), **arguments) for arguments in how]
    except TypeError as error:
        raise ValueError(
            f"torchvision's {kind.__name__} is no data set with a train and a test part ({error}); "
            "save what you need "
            f"of it as a folder of classes"
        ) from error
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"torchvision's {kind.__name__} is not in --data-root {root}: {error}"
        ) from error
    splits = {}
    for key, dataset in zip(("train", "test"), sets, strict=True):
        images = torch.empty(len(dataset), *T.pil_to_tensor(dataset[0][0]).shape, dtype=torch.uint8)
        labels = torch.empty(len(dataset), dtype=torch.long)
        title = f"{kind.__name__} {key}"
        for number, (image, label) in enumerate(_progress(dataset, title, len(dataset))):
            pixels = T.pil_to_tensor(image)
            if pixels.shape != images.shape[1:]:
                raise ValueError(
                    f"torchvision's {kind.__name__} has images of several sizes; save it as a "
                    "folder of classes"
                )
            images[number], labels[number] = pixels, int(label)
        splits[key] = Split(images, labels)
    named = getattr(sets[0], "classes", None) or range(int(splits["train"].labels.max()) + 1)
    return splits, tuple(str(name) for name in named)


def read_pictures(
    path: Path, size: int, most: int | None, valid_share: float | None, upright: bool = True
) -> tuple[Split, Split, Split, tuple[str, ...]]:
    """(train, valid, test, class names) of a folder or list; only what is kept is decoded."""
    splits, classes = list_pictures(path)
    check_classes(str(path), classes)
    parts = complete_and_say(str(path), splits, most, valid_share)
    titles = [f"{path.name} {names[0]}" for names in SPLITS.values()]
    train, valid, test = (
        _decode(
            [file for file, _ in part.samples],
            [label for _, label in part.samples],
            size,
            title,
            upright,
        )
        for part, title in zip(parts, titles, strict=True)
    )
    return train, valid, test, classes


def _decode(
    files: Sequence[str], labels: Sequence[int], size: int, title: str, upright: bool = True
) -> Split:
    """Pictures by their middle square, resized to ``size``."""
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for number, file in enumerate(_progress(files, f"reading {title}", len(files))):
        try:
            pixels = T.pil_to_tensor(middle(read_picture(file, upright=upright)))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file}, which {title} lists, does not exist") from error
        images[number] = T.center_crop(T.resize(pixels, [size], antialias=True), [size, size])
    return Split(images, torch.tensor(labels, dtype=torch.long))


def _progress(items, title: str, total: int):  # type: ignore[no-untyped-def]
    return tqdm(items, title, total, leave=False, disable=None, delay=1.0)
