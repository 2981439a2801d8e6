"""Images a second of our input pipeline and training against torchvision's: ``python -m
benchmarks.loader``.

Both read the same JPEG files of 500 x 375 (mosaics of twelve of Tux Paint's pictures at their own
size), crop at any scale to 224, mirror and normalise; training is ResNet-18 in float32, ours
through Lightning with the plan's callback and all that `redense train` does a step, theirs the
reference's plain loop. Rounds are interleaved; a ratio is ours over theirs of the same round. The
breakdown is of one process, in milliseconds an image. Wanted: a ratio of at least 1.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, default_collate
from torchvision import models, transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from redense.lightning import DSDCallback
from redense.plan import Phase, Plan
from redense.recipes.images.folders import IMAGENET, open_folder
from redense.recipes.images.options import ImageOptions
from redense.recipes.images.streams import Collate, StreamedBatches
from redense.runs.configuration import RunConfig
from redense.runs.trainer import build_trainer, quiet_lightning

from .measure import machine, spread
from .photographs import CLASSES, write_pictures
from .recipe_profile import TimedTask

OUT = Path(__file__).parents[1] / "results/bench/loader.json"
SIZE = 224


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=512, help="a round of the loaders")
    parser.add_argument("--train-images", type=int, default=32, help="a round of training")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--workers", default="0,2", help="processes, one measurement of the loaders each"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kilobytes = write_pictures(folder, asked.images) / 1024
        runs = {
            f"loader, {workers} workers": race(
                _ours(folder, asked.batch, workers),
                _theirs(folder, asked.batch, workers),
                asked.rounds,
            )
            for workers in map(int, asked.workers.split(","))
        }
        alone = _ours(folder, asked.batch, 0), _theirs(folder, asked.batch, 0)
        runs["loader, CPU time"] = race(*alone, asked.rounds, time.process_time)
        parts = {"ours": stages(folder, True), "torchvision's": stages(folder, False)}
        trained, steps = train(folder, asked.train_images, asked.batch, asked.rounds)
    runs["training, 0 workers"] = trained
    for who, seconds in steps.items():
        parts[who] |= seconds
    print(
        f"{asked.images} JPEG files of {kilobytes:.0f} KiB, batch {asked.batch}, {asked.rounds} "
        "rounds\n"
    )
    for title, run in runs.items():
        ours, theirs, ratio = (run[key] for key in ("ours", "theirs", "ratio"))
        print(
            f"{title:20} {ours['median']:7.1f} images/s, torchvision's {theirs['median']:7.1f}: "
            f"{ratio['median']:.3f} ({ratio['quartile1']:.3f} to {ratio['quartile3']:.3f}, "
            f"n={ratio['n']})"
        )
    print(f"\n{'ms an image':16}{''.join(f'{who:>16}' for who in parts)}")
    for part in dict.fromkeys(part for seconds in parts.values() for part in seconds):
        cells = (f"{1e3 * seconds.get(part, 0):16.3f}" for seconds in parts.values())
        print(f"{part:16}{''.join(cells)}")
    record = {"kilobytes": kilobytes, "batch": asked.batch, "runs": runs, "seconds_an_image": parts}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(record | {"machine": machine()}, indent=1) + "\n")


def race(
    ours: Iterable[Any],
    theirs: Iterable[Any],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Images a second of two loaders, in turns; the first turn of each warms up."""
    speeds = [(_speed(ours, clock), _speed(theirs, clock)) for _ in range(rounds + 1)]
    return compared(speeds[1:])


def compared(speeds: list[tuple[float, float]]) -> dict[str, Any]:
    """Spread of ours, theirs and of ours over theirs, round by round."""
    ours, theirs = (list(column) for column in zip(*speeds, strict=True))
    return {
        "ours": spread(ours),
        "theirs": spread(theirs),
        "ratio": spread([a / b for a, b in speeds]),
    }


