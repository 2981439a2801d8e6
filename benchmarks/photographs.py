"""Files like ImageNet's, from pictures that a packaged set ships."""

from __future__ import annotations

import statistics
from pathlib import Path

from PIL import Image

from redense import datasets

CLASSES = 8


def write_pictures(folder: Path, many: int) -> int:
    """train/ and val/ of JPEG files of the size and weight of ImageNet's; the mean bytes of one."""
    stamps = sorted((datasets.prepare("tuxpaint") / "images").iterdir())
    sizes = []
    for number in range(many + CLASSES):
        mosaic = Image.new("RGB", (500, 375))
        for place in range(12):
            with Image.open(stamps[(12 * number + place) % len(stamps)]) as stamp:
                mosaic.paste(stamp.convert("RGB"), (125 * (place % 4), 125 * (place // 4)))
        part = "train" if number < many else "val"
        file = folder / part / f"class{number % CLASSES}" / f"{number}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        mosaic.save(file, quality=95)
        sizes.append(file.stat().st_size)
    return int(statistics.mean(sizes))
