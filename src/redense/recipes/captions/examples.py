"""What the network says after each phase, kept in the run folder: captions.json, and captions.png
to look at."""

from __future__ import annotations

import json
import random
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from redense.files.pictures import read_picture
from redense.recipes.captions import scores
from redense.recipes.captions.data import Split
from redense.recipes.captions.features import Cnn, keep_cnn
from redense.runs.checkpoints import write_text, write_whole


def keep_examples(
    folder: Path,
    said: Mapping[str, Sequence[str]],
    split: Split,
    seed: int,
    upright: bool = True,
) -> None:
    """Write what each phase says of every image to ``captions.json``, and draw ``captions.png``.

    The file holds ``phases``, ``random`` (numbers of a few images, chosen by the seed),
    ``upright`` (whether they are shown so) and ``images``: path, references, and for each phase the
    caption and its score, which is BLEU of that caption alone.
    """
    images: list[dict[str, Any]] = [
        {"image": str(picture.file), "references": references, "captions": {}}
        for picture, references in zip(split.pictures, split.references, strict=True)
    ]
    for phase, captions in said.items():
        scored = zip(images, captions, scores.each(captions, split.references), strict=True)
        for image, caption, score in scored:
            image["captions"][phase] = {"caption": caption, "score": round(score, 2)}
    content = {
        "seed": seed,
        "score": "sentence BLEU, sacrebleu, effective order",
        "phases": list(said),
        "random": random.Random(seed).sample(range(len(split)), min(24, len(split))),
        "upright": upright,
        "images": images,
    }
    write_text(folder / "captions.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    draw(content, folder / "captions.png")


def choose(content: Mapping[str, Any], many: int = 4) -> dict[str, list[int]]:
    """Numbers of images: ``best`` and ``worst`` by the last phase's score, and ``random`` by the
    run's seed."""
    last = content["phases"][-1]
    ranked = sorted(
        range(len(content["images"])),
        key=lambda number: (-content["images"][number]["captions"][last]["score"], number),
    )
    return {"best": ranked[:many], "random": content["random"][:many], "worst": ranked[::-1][:many]}


def draw(content: Mapping[str, Any], file: Path, many: int = 4) -> None:
    """The paper's figure: pictures with what each phase says of them, best, chosen at random, and
    worst."""
    chosen = choose(content, many)
    figure = Figure(figsize=(3.2 * many, 11), layout="constrained")
    grid = figure.subplots(len(chosen), many, squeeze=False)
    for row, (title, numbers) in zip(grid, chosen.items(), strict=True):
        for axes in row:
            axes.axis("off")
        for axes, number in zip(row, numbers, strict=False):
            image = content["images"][number]
            if Path(image["image"]).is_file():
                axes.imshow(read_picture(Path(image["image"]), upright=content["upright"]))
            said = [("right", image["references"][0])]
            said += [
                (f"{name} ({one['score']:.0f})", one["caption"])
                for name, one in image["captions"].items()
            ]
            lines = (
                textwrap.fill(f"{name}: {text}", 40, subsequent_indent="   ") for name, text in said
            )
            axes.set_title(
                f"{title}\n" if number == numbers[0] else "\n", loc="left", fontweight="bold"
            )
            axes.text(0, -0.04, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8)
    write_whole(file, lambda partial: figure.savefig(partial, dpi=90, format="png"))


def keep_network(folder: Path, config: Mapping[str, Any], cnn: Cnn | None) -> None:
    """Write ``network.json`` and the CNN's ``cnn.safetensors``: what captioning needs."""
    write_text(folder / "network.json", json.dumps(config, indent=2) + "\n")
    if cnn is not None:
        keep_cnn(cnn, folder)
