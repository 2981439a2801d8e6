"""Read caption sets from where they lie: packaged ones, Karpathy's JSON, COCO's JSON. Errors name
files and count."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redense import datasets
from redense.files.words import words

LeftOut = defaultdict[str, list[str]]
"""Reason to the names of what was left out for it."""

SPLITS = {"train": "train", "restval": "train", "val": "valid", "valid": "valid", "test": "test"}
"""Karpathy's names of splits, and ours."""


@dataclass(frozen=True)
class Picture:
    """One image: its file, its captions as words, its split, and its column in a feature matrix
    beside the JSON."""

    file: Path
    captions: tuple[tuple[str, ...], ...]
    split: str
    column: int


@dataclass(frozen=True)
class Annotations:
    """A caption set; ``left_out`` names what was not usable, by reason."""

    name: str
    pictures: tuple[Picture, ...]
    features: Path | None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read(data: str, images: Path | None = None) -> Annotations:
    """The annotations of a packaged set, a folder or a JSON file.

    Args:
        data: a packaged set (``emoji``), a JSON file in Karpathy's or COCO's form, or a folder with
            ``dataset.json`` or ``captions.json`` (and perhaps ``vgg_feats.mat``), or with COCO's
            ``annotations/captions_*.json``.
        images: where the images lie; default ``images``, ``imgs`` or the folder of the JSON itself.
    """
    path = Path(data)
    if data in datasets.names() and not path.exists():
        path = datasets.prepare(data)
        task = json.loads((path / "card.json").read_text("utf-8"))["task"]
        if task != "captions":
            raise ValueError(f"data set {data!r} is for {task}, not for captions")
    if not path.exists():
        raise FileNotFoundError(
            f"data {data!r}: neither a packaged set ({', '.join(datasets.names())}) nor a folder "
            "or JSON file"
        )
    files = _annotation_files(path)
    folder = path if path.is_dir() else path.parent
    contents = [(file, _load(file)) for file in files]
    if all("annotations" in content for _, content in contents):
        pictures, left_out = _coco(contents, images or folder)
    elif len(contents) == 1:
        pictures, left_out = _karpathy(*contents[0], images or _image_folder(folder))
    else:
        raise ValueError(
            f"{files[0]} has no list called annotations, which COCO's caption files have"
        )
    features = folder / "vgg_feats.mat"
    return Annotations(
        path.stem, tuple(pictures), features if features.exists() else None, _named(left_out)
    )


def check_images(pictures: Sequence[Picture]) -> None:
    """Raise FileNotFoundError that names the first missing images and counts all."""
    missing = [picture.file for picture in pictures if not picture.file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pictures)} images are missing: {some(missing)}; --images "
            "names their folder"
        )


def _karpathy(
    file: Path, content: Mapping[str, Any], images: Path
) -> tuple[list[Picture], LeftOut]:
    """dataset.json of Karpathy's splits: images with filename, split and sentences."""
    pictures: list[Picture] = []
    left_out: LeftOut = defaultdict(list)
    for number, image in enumerate(content.get("images") or ()):
        if missing := [key for key in ("filename", "split", "sentences") if key not in image]:
            raise ValueError(
                f"{file}: image {number} has no {missing[0]}; Karpathy's form has filename, split, "
                "sentences"
            )
        if image["split"] not in SPLITS:
            raise ValueError(
                f"{file}: {image['filename']} is in split {image['split']!r}; known: "
                f"{', '.join(SPLITS)}"
            )
        said = (
            s["tokens"] if "tokens" in s else words(s.get("raw", "")) for s in image["sentences"]
        )
        path = images / image.get("filepath", "") / image["filename"]
        pictures += _picture(
            path, said, SPLITS[image["split"]], image.get("imgid", number), left_out
        )
    return pictures, left_out


def _coco(
    contents: Sequence[tuple[Path, Mapping[str, Any]]], images: Path
) -> tuple[list[Picture], LeftOut]:
    """COCO's captions_train2017.json, captions_val2017.json: lists images (id, file_name) and
    annotations."""
    pictures: list[Picture] = []
    left_out: LeftOut = defaultdict(list)
    for file, content in contents:
        part = file.stem.removeprefix("captions_")
        split = (
            "valid" if part.startswith("val") else "test" if part.startswith("test") else "train"
        )
        said: dict[int, list[list[str]]] = {image["id"]: [] for image in content["images"]}
        unknown = [one["image_id"] for one in content["annotations"] if one["image_id"] not in said]
        if unknown:
            raise ValueError(
                f"{file}: {len(unknown)} captions are of images that it does not list: "
                f"{some(unknown)}"
            )
        for one in content["annotations"]:
            said[one["image_id"]].append(words(one["caption"]))
        folder = images / part if (images / part).is_dir() else images
        for image in content["images"]:
            pictures += _picture(
                folder / image["file_name"], said[image["id"]], split, len(pictures), left_out
            )
    return pictures, left_out


def _picture(
    file: Path, captions: Iterable[Iterable[str]], split: str, column: int, left_out: LeftOut
) -> list[Picture]:
    """One picture, or none where nobody says anything of it."""
    composed = (unicodedata.normalize("NFC", " ".join(map(str, one))) for one in captions)
    given = [tuple(one.lower().split()) for one in composed]
    kept = tuple(caption for caption in given if caption)
    left_out["empty captions"] += [file.name] * (len(given) - len(kept))
    if not kept:
        left_out["images without a caption"].append(file.name)
    return [Picture(file, kept, split, column)] if kept else []


def _annotation_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for name in ("dataset.json", "captions.json"):
        if (path / name).is_file():
            return [path / name]
    found = sorted((path / "annotations").glob("captions_*.json"))
    if not any("train" in file.name for file in found):
        raise FileNotFoundError(
            f"data {str(path)!r} has no dataset.json, no captions.json and no "
            "annotations/captions_train*.json"
        )
    return found


def _named(left_out: LeftOut) -> dict[str, list[str]]:
    return {reason: names for reason, names in left_out.items() if names}


def _image_folder(folder: Path) -> Path:
    return next((folder / name for name in ("images", "imgs") if (folder / name).is_dir()), folder)


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not content.get("images"):
        raise ValueError(f"{file} has no list called images; it needs Karpathy's or COCO's form")
    return content


def some(items: Sequence[object]) -> str:
    """The first three, for a message."""
    return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
