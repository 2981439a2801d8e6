"""Parquet shards of encoded images, as Hugging Face's hub stores ImageNet, read a row group at a
time.

A shard's footer says how many rows it has and, where the hub's ``datasets`` wrote it, what the
labels mean: an epoch's size is exact before an image is read. An epoch shuffles row groups over all
shards, then the images of every four groups; batches come from eight places of that order in turn,
so that as many workers each read their own groups.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redense.recipes.images.data import shuffled
from redense.recipes.images.folders import StreamedData, resized

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise ImportError("Parquet shards need pyarrow: pip install 'redense[recipes]'") from error

LANES, WINDOW = 8, 4  # places that batches come from in turn; row groups that are shuffled together
_MOST_BYTES = 512 << 20  # of a row group: some dozens may be in memory
_PARTS = {"train": ("train",), "valid": ("val", "valid", "validation"), "test": ("test",)}
_IMAGE, _LABEL = ("image", "img", "jpg"), ("label", "labels", "cls")


@dataclass(frozen=True)
class Shards:
    """Row groups (file, number, rows) and the labels (N,) of all their rows in order; ``column``
    has the images."""

    groups: tuple[tuple[str, int, int], ...]
    labels: Tensor
    column: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def starts(self) -> list[int]:
        """Number of each group's first image."""
        return list(accumulate((rows for *_, rows in self.groups), initial=0))[:-1]

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
        group = bisect_right(self.starts, number) - 1
        return group, number - self.starts[group]

    def title(self, number: int) -> str:
        """File, row group and row."""
        group, row = self.place(number)
        file, of_file, _ = self.groups[group]
        return f"{file}, row {row} of row group {of_file},"

    def lines(self) -> Iterator[str]:
        """Each group's file, length and rows, and the labels."""
        for file, number, rows in self.groups:
            yield f"{Path(file).name} {Path(file).stat().st_size} {number} {rows}"
        yield hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()

    def first(self, most: int) -> Shards:
        """That many images, from row groups of a shuffle that is the same for every run."""
        groups, labels, left = [], [], most
        for number in shuffled(len(self.groups), 0, 0).tolist():
            (file, of_file, rows), start = self.groups[number], self.starts[number]
            if (kept := min(rows, left)) > 0:
                groups.append((file, of_file, kept))
                labels.append(self.labels[start : start + kept])
                left -= kept
        return Shards(tuple(groups), torch.cat(labels), self.column)

    def _shuffled(self, seed: int, epoch: int) -> Tensor:
        order = shuffled(len(self.groups), seed, epoch)
        rows = torch.tensor([rows for *_, rows in self.groups])[order]
        groups = zip(torch.tensor(self.starts)[order].tolist(), rows.tolist(), strict=True)
        numbers = torch.cat([torch.arange(start, start + many) for start, many in groups])
        window = (torch.arange(len(order)) // WINDOW).repeat_interleave(rows)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
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
    return folder.is_dir() and (
        any(folder.glob("*.parquet")) or any(_files(folder, part) for part in _PARTS)
    )


def open_shards(folder: Path, size: int, *, most: int | None = None) -> StreamedData:
    """Read the footers and labels of ``train-*.parquet``, ``val*-*.parquet`` and perhaps
    ``test-*.parquet``.

    They lie in the folder itself, its ``data/``, or in ``train/``, ``val/`` and ``test/`` under any
    name. Columns: ``image`` (encoded bytes, or the hub's struct that has them) and ``label`` (from
    0). Names of the classes: a line each in ``classes.txt``, else the hub's in the shards.

    Raises:
        FileNotFoundError, ValueError: no shards of a split, a broken one, a label outside the
            classes: each by name.
    """
    found = {part: _files(folder, part) for part in _PARTS}
    if missing := [_PARTS[part][-1] for part in ("train", "valid") if not found[part]]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]} shards; they are called {missing[0]}-00000.parquet"
        )
    splits, classes = {}, _read_classes(folder)
    for part, files in found.items():
        pieces = [_open(file) for file in files]
        classes = classes or next((names for _, names in pieces if names), ())
        if not classes:
            raise ValueError(
                f"{files[0]} names no classes; write them to {folder / 'classes.txt'}, one a line"
            )
        for file, (shards, names) in zip(files, pieces, strict=True):
            if names and len(names) != len(classes):
                raise ValueError(f"{file} has {len(names)} classes, the others {len(classes)}")
            _check_labels(file, shards.labels, len(classes), hidden=part == "test")
        if pieces:
            groups = tuple(group for shards, _ in pieces for group in shards.groups)
            splits[part] = Shards(
                groups, torch.cat([s.labels for s, _ in pieces]), pieces[0][0].column
            )
    none = replace(splits["valid"], groups=(), labels=torch.empty(0, dtype=torch.long))
    test = splits.get("test", none)
    test = (
        none if len(test) and bool((test.labels == -1).all()) else test
    )  # ImageNet's are not published
    train = (
        splits["train"]
        if most is None or most >= len(splits["train"])
        else splits["train"].first(most)
    )
    return StreamedData(
        folder.resolve().name, classes, train, splits["valid"], test, size, resized(size)
    )


def _files(folder: Path, part: str) -> list[Path]:
    patterns = [
        f"{place}{name}{rest}.parquet"
        for name in _PARTS[part]
        for place in ("", "data/")
        for rest in ("-*", "")
    ]
    patterns += [f"{name}/*.parquet" for name in _PARTS[part]]
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _open(file: Path) -> tuple[Shards, tuple[str, ...]]:
    """(a shard's rows, the class names it has)."""
    try:
        content = parquet.ParquetFile(file, page_checksum_verification=True)
        columns = content.schema_arrow.names
        image, label = (
            next((name for name in known if name in columns), None) for known in (_IMAGE, _LABEL)
        )
        if image is None or label is None:
            raise ValueError(
                f"{file} has the columns {', '.join(columns)}; it needs image and label"
            )
        labels = content.read([label], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is no whole Parquet file ({error}); fetch it again") from error
    if not pa.types.is_integer(labels.type) or labels.null_count:
        raise ValueError(
            f"{file}: {label} must be whole numbers from 0 in every row, got {labels.type}"
        )
    groups = [content.metadata.row_group(number) for number in range(content.num_row_groups)]
    if large := next((group for group in groups if group.total_byte_size > _MOST_BYTES), None):
        raise ValueError(
            f"{file} has a row group of {large.total_byte_size >> 20} MiB, more than "
            f"{_MOST_BYTES >> 20}; "
            f"write it anew with row_group_size=100"
        )
    hub = json.loads((content.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    names = hub.get("info", {}).get("features", {}).get(label, {}).get("names") or ()
    rows = tuple(
        (str(file), number, group.num_rows) for number, group in enumerate(groups) if group.num_rows
    )
    return Shards(rows, torch.tensor(labels.to_pylist(), dtype=torch.long), image), tuple(names)


def _read_classes(folder: Path) -> tuple[str, ...]:
    file = folder / "classes.txt"
    return tuple(file.read_text("utf-8").splitlines()) if file.is_file() else ()


def _check_labels(file: Path, labels: Tensor, classes: int, hidden: bool) -> None:
    lowest = -1 if hidden else 0
    if not len(labels):
        raise ValueError(f"{file} has no row; remove it")
    if int(labels.min()) < lowest or int(labels.max()) >= classes:
        wrong = int(labels.min()) if int(labels.min()) < lowest else int(labels.max())
        raise ValueError(
            f"{file}: label {wrong} lies outside the {classes} classes (0 to {classes - 1})"
        )
