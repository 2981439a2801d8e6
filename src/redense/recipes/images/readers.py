"""Read images from where they lie: packaged sets, torchvision's, folders of classes, lists. Errors
name the file."""

from __future__ import annotations

import csv
import inspect
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.v2 import functional as T
from tqdm import tqdm

from redense import datasets
from redense.files.pictures import middle, read_picture

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_MOST_BYTES = 8 << 30


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and their labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def read_packaged(name: str) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(splits, class names) of one of `redense.datasets`."""
    folder = datasets.prepare(name)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    if card["task"] != "images":
        raise ValueError(f"data set {name!r} is for {card['task']}, not for images")
    files = {kind: folder / f"{kind}.safetensors" for kind in ("train", "valid", "test")}
    tensors = {kind: load_file(file) for kind, file in files.items() if file.exists()}
    return {kind: Split(t["images"], t["labels"].long()) for kind, t in tensors.items()}, tuple(
        card["classes"]
    )


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
        images = [
            T.pil_to_tensor(image)
            for image, _ in _progress(dataset, f"{kind.__name__} {key}", len(dataset))
        ]
        if len({image.shape for image in images}) > 1:
            raise ValueError(
                f"torchvision's {kind.__name__} has images of several sizes; save it as a folder "
                "of classes"
            )
        splits[key] = Split(torch.stack(images), torch.tensor([int(label) for _, label in dataset]))
    named = getattr(sets[0], "classes", None) or range(int(splits["train"].labels.max()) + 1)
    return splits, tuple(str(name) for name in named)


def read_folder(folder: Path, size: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(splits, class names) of train/, val/ and perhaps test/, each with one folder a class."""
    if missing := [part for part in ("train", "val") if not (folder / part).is_dir()]:
        raise FileNotFoundError(
            f"data {str(folder)!r} has no folder {missing[0]}/; it needs train/ and val/"
        )
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir()))
    if not classes:
        raise ValueError(f"{folder / 'train'} holds no folder; it needs one folder a class")
    splits = {}
    for kind, part in (("train", "train"), ("valid", "val"), ("test", "test")):
        if not (folder / part).is_dir():
            continue
        files = sorted(
            file for file in (folder / part).glob("*/**/*") if file.suffix.lower() in _EXTENSIONS
        )
        names = [file.relative_to(folder / part).parts[0] for file in files]
        if unknown := next((name for name in names if name not in classes), None):
            raise ValueError(
                f"{folder / part} holds class {unknown!r}, which train/ has not: "
                f"{', '.join(classes[:10])}"
            )
        splits[kind] = _decode(
            files, [classes.index(name) for name in names], size, f"{folder.name} {part}"
        )
    return splits, classes


def read_list(path: Path, size: int) -> tuple[dict[str, Split], tuple[str, ...]]:
    """(splits, class names) of a CSV or TSV with the columns path, label and split (train, val,
    test)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"data {str(path)!r}: no such list; it needs the columns path, label and split"
        )
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    if not rows or _missing_columns(rows[0]):
        raise ValueError(
            f"{path} needs a header with the columns path, label and split, got "
            f"{list(rows[0]) if rows else []}"
        )
    for number, row in enumerate(rows, start=2):
        if row["split"] not in ("train", "val", "test") or not row["path"] or not row["label"]:
            raise ValueError(
                f"{path}, line {number}: needs a path, a label and train, val or test, got "
                f"{list(row.values())}"
            )
    classes = tuple(sorted({row["label"] for row in rows if row["split"] == "train"}))
    splits = {}
    for kind, part in (("train", "train"), ("valid", "val"), ("test", "test")):
        chosen = [row for row in rows if row["split"] == part]
        if unknown := next((row for row in chosen if row["label"] not in classes), None):
            raise ValueError(
                f"{path}: label {unknown['label']!r} of {unknown['path']} is in no training row"
            )
        if chosen:
            files = [path.parent / row["path"] for row in chosen]
            splits[kind] = _decode(
                files, [classes.index(row["label"]) for row in chosen], size, f"{path.name} {part}"
            )
    if "train" not in splits:
        raise ValueError(f"{path} has no row with split=train")
    return splits, classes


def _missing_columns(row: dict[str, str]) -> list[str]:
    return [column for column in ("path", "label", "split") if column not in row]


def _decode(files: list[Path], labels: list[int], size: int, title: str) -> Split:
    if not files:
        raise ValueError(f"{title} holds no image ({', '.join(sorted(_EXTENSIONS))})")
    if (needed := len(files) * 3 * size * size) > _MOST_BYTES:
        raise ValueError(
            f"{title}: {len(files)} images at {size} px take {needed >> 30} GiB of memory, more "
            "than "
            f"{_MOST_BYTES >> 30}; pass a smaller --size"
        )
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    for number, file in enumerate(_progress(files, f"reading {title}", len(files))):
        try:
            pixels = T.pil_to_tensor(middle(read_picture(file)))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file}, which {title} lists, does not exist") from error
        images[number] = T.center_crop(T.resize(pixels, [size], antialias=True), [size, size])
    return Split(images, torch.tensor(labels))


def _progress(items, title: str, total: int):  # type: ignore[no-untyped-def]
    return tqdm(items, title, total, leave=False, disable=None, delay=1.0)
