"""How a caption set is written: pictures as PNG, RGB on white, and their sentences as JSON in
Karpathy's form."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

try:
    import resvg_py
except ImportError as error:
    raise ImportError("drawings need resvg_py; run 'pip install redense[captions]'") from error

_KARPATHY = {"valid": "val"}


@dataclass(frozen=True)
class Captioned:
    """A picture, its file's name, its one sentence, its split, and what else the JSON tells about
    it."""

    name: str
    picture: Image.Image
    sentence: str
    split: str
    about: Mapping[str, str]


def write_captions(out: Path, dataset: str, pictures: Sequence[Captioned]) -> str:
    """Write `captions.json` and `images/*.png`; return in words how much of test can be known from
    train.

    The JSON is that of A. Karpathy's splits of Flickr8k and COCO: a list `images` with filename,
    split (train, val, test) and sentences, each with its raw text and its tokens, in lower case
    without punctuation.
    """
    (out / "images").mkdir()
    images = []
    for number, one in enumerate(pictures):
        one.picture.save(out / "images" / one.name)
        sentence = {
            "raw": one.sentence,
            "tokens": tokens(one.sentence),
            "imgid": number,
            "sentid": number,
        }
        image = {
            "imgid": number,
            "sentids": [number],
            "filename": one.name,
            "sentences": [sentence],
        }
        images.append(image | {"split": _KARPATHY.get(one.split, one.split)} | dict(one.about))
    content = json.dumps({"dataset": dataset, "images": images}, ensure_ascii=False)
    (out / "captions.json").write_text(content + "\n", encoding="utf-8")
    known = {word for one in pictures if one.split == "train" for word in tokens(one.sentence)}
    test = [word for one in pictures if one.split == "test" for word in tokens(one.sentence)]
    return (
        f"{sum(word not in known for word in test) / len(test):.1%} of the words in test are "
        "not in train"
    )


def tokens(sentence: str) -> list[str]:
    """The words of a sentence, in lower case without punctuation."""
    return re.findall(r"[^\s:;,.!?()“”«»\"]+", sentence.lower())


def draw(path: Path, size: int) -> Image.Image:
    """The PNG or SVG at `path`, RGB on white, in a square of `size` pixels, its proportions
    kept."""
    content = path.read_bytes()
    if path.suffix == ".svg":
        text = content.decode()
        content = bytes(
            resvg_py.svg_to_bytes(svg_string=text, width=size, dpi=96, skip_system_fonts=True)
        )
    drawing = Image.open(io.BytesIO(content)).convert("RGBA")
    side = max(drawing.size)
    paper = Image.new("RGBA", (side, side), "white")
    paper.alpha_composite(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
    return paper.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
