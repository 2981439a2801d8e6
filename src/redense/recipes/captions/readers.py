"""Read caption sets from where they lie: Karpathy's and COCO's JSON, Flickr's token files, Kaggle's
tables. Errors name files and count."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redense import datasets
from redense.files.folders import find, place_of, say, split_of
from redense.files.text import read_lines, read_table
from redense.files.typed import Table, check, read_json
from redense.files.words import words
from redense.recipes.captions.forms import COCO, COLUMNS, FILE, KARPATHY
from redense.recipes.packaged import open_packaged

_FORMS = (
    *("dataset.json", "captions.json", "dataset_*.json", "*k.token.txt", "*.token"),
    *("captions.txt", "captions.csv", "results.csv"),
)
"""What a folder's captions may be called, the first that is there."""

_FOLDERS = ("images", "imgs", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images")


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


@dataclass(frozen=True)
class _Said:
    """What one entry of a caption file says of an image, perhaps not all that is said of it.

    ``split`` is None where the file does not tell.
    """

    file: Path
    captions: Sequence[Sequence[str]]
    split: str | None
    column: int


def read(data: str, images: Path | None = None) -> Annotations:
    """The annotations of a packaged set, a folder or a file; what is left out is said.

    Args:
        data: a packaged set (``emoji``); a JSON file in Karpathy's or COCO's form; Flickr's
            ``Flickr8k.token.txt``, whose splits lie beside it (``Flickr_8k.trainImages.txt``); a
            table with the columns image and caption, as Kaggle's ``captions.txt``; or a folder with
            one of them, COCO's in ``annotations/captions_*.json``.
        images: where the images lie; default ``images``, ``imgs`` or the folder of the file itself.

    Where nothing is for validation, a tenth of the training images is held out, at most 1,000.

    Raises:
        FileNotFoundError, ValueError: no captions, or captions that cannot be read: file and place.
    """
    path = Path(data)
    if data in datasets.names() and not path.exists():
        path, _ = open_packaged(data, "captions")
    if not path.exists():
        raise FileNotFoundError(
            f"data {data!r}: neither a packaged set ({', '.join(datasets.names())}) nor a folder "
            "or file of captions"
        )
    files = _annotation_files(path)
    folder = path if path.is_dir() else path.parent
    said = _read_file(files[0], images or _image_folder(folder)) if len(files) == 1 else None
    if said is None:
        said = _read_coco([(file, _read_json(file)) for file in files], images or folder)
    pictures, left_out = _photographs(said, files[0])
    for reason, names in left_out.items():
        say(f"{path.stem}: {len(names)} {reason}, left out: {some(names)}")
    features = folder / "vgg_feats.mat"
    return Annotations(
        path.stem,
        tuple(_with_validation(pictures, files[0])),
        features if features.exists() else None,
        left_out,
    )


def check_images(pictures: Sequence[Picture], remedy: str) -> None:
    """Raise FileNotFoundError that names the first missing images and counts all."""
    missing = [picture.file for picture in pictures if not picture.file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pictures)} images are missing: {some(missing)}; {remedy}"
        )


def some(items: Sequence[object]) -> str:
    """The first three, for a message."""
    return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")


def _read_file(file: Path, images: Path) -> list[_Said] | None:
    """What a single file says, but of COCO's form None."""
    if file.suffix == ".json":
        content = _read_json(file)
        return None if "annotations" in content else _read_karpathy(file, content, images)
    if file.name.endswith((".token", ".token.txt")):
        return list(_read_tokens(file, images))
    if file.suffix in (".txt", ".csv", ".tsv"):
        return list(_read_table(file, images))
    raise ValueError(
        f"{file} is no form of captions that is read; those are JSON (Karpathy's, COCO's), "
        ".token.txt (Flickr's) and .txt, .csv or .tsv with the columns image and caption (Kaggle's)"
    )


