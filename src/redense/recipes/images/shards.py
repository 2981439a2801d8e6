"""Parquet shards of encoded images, as Hugging Face's hub stores ImageNet, read a row group at a
time.

A shard's footer says how many rows it has and, where the hub's ``datasets`` wrote it, what the
labels mean: an epoch's size is exact before an image is read. An epoch shuffles row groups over all
shards, then the images of every four groups; batches come from eight places of that order in turn,
so that as many workers each read their own groups.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from redense.files.folders import SPLITS, find, plain_name, say, split_of
from redense.files.text import read_lines
from redense.files.typed import Kind, check, parse_json
from redense.recipes.images.folders import StreamedData, complete_and_say, few, resized, shuffled
from redense.recipes.images.forms import IMAGE, LABEL
from redense.runs.seeds import epoch_seed

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ImportError("Parquet shards need pyarrow: pip install 'redense[images]'") from error

LANES, WINDOW = 8, 4  # places that batches come from in turn; row groups that are shuffled together
_MOST_BYTES = 512 << 20  # of a row group: some dozens may be in memory
_HIDDEN = -1  # the label of rows that nobody has labelled


class _Column(TypedDict):
    """What the hub's ``datasets`` says of a column."""

    names: NotRequired[list[str | int] | dict[str, Any] | None]


class _Info(TypedDict):
    """And of them all."""

    features: NotRequired[dict[str, _Column | list[Any]] | None]


class _Hub(TypedDict):
    """What it writes into a shard's footer."""

    info: NotRequired[_Info]


HUB = Kind(_Hub, "description of columns", "fetch it again", finite=False)