def stages(folder: Path, ours: bool, most: int = 64) -> dict[str, float]:
    """Seconds an image of each step from file to batch."""
    seconds: dict[str, float] = defaultdict(float)
    data = open_folder(str(folder), SIZE)
    how: Any = v2 if ours else transforms
    crop, flip = how.RandomResizedCrop(SIZE), how.RandomHorizontalFlip()
    widen = _array if ours else transforms.Compose(_reference_transforms()[2:])
    collate: Callable[[Any], Any] = Collate(data) if ours else default_collate
    items = []
    for path, label in data.train.samples[:most]:  # type: ignore[attr-defined]
        with _timed(seconds, "read"):
            encoded = Path(path).read_bytes()
        with _timed(seconds, "decode"), Image.open(io.BytesIO(encoded)) as image:
            image.load()
            pixels = image if ours else image.convert("RGB")
        with _timed(seconds, "crop, resize"):
            pixels = crop(pixels)
        with _timed(seconds, "flip"):
            pixels = flip(pixels)
        with _timed(seconds, "to tensor"):  # theirs normalises here, ours in the batch
            items.append((widen(pixels), label))
    with _timed(seconds, "collate"):
        for start in range(0, len(items), 16):
            collate(items[start : start + 16])
    return {part: value / len(items) for part, value in seconds.items()}


def train(
    folder: Path, images: int, batch: int, rounds: int
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Images a second of an epoch of training, in turns, and seconds an image of its steps."""
    options = ImageOptions(
        data=str(folder),
        model="resnet18",
        size=SIZE,
        augment="scale-crop",
        batch=batch,
        train_images=images,
        workers=0,
    )
    task = TimedTask(options)
    turns = _Turns(folder, images, batch)
    plan = Plan((Phase("dense", rounds + 1),))
    trainer = build_trainer(
        RunConfig(accelerator="cpu"),
        len(plan),
        [DSDCallback(plan), turns],
    )
    with quiet_lightning():
        trainer.fit(task)
    task.seconds["step"] += task.seconds.pop("optimizer") - task.seconds.pop("closure")
    whole = len(turns.speeds) * (images // batch) * batch
    steps = {
        who: {part: seconds[part] / whole for part in ("forward", "backward", "step")}
        for who, seconds in (("ours", task.seconds), ("torchvision's", turns.seconds))
    }
    return compared(turns.speeds[1:]), steps


class _Turns(Callback):
    """After each epoch of ours one of a plain loop; the speed of both."""

    def __init__(self, folder: Path, images: int, batch: int) -> None:
        self.speeds: list[tuple[float, float]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self._images = images // batch * batch
        chosen = torch.utils.data.Subset(ImageFolder(folder / "train", _reference()), range(images))
        self._loader = DataLoader(chosen, batch, shuffle=True, drop_last=True)
        self._network = models.resnet18(num_classes=CLASSES)
        self._optimizer = torch.optim.SGD(
            self._network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        self._start = self._end = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Our epoch begins."""
        trainer.train_dataloader.set_epoch(trainer.current_epoch)
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """It may have ended."""
        self._end = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """It has; now theirs."""
        ours = self._end - self._start
        start = time.perf_counter()
        self._network.train()
        for images, labels in self._loader:
            with _timed(self.seconds, "forward"):
                loss = nn.functional.cross_entropy(self._network(images), labels)
            with _timed(self.seconds, "step"):
                self._optimizer.zero_grad()
            with _timed(self.seconds, "backward"):
                loss.backward()
            with _timed(self.seconds, "step"):
                self._optimizer.step()
        self.speeds.append((self._images / ours, self._images / (time.perf_counter() - start)))


def _ours(folder: Path, batch: int, workers: int) -> StreamedBatches:
    data = open_folder(str(folder), SIZE)
    return StreamedBatches(data, data.train, batch, seed=0, augment="scale-crop", workers=workers)


def _theirs(folder: Path, batch: int, workers: int) -> DataLoader[Any]:
    data = ImageFolder(folder / "train", _reference())
    return DataLoader(
        data,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _reference() -> Any:
    return transforms.Compose(_reference_transforms())


def _reference_transforms() -> list[Any]:
    """Of torchvision's references/classification/presets.py, backend PIL."""
    return [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float),
        transforms.Normalize(*IMAGENET),
    ]


def _array(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def _speed(loader: Iterable[Any], clock: Callable[[], float]) -> float:
    start = clock()
    images = sum(len(labels) for _, labels in loader)
    return images / (clock() - start)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - start


if __name__ == "__main__":
    main()