def _read_karpathy(file: Path, content: Mapping[str, Any], images: Path) -> list[_Said]:
    """dataset.json of Karpathy's splits: images with filename, split and sentences."""
    said = []
    for number, image in enumerate(check(content, KARPATHY, file)["images"]):
        name, split = image["filename"], image["split"]
        known = "train" if split == "restval" else split_of(split)
        if known is None:
            raise ValueError(f"{file}: {name} is in split {split!r}; known: train, val, test")
        captions = [_sentence(sentence) for sentence in image["sentences"] or ()]
        path = _picture(images, str(Path(image.get("filepath") or "", name)))
        said.append(_Said(path, captions, known, image.get("imgid", number)))
    return said


def _sentence(sentence: Any) -> list[str]:
    """A sentence's words: its tokens, else those of its raw text; none of what is no text."""
    if not isinstance(sentence, dict):
        return _words(sentence)
    tokens = sentence.get("tokens")
    if isinstance(tokens, list) and tokens:
        return unicodedata.normalize("NFC", " ".join(map(str, tokens))).lower().split()
    return _words(tokens or sentence.get("raw"))


def _words(text: Any) -> list[str]:
    return words(text) if isinstance(text, str) else []  # null, or a NaN that pandas wrote


def _read_coco(contents: Sequence[tuple[Path, Mapping[str, Any]]], images: Path) -> list[_Said]:
    """COCO's captions_train2017.json, captions_val2017.json: lists images (id, file_name) and
    annotations."""
    said: list[_Said] = []
    split_of_id: dict[int, str] = {}
    for file, unchecked in contents:
        content = check(unchecked, COCO, file)
        part = file.stem.removeprefix("captions_")
        split = split_of(re.split(r"[\d_]", part)[0]) or "train"
        captions: dict[int, list[list[str]]] = {image["id"]: [] for image in content["images"]}
        owners = [one["image_id"] for one in content["annotations"]]
        if unknown := [owner for owner in owners if owner not in captions]:
            raise ValueError(
                f"{file}: {len(unknown)} captions are of images that it does not list: "
                f"{some(unknown)}"
            )
        for owner, one in zip(owners, content["annotations"], strict=True):
            captions[owner].append(_words(one["caption"]))
        folder = _coco_folder(images, part)
        for image in content["images"]:
            name = image["file_name"]
            if split_of_id.setdefault(image["id"], split) != split:
                raise ValueError(
                    f"{file}: image {image['id']} ({name}) is in {split_of_id[image['id']]} and in "
                    f"{split}; one photograph belongs to one split"
                )
            said.append(_Said(place_of(folder, name), captions[image["id"]], split, len(said)))
    return said


def _coco_folder(images: Path, part: str) -> Path:
    """Where the images of ``train2017`` are, as COCO's zips unpack."""
    places = (images, images / "images", images.parent, images.parent / "images")
    return next((place / part for place in places if (place / part).is_dir()), images)


def _picture(images: Path, name: str) -> Path:
    """Where a picture lies that a list calls ``1.png`` or, from the list's own folder,
    ``images/1.png``."""
    first, inside, _ = name.replace("\\", "/").partition("/")
    from_above = inside and first == images.name and not (images / first).is_dir()
    return place_of(images.parent if from_above else images, name)


def _read_tokens(file: Path, images: Path) -> Iterator[_Said]:
    """Flickr8k.token.txt: a line is ``picture.jpg#0``, a tab and a caption."""
    splits = _split_lists(file.parent)
    numbers: dict[str, int] = {}
    unused: set[str] = set()
    for number, line in read_lines(file):
        image, tab, caption = line.partition("\t")
        name, mark, _ = image.rpartition("#")
        if not tab or not mark:
            raise ValueError(
                f"{file}, line {number}: needs a picture, #, a number, a tab and a caption, got "
                f"{line[:60]!r}"
            )
        column = numbers.setdefault(name, len(numbers))
        if splits and name not in splits:
            unused.add(name)
        else:
            yield _Said(_picture(images, name), [words(caption)], splits.get(name), column)
    if unused:  # 92 of Flickr8k's 8,092
        say(f"{file}: {len(unused)} images are in no list of a split, left out")


