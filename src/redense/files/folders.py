"""The one listing of a folder: whoever looks into it sees the same files, and what is left out is
counted and said."""

from __future__ import annotations

import io
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from redense.files.pictures import endings
from redense.files.text import is_file

SPLITS = {
    "train": ("train", "training"),
    "valid": ("val", "valid", "validation", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
"""What the world calls a data set's parts, the usual name first."""

_TOOLS = {
    *("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information"),
    *("lost+found", "__pycache__", "thumbs.db", "desktop.ini"),
}
"""What file managers and disks leave behind."""

_LETTER = re.compile("[a-zA-Z]")


def split_of(name: str) -> str | None:
    """``train``, ``valid`` or ``test``: ``split_of("Validation")`` is ``"valid"``."""
    small = name.strip().lower()
    return next((split for split, names in SPLITS.items() if small in names), None)


def split_folders(folder: Path) -> dict[str, Path]:
    """``{"train": folder / "train", "valid": folder / "val"}``: the parts that a folder has.

    Raises:
        ValueError: two folders that are the same part.
    """
    parts: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        split = split_of(entry.name)
        if split is None or not entry.is_dir():
            continue
        if split in parts:
            raise ValueError(f"{folder} holds {parts[split].name}/ and {entry.name}/; keep one")
        parts[split] = entry
    return parts


def list_classes(folder: Path) -> dict[str, list[str]]:
    """Paths of pictures by class, of one folder per class: ``{"cat": ["pets/cat/1.jpg", ...]}``.

    Each folder is visited once, whatever links to it; hidden and tools' files are passed over.
    What else is left out is said: folders without a picture, and files that are none.

    Raises:
        ValueError: a class whose name is no text.
    """
    pictures: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()
    above = {_place(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    for entry in _entries(folder):
        if not entry.is_dir():
            left_out[f"{_kind(entry)} outside the folders of classes"] += 1
            continue
        files = pictures.setdefault(plain_name(entry.name, entry.path), [])
        for file in _walk(entry, set(above)):
            if _kind(file) in endings():
                files.append(file.path)
            else:
                left_out[_kind(file)] += 1
    _say_left_out(folder, left_out, "picture")
    empty = [name for name, files in pictures.items() if not files]
    if empty and len(empty) < len(pictures):
        say(f"{folder}: no classes, for they hold no picture: {', '.join(empty)}")
    return {name: files for name, files in sorted(pictures.items()) if files}


def list_files(folder: Path, kinds: Container[str], what: str) -> list[Path]:
    """Every file below a folder whose ending is of ``kinds``; hidden and tools' files are passed
    over, and what else is no ``what`` is counted and said."""
    files = list(_walk(folder, set()))
    _say_left_out(folder, Counter(kind for kind in map(_kind, files) if kind not in kinds), what)
    return [Path(file.path) for file in files if _kind(file) in kinds]


class Piped(io.BytesIO):
    """What came through a pipe, called ``-`` as on the command line."""

    def __str__(self) -> str:
        return "-"


def pictures_of(paths: Sequence[Path]) -> Iterator[Path | Piped]:
    """`files_of` that are pictures."""
    return files_of(paths, endings(), "picture")


def files_of(paths: Sequence[Path], kinds: Container[str], what: str) -> Iterator[Path | Piped]:
    """Files as they are, of a folder every one in it whose ending is of ``kinds``, and for ``-``
    what comes through the pipe.

        files_of([Path("call.wav"), Path("calls"), Path("-")], {".wav", ".flac"}, "recording")

    Raises:
        ValueError: a folder that holds none, before anything else is answered.
    """
    listed = {path: list_files(path, kinds, what) for path in paths if path.is_dir()}
    if empty := [str(path) for path, files in listed.items() if not files]:
        raise ValueError(f"{empty[0]} holds no {what}")
    return _each(paths, listed)


def _each(paths: Sequence[Path], listed: Mapping[Path, Sequence[Path]]) -> Iterator[Path | Piped]:
    for path in paths:
        if str(path) == "-":
            yield Piped(sys.stdin.buffer.read())
        else:
            yield from listed.get(path, [path])


def find(folder: Path, *patterns: str) -> list[Path]:
    """What lies below a folder by patterns of `Path.glob`, sorted: ``find(folder, "*.csv")`` finds
    ``TRAIN.CSV`` too. Hidden and tools' files are passed over, such as a Mac's ``._train.csv``."""

    def is_seen(path: Path) -> bool:
        return not any(_is_hidden(part) for part in path.relative_to(folder).parts)

    alike = [_LETTER.sub(lambda one: f"[{one[0].lower()}{one[0].upper()}]", p) for p in patterns]
    matching = {path for pattern in alike for path in folder.glob(pattern)}
    return sorted(filter(is_seen, matching))


def place_of(folder: Path, name: str) -> Path:
    """Where a list's file lies, though its name has Windows' slashes or, from a Mac, its letters in
    another Unicode form."""
    if name.isascii() and "\\" not in name:
        return folder / name
    plain = name.replace("\\", "/")
    names = (name, plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD")))
    return next((folder / one for one in names if is_file(folder / one)), folder / name)


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder; hidden and tools' files are passed over."""
    return (file.path for file in _walk(folder, set()))


def plain_name(name: str, place: str | Path) -> str:
    """A class's name in the one Unicode form (NFC), whichever system wrote it, without outer
    blanks.

    Raises:
        ValueError: names ``place``, where bytes stand that are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{os.fsencode(place).decode(errors='backslashreplace')}: the name is not UTF-8; "
            "rename it"
        ) from None
    return unicodedata.normalize("NFC", name).strip()


def say(line: str) -> None:
    """Write a line to the terminal, beside what a command prints."""
    print(line, file=sys.stderr)


def _say_left_out(folder: Path, kinds: Counter[str], what: str) -> None:
    if kinds:
        counts = ", ".join(f"{many} {kind}" for kind, many in kinds.most_common())
        say(f"{folder}: {kinds.total()} files are not read as {what}s: {counts}")


def _entries(folder: os.DirEntry[str] | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        seen = (entry for entry in entries if not _is_hidden(entry.name))
        return sorted(seen, key=lambda entry: entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _TOOLS


def _walk(
    folder: os.DirEntry[str] | Path, seen: set[tuple[int, int]]
) -> Iterator[os.DirEntry[str]]:
    """Files below a folder by name, but for folders in ``seen``, to which it adds."""
    if _place(folder) in seen:
        return
    seen.add(_place(folder))
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(entry, seen)
        else:
            yield entry


def _place(folder: os.DirEntry[str] | Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _kind(file: os.DirEntry[str]) -> str:
    if not file.is_file():
        return "links to nothing" if file.is_symlink() else "devices"
    return Path(file.name).suffix.lower() or "without an ending"