@dataclass(frozen=True)
class Shards:
    """Images in row groups (file, number, how many of its rows are taken).

    Args:
        labels: (N,) of all images in order.
        rows: (N,) each image's row in its group.
        column: where the images are.
    """

    groups: tuple[tuple[str, int, int], ...]
    labels: Tensor
    rows: Tensor
    column: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def starts(self) -> list[int]:
        """Number of each group's first image."""
        return list(accumulate((many for *_, many in self.groups), initial=0))[:-1]

    def pick(self, numbers: Tensor) -> Shards:
        """The images of those numbers, in the order in which they lie."""
        chosen = numbers.sort().values
        group_of = torch.bucketize(chosen, torch.tensor(self.starts), right=True) - 1
        counts = group_of.bincount(minlength=len(self.groups)).tolist()
        groups = [
            (file, number, many)
            for (file, number, _), many in zip(self.groups, counts, strict=True)
            if many
        ]
        return Shards(tuple(groups), self.labels[chosen], self.rows[chosen], self.column)

    def first(self, most: int) -> Shards:
        """So many, from row groups of a shuffle that is the same for every run."""
        groups, numbers, left = [], [], most
        for number in shuffled(len(self.groups), 0, 0).tolist():
            (file, of_file, many), start = self.groups[number], self.starts[number]
            if (kept := min(many, left)) > 0:
                groups.append((file, of_file, kept))
                numbers.append(torch.arange(start, start + kept))
                left -= kept
        chosen = torch.cat(numbers)
        return Shards(tuple(groups), self.labels[chosen], self.rows[chosen], self.column)

    def order(self, batch: int, seed: int | None, epoch: int, rank: int, ranks: int) -> list[int]:
        """A rank's own stretch of the epoch's order, whole batches from eight places of it in
        turn."""
        numbers = torch.arange(len(self)) if seed is None else self._shuffled(seed, epoch)
        if seed is not None:
            numbers = numbers[: len(self) // ranks * ranks]  # every rank as many
        own = numbers.tensor_split(ranks)[rank]
        whole = len(own) // batch
        lanes = [
            lane.tolist() for lane in own[: whole * batch].view(whole, batch).tensor_split(LANES)
        ]
        turns = (one for turn in zip_longest(*lanes) for one in turn if one is not None)
        return [*chain.from_iterable(turns), *own[whole * batch :].tolist()]

    def reader(self, workers: int) -> ShardReader:
        """From a number to (encoded image, label); one of ``workers`` meets this many of the eight
        places."""
        return ShardReader(self, 2 * WINDOW * LANES // math.gcd(max(workers, 1), LANES))

    def place(self, number: int) -> tuple[int, int]:
        """(group, row in it) of an image."""
        return bisect_right(self.starts, number) - 1, int(self.rows[number])

    def title(self, number: int) -> str:
        """File, row group and row."""
        group, row = self.place(number)
        file, of_file, _ = self.groups[group]
        return f"{file}, row {row} of row group {of_file},"

    def lines(self) -> Iterator[str]:
        """Each group's file, length and rows, and the labels."""
        for file, number, many in self.groups:
            yield f"{Path(file).name} {Path(file).stat().st_size} {number} {many}"
        yield hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def _shuffled(self, seed: int, epoch: int) -> Tensor:
        order = shuffled(len(self.groups), seed, epoch)
        counts = torch.tensor([many for *_, many in self.groups])[order]
        groups = zip(torch.tensor(self.starts)[order].tolist(), counts.tolist(), strict=True)
        numbers = torch.cat([torch.arange(start, start + many) for start, many in groups])
        window = (torch.arange(len(order)) // WINDOW).repeat_interleave(counts)
        generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
        within = torch.rand(len(numbers), dtype=torch.float64, generator=generator)
        return numbers[(window + within).argsort(stable=True)]


class ShardReader:
    """An image's bytes and label by number; keeps the row groups that were read last."""

    def __init__(self, shards: Shards, most: int) -> None:
        self._shards, self._most = shards, most
        self._read: OrderedDict[int, Any] = OrderedDict()

    def __call__(self, number: int) -> tuple[Any, int]:
        """(what PIL opens, label).

        Raises:
            ValueError: names the shard that is broken.
        """
        group, row = self._shards.place(number)
        if group not in self._read:
            self._read[group] = self._load(*self._shards.groups[group][:2])
            if len(self._read) > self._most:
                self._read.popitem(last=False)
        self._read.move_to_end(group)
        encoded = self._read[group][row]
        if not encoded.is_valid:
            raise ValueError(
                f"{self._shards.title(number)} has no image; a hub's shards hold the images "
                "themselves"
            )
        return pa.BufferReader(encoded.as_buffer()), int(self._shards.labels[number])

    def _load(self, file: str, number: int) -> Any:
        try:  # without Arrow's threads, which a forked worker has not
            with parquet.ParquetFile(file, page_checksum_verification=True) as content:
                table = content.read_row_group(
                    number, columns=[self._shards.column], use_threads=False
                )
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is broken in row group {number} ({error}); fetch it again"
            ) from error
        images = table.combine_chunks().column(0).chunk(0)
        return images.field("bytes") if pa.types.is_struct(images.type) else images


def has_shards(folder: Path) -> bool:
    """Whether the folder holds Parquet files, itself or where a split's are looked for."""
    return folder.is_dir() and (bool(find(folder, "*.parquet")) or bool(_shard_files(folder)))


def open_shards(
    folder: Path,
    size: int,
    *,
    classes: Sequence[str] = (),
    most: int | None = None,
    valid_share: float | None = None,
) -> StreamedData:
    """Read the footers and labels of ``train-*.parquet`` and perhaps ``val*-*.parquet`` and
    ``test-*.parquet``.

    They lie in the folder itself or one below it, there perhaps in ``train/``, ``val/`` and
    ``test/`` under any name. Columns: ``image`` (encoded bytes, or the hub's struct that has them)
    and ``label`` (whole numbers, or names). Rows without a label (null or -1) are left out, and
    that is said.

    Args:
        classes: that labels shall count; default those of ``classes.txt``, a line each, else those
            that the hub wrote into the training shards.
        most, valid_share: see `complete`.

    Raises:
        FileNotFoundError, ValueError: no shards of a split, a missing or broken one, two
            generations of them, a label outside the classes: each by name.
    """
    files = _shard_files(folder)
    if "train" not in files:
        raise FileNotFoundError(
            f"{folder} has no train shards; they are called train-00000.parquet"
        )
    for listed in files.values():
        _check_whole(listed)
    pieces = {split: [_open(file) for file in listed] for split, listed in files.items()}
    known = tuple(classes) or _read_classes(folder)
    known = known or tuple(dict.fromkeys(chain.from_iterable(p.names for p in pieces["train"])))
    if not known:
        raise ValueError(
            f"{files['train'][0]} names no classes; write them to {folder / 'classes.txt'}, one a "
            "line"
        )
    splits = {split: _join(parts, known) for split, parts in pieces.items()}
    if not len(splits.get("test", "-")):
        del splits["test"]  # ImageNet's labels are not published
    for split, shards in splits.items():
        if not len(shards):
            raise ValueError(f"{files[split][0]} has no row with a label; remove it")
    parts = complete_and_say(str(folder), splits, most, valid_share)
    return StreamedData(folder.resolve().name, known, *parts, size, resized(size))


@dataclass(frozen=True)
class _Piece:
    """One shard: its row groups (number, rows), the labels (N,) of all rows as numbers of
    ``names``, which may be unknown."""

    file: Path
    groups: tuple[tuple[int, int], ...]
    labels: Tensor
    names: tuple[str, ...]
    column: str


def _shard_files(folder: Path) -> dict[str, list[Path]]:
    """Each split's shards; those of one split lie in one folder and begin with one name."""
    found: dict[str, dict[str, list[Path]]] = {}
    named = [f"*/{name}/*.parquet" for names in SPLITS.values() for name in names]
    patterns = ("*.parquet", "*/*.parquet", *named)
    for file in find(folder, *patterns):
        name = re.split(r"[-._]", file.name)[0]
        split, place = split_of(name), f"{file.parent}/{name}*"
        if split is None and file.parent != folder:
            split, place = split_of(file.parent.name), f"{file.parent}/*"
        if split is not None:
            found.setdefault(split, {}).setdefault(place, []).append(file)
    for split, places in found.items():
        if len(places) > 1:
            raise ValueError(
                f"{folder} has {split} shards of several kinds, {', '.join(places)}; keep one, or "
                "name the folder that holds it"
            )
    return {split: next(iter(places.values())) for split, places in found.items()}


def _check_whole(files: Sequence[Path]) -> None:
    """Refuse a set called ``-00002-of-00004`` of which some are missing, or that is there twice."""
    numbered = {file: re.search(r"-(\d+)-of-(\d+)\b", file.name) for file in files}
    totals = {int(match[2]) for match in numbered.values() if match}
    if not totals:
        return
    have = Counter(int(match[1]) if match else None for match in numbered.values())
    if len(totals) > 1 or None in have or max(have.values()) > 1:
        raise ValueError(
            f"{files[0]} and {files[-1]} are of two generations of one split; keep the newer one"
        )
    if missing := sorted(set(range(max(totals))) - set(have)):
        raise FileNotFoundError(
            f"{files[0].parent} lacks {len(missing)} of {max(totals)} shards like {files[0].name}, "
            f"number {missing[0]:05} first; fetch them again"
        )


def _open(file: Path) -> _Piece:
    try:
        content = parquet.ParquetFile(file, page_checksum_verification=True)
        image, label, names = _columns(file, content)
        labels = content.read([label], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is no whole Parquet file ({error}); fetch it again") from error
    groups = [content.metadata.row_group(number) for number in range(content.num_row_groups)]
    if large := next((group for group in groups if group.total_byte_size > _MOST_BYTES), None):
        raise ValueError(
            f"{file} has a row group of {large.total_byte_size >> 20} MiB, more than "
            f"{_MOST_BYTES >> 20}; write it anew with row_group_size=100"
        )
    if pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        names = tuple(sorted(set(labels.drop_null().to_pylist())))
        place = {name: number for number, name in enumerate(names)}
        numbers = [place.get(name, _HIDDEN) for name in labels.to_pylist()]
    elif pa.types.is_integer(labels.type):
        numbers = labels.fill_null(_HIDDEN).to_pylist()
    else:
        raise ValueError(
            f"{file}: {label} must be whole numbers or names, got {labels.type}; cast the column"
        )
    counted = tuple((number, group.num_rows) for number, group in enumerate(groups))
    plain = tuple(plain_name(name, file) for name in names)
    return _Piece(file, counted, torch.tensor(numbers, dtype=torch.long), plain, image)


def _columns(file: Path, content: parquet.ParquetFile) -> tuple[str, str, tuple[str, ...]]:
    """(column of images, column of labels, the classes that the hub's ``datasets`` wrote of it)."""
    schema = content.schema_arrow
    written = (schema.metadata or {}).get(b"huggingface", b"{}").decode("utf-8", "replace")
    place = f"{file}, 'huggingface' in its metadata,"
    hub = check(parse_json(written, HUB, place), HUB, place)
    named = {}
    for name, kind in (hub.get("info", {}).get("features") or {}).items():
        names = kind.get("names") if isinstance(kind, dict) else None
        if isinstance(names, list):  # else a struct with a field of that name
            named[name] = list(map(str, names))
    image = next((name for name in IMAGE.names if name in schema.names), None)
    label = next((name for name in (*LABEL.names, *named) if name in schema.names), None)
    if image is None or label is None:
        raise ValueError(
            f"{file} has the columns {', '.join(schema.names)}; it needs image and label"
        )
    if others := [name for name in named if name != label]:
        say(f"{file.parent}: classes are those of {label}, not of {', '.join(others)}")
    return image, label, tuple(named.get(label, ()))


def _join(pieces: Sequence[_Piece], classes: tuple[str, ...]) -> Shards:
    """One split of several shards, the labels of each translated by name."""
    groups = [(str(piece.file), number, many) for piece in pieces for number, many in piece.groups]
    labels = torch.cat([_translated(piece, classes) for piece in pieces])
    rows = torch.cat([torch.empty(0, dtype=torch.long), *(torch.arange(m) for *_, m in groups)])
    if len({piece.column for piece in pieces}) > 1:
        raise ValueError(f"{pieces[0].file} and its like name their images differently")
    shards = Shards(tuple(groups), labels, rows, pieces[0].column)
    labelled = (labels != _HIDDEN).nonzero().squeeze(1)
    if hidden := len(labels) - len(labelled):
        say(f"{pieces[0].file} and its like: {hidden:,} rows without a label are left out")
    return shards.pick(labelled)


def _translated(piece: _Piece, classes: tuple[str, ...]) -> Tensor:
    """Labels (N,) that count ``classes``, of a shard whose labels count its own names."""
    labels, many = piece.labels, len(piece.names or classes)
    if not len(labels):
        raise ValueError(f"{piece.file} has no row; remove it")
    if int(labels.min()) < _HIDDEN or int(labels.max()) >= many:
        row = int(((labels < _HIDDEN) | (labels >= many)).nonzero()[0])
        raise ValueError(
            f"{piece.file}, row {row}: label {int(labels[row])} lies outside the {many} classes "
            f"(0 to {many - 1}) of "
            f"{'the file itself' if piece.names else 'classes.txt or the run'}; mend or remove it"
        )
    if not piece.names:
        return labels
    place = {name: number for number, name in enumerate(classes)}
    for number in labels.unique().tolist():
        if number != _HIDDEN and piece.names[number] not in place:
            raise ValueError(
                f"{piece.file} is of class {piece.names[number]!r}, which is none of {few(classes)}"
            )
    numbers = torch.tensor([place.get(name, _HIDDEN) for name in piece.names] + [_HIDDEN])
    return numbers[labels]


def _read_classes(folder: Path) -> tuple[str, ...]:
    file = folder / "classes.txt"
    if not file.is_file():
        return ()
    lines = [(number, plain_name(line, file)) for number, line in read_lines(file)]
    names = [name for _, name in lines]
    for place, (number, name) in enumerate(lines, start=1):
        if number != place or name in names[: place - 1]:
            raise ValueError(
                f"{file}, line {number}: {name!r} follows a blank line or is there twice; classes "
                "count from 0, one a line"
            )
    return tuple(names)
