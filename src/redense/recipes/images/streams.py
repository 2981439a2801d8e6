"""Images too many for memory: each is decoded and augmented anew, by worker processes, when it is
due."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from redense.files.folders import files_below, split_folders
from redense.files.pictures import middle, read_picture
from redense.files.text import read_lines
from redense.recipes.images.erasing import erase
from redense.recipes.images.folders import (
    Source,
    StreamedData,
    is_list,
    open_folder,
)
from redense.recipes.images.options import STREAMED_AUGMENTATIONS
from redense.recipes.images.shards import has_shards, open_shards

_MOST_BYTES = 8 << 30


def wanted(name: str, augment: str, size: int | None) -> bool:
    """Whether to stream: whole images are needed, or ``name`` has shards or more pictures than
    memory would hold."""
    if augment in STREAMED_AUGMENTATIONS or name.lower() == "imagenet" or has_shards(Path(name)):
        return True
    fit = _MOST_BYTES // (3 * (size or 64) ** 2)
    return any(number >= fit for number, _ in enumerate(_lines_or_files(Path(name))))


def open_stream(
    name: str,
    size: int,
    *,
    root: Path | None = None,
    most: int | None = None,
    valid_share: float | None = None,
    upright: bool = True,
) -> StreamedData:
    """A folder of Parquet shards, or what `open_folder` opens."""
    if has_shards(Path(name)):
        data = open_shards(Path(name), size, most=most, valid_share=valid_share)
    else:
        data = open_folder(name, size, root=root, most=most, valid_share=valid_share)
    return replace(data, upright=upright)


def _lines_or_files(path: Path) -> Iterator[object]:
    """About as many as there are pictures."""
    if is_list(path) and path.is_file():
        yield from read_lines(path)
    elif path.is_dir():
        for part in split_folders(path).values():
            yield from files_below(part)


class StreamedBatches:
    """Normalised, augmented batches: the same for the same seed and epoch, whatever the ranks and
    workers.

    Iterating gives (images (B, channels, size, size) float32 channels_last, labels (B,));
    ``set_epoch`` comes before each epoch. Each image draws its augmentation from (seed, epoch, its
    number).
    """

    def __init__(
        self,
        data: StreamedData,
        split: Source,
        batch: int,
        *,
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        workers: int | None = None,
    ) -> None:
        self._numbers = _Numbers(split, max(batch // ranks, 1), seed, rank, ranks, accumulate)
        if workers is None:
            workers = min((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 8)
        cropped = crops(data, "centre" if seed is None else augment)
        mode = "L" if data.channels == 1 else "RGB"
        self._loader = DataLoader(
            _Images(split, workers, cropped, seed, mode, data.upright),
            batch_sampler=self._numbers,
            num_workers=workers,
            persistent_workers=workers > 0 and seed is not None,
            pin_memory=torch.cuda.is_available(),
            collate_fn=Collate(data),
            worker_init_fn=_lose_connections_quietly,
            # its own: else it would draw from the one that dropout draws from
            generator=torch.Generator(),
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
            yield batch


def crops(data: StreamedData, augment: str) -> v2.Transform:
    """From a PIL image to the one of (size, size) that the network sees."""
    size, flip = data.size, v2.RandomHorizontalFlip()
    centre = [v2.Resize(data.resize, antialias=True), v2.CenterCrop(size)]
    whole = v2.RandomResizedCrop(size, antialias=True)
    return v2.Compose(
        {
            "centre": centre,
            "none": centre,
            "flip": [*centre, flip],
            "flip-crop": [*centre, flip, v2.RandomCrop(size, padding=max(size // 8, 1))],
            "flip-erase": [*centre, flip, _erase_one],
            "resize-crop": [v2.Resize(data.resize, antialias=True), v2.RandomCrop(size), flip],
            "scale-crop": [whole, flip],
            "scale-crop-colour": [
                whole,
                v2.ColorJitter(0.4, 0.4, 0.4),
                flip,
            ],  # fb.resnet.torch's, without Lighting
        }[augment]
    )


def _erase_one(picture: Image.Image) -> Image.Image:
    pixels = v2.functional.pil_to_tensor(picture)  # (C, H, W)
    erased: Image.Image = v2.functional.to_pil_image(erase(pixels.unsqueeze(0))[0])
    return erased


class Collate:
    """From uint8 images (H, W, C) and labels to normalised pixels (B, C, H, W), channels_last, and
    labels (B,).

    A whole batch is normalised at once, and is channels_last as it comes: an image alone is neither
    copied nor widened.
    """

    def __init__(self, data: StreamedData) -> None:
        self._mean = 255 * torch.tensor(data.mean)
        self._scale = 1 / (255 * torch.tensor(data.std))
        self._none = torch.empty(0, data.size, data.size, data.channels)

    def __call__(self, items: list[tuple[Tensor, int] | str]) -> tuple[Tensor, Tensor] | str:
        """The batch, or what is wrong with one of its images."""
        if broken := [item for item in items if isinstance(item, str)]:
            return broken[0]
        images = torch.stack([pixels for pixels, _ in items]) if items else self._none  # type: ignore[misc]
        pixels = images.float().sub_(self._mean).mul_(self._scale)
        return pixels.permute(0, 3, 1, 2), torch.tensor(
            [label for _, label in items], dtype=torch.int64
        )


def _lose_connections_quietly(worker: int) -> None:
    """When training is stopped while a worker hands over a batch, multiprocessing's thread in the
    worker would print a traceback."""
    report = sys.excepthook

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (ConnectionError, EOFError)):
            report(kind, error, trace)

    sys.excepthook = told


class _Numbers:
    """Batches of (epoch, image number): shuffled and in whole optimizer steps with a seed, else
    each image once."""

    def __init__(
        self, split: Source, batch: int, seed: int | None, rank: int, ranks: int, accumulate: int
    ) -> None:
        self.epoch = 0
        self._split, self._batch, self._seed = split, batch, seed
        self._rank, self._ranks, self._accumulate = rank, ranks, accumulate

    def __len__(self) -> int:
        length = len(self._split)
        if self._seed is None:
            return math.ceil(
                length / (self._batch * self._ranks)
            )  # on every rank, though its last be empty
        whole = length // (self._batch * self._ranks)
        return max(whole - whole % self._accumulate, 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        own = self._split.order(self._batch, self._seed, self.epoch, self._rank, self._ranks)
        for start in range(0, len(self) * self._batch, self._batch):
            yield [(self.epoch, number) for number in own[start : start + self._batch]]


class _Images(Dataset[Any]):
    """Item (epoch, number): (uint8 pixels (H, W, C), label), or what is wrong with the file."""

    def __init__(
        self,
        split: Source,
        workers: int,
        cropped: v2.Transform,
        seed: int | None,
        mode: str,
        upright: bool = True,
    ) -> None:
        self._split, self._read = split, split.reader(workers)
        self._cropped, self._seed, self._mode, self._upright = cropped, seed, mode, upright

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int] | str:
        epoch, number = item
        try:
            file, label = self._read(number)
            name = self._split.title(number)
            picture = read_picture(file, self._mode, name=name, upright=self._upright)
            pixels = middle(picture)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        with torch.random.fork_rng([], enabled=self._seed is not None):
            if self._seed is not None:
                drawn = hashlib.sha256(f"{self._seed} {epoch} {number}".encode()).digest()
                # torch.manual_seed also formats three stack traces for CUDA's sake, which is a
                # fifth of an image's time
                torch.default_generator.manual_seed(int.from_bytes(drawn[:8], "little"))
            seen = np.array(self._cropped(pixels))
        return torch.from_numpy(seen).view(*seen.shape[:2], -1), label