def _split_lists(folder: Path) -> dict[str, str]:
    """Flickr_8k.trainImages.txt, devImages and testImages: a picture a line."""
    splits: dict[str, str] = {}
    for file in find(folder, "*Images.txt"):
        part = re.split(r"[._]", file.name.removesuffix("Images.txt"))[-1]
        split = split_of(part)
        if split is not None:
            splits |= {line.strip(): split for _, line in read_lines(file)}
    return splits


def _read_table(file: Path, images: Path) -> Iterator[_Said]:
    """Kaggle's captions.txt (image,caption) and results.csv (image_name| comment_number| comment),
    perhaps with a column split."""
    numbers: dict[str, int] = {}
    for number, row in read_table(file):
        given = [column.of(row) for column in COLUMNS]
        image, caption, split = (None if cell is None else cell[1].strip() for cell in given)
        if image is None or caption is None:
            raise ValueError(
                f"{file} needs a header with the columns image and caption, got {list(row)}"
            )
        known = None if split is None else split_of(split)
        if not image or (split is not None and known is None):
            raise ValueError(
                f"{file}, line {number}: needs an image, and train, val or test where there is a "
                f"column split, got {list(row.values())}"
            )
        column = numbers.setdefault(image, len(numbers))
        yield _Said(_picture(images, image), [words(caption)], known, column)


def _photographs(said: Sequence[_Said], origin: Path) -> tuple[list[Picture], dict[str, list[str]]]:
    """(one picture per image file with all its captions, names of what is left out by reason)."""
    entries: dict[Path, list[_Said]] = {}
    for entry in said:
        entries.setdefault(entry.file, []).append(entry)
    pictures: list[Picture] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for file, own in entries.items():
        splits = {entry.split or "train" for entry in own}
        if len(splits) > 1:
            raise ValueError(
                f"{origin}: {file.name} is in {' and in '.join(sorted(splits))}; one photograph "
                "belongs to one split"
            )
        given = [tuple(caption) for entry in own for caption in entry.captions]
        kept = tuple(caption for caption in given if caption)
        if len(kept) < len(given):
            left_out["empty captions"] += [file.name] * (len(given) - len(kept))
        if kept:
            pictures.append(Picture(file, kept, splits.pop(), own[0].column))
        else:
            left_out["images without a caption"].append(file.name)
    return pictures, dict(left_out)


def _with_validation(pictures: list[Picture], origin: Path) -> list[Picture]:
    """The same, a tenth of the training images held out where none is for validation."""
    train = [number for number, picture in enumerate(pictures) if picture.split == "train"]
    if len(train) < 2 or any(picture.split == "valid" for picture in pictures):
        return pictures
    held = set(random.Random(0).sample(train, max(min(len(train) // 10, 1000), 1)))
    say(f"{origin} has no validation split: {len(held)} training images are held out for it")
    return [
        replace(picture, split="valid") if number in held else picture
        for number, picture in enumerate(pictures)
    ]


def _annotation_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for pattern in (place + form for place in ("", "*/") for form in _FORMS):
        files = find(path, pattern)
        if len(files) > 1:
            raise ValueError(f"{path} holds several sets, {some(files)}; name one of them")
        if files:
            return files
    years: dict[str, list[Path]] = defaultdict(list)
    for file in find(path / "annotations", "captions_*.json"):
        years["".join(re.findall(r"\d+", file.stem))].append(file)
    whole = [year for year in years if any("train" in file.name for file in years[year])]
    if not whole:
        raise FileNotFoundError(
            f"data {str(path)!r} has no {', no '.join(_FORMS[:2])}, no other form of captions that "
            "is read, and no annotations/captions_train*.json"
        )
    if others := sorted(set(years) - {max(whole)}):
        say(f"{path}: COCO's captions of {max(whole)} are read, not those of {', '.join(others)}")
    return years[max(whole)]


def _image_folder(folder: Path) -> Path:
    return next((folder / name for name in _FOLDERS if (folder / name).is_dir()), folder)


def _read_json(file: Path) -> Table:
    content: Table = read_json(file, FILE)
    return content
