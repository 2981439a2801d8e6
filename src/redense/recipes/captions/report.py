"""What a report shows of a caption run: the paper's Figure 3, pictures with what each phase says of
them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from redense.files.pictures import read_picture
from redense.files.typed import Count, Kind, Number, read_json
from redense.recipes.captions.examples import choose
from redense.runs.sections import Card, Gallery, Line, Picture, Section, Text

_SIDE = 200
"""Pixels of a picture's longer side: about 8 kB of JPEG."""
_MOST = 6
_TITLES = {
    "random": "Captions of pictures chosen at random",
    "best": "The best captions",
    "worst": "The worst captions",
}


class _Said(TypedDict):
    """A caption and its score."""

    caption: str
    score: Number


class _Image(TypedDict):
    """What is said of an image, by phase."""

    image: str
    references: list[str]
    captions: dict[str, _Said]


class _Examples(TypedDict):
    """captions.json."""

    seed: int
    score: str
    phases: Annotated[list[str], Meta(min_length=1)]
    random: list[Count]
    upright: NotRequired[bool]
    images: Annotated[list[_Image], Meta(min_length=1)]


_EXAMPLES = Kind(_Examples, "file of captions", "delete it, and the page goes without")


def sections(run: Path) -> list[Section]:
    """Galleries of the run's captions.json; none where there is no such file."""
    file = run / "captions.json"
    if not file.is_file():
        return []
    content = read_json(file, _EXAMPLES)
    _check_numbers(file, content)
    images, phases = content["images"], content["phases"]
    upright = content.get("upright", True)
    chosen = choose(content, min(_MOST, max(len(images) // 2, 1)))
    why = {
        "random": f"Drawn with seed {content['seed']}, whatever their score.",
        "best": f"Those with the highest score after {phases[-1]}.",
        "worst": f"Those with the lowest score after {phases[-1]}.",
    }
    scored = (
        f"Validation images; the number at each phase is the caption’s score ({content['score']}), "
        "100 at best."
    )
    return [
        Section(
            title,
            (
                Text(f"{why[kind]} {scored}"),
                Gallery([_card(images[number], phases, upright) for number in chosen[kind]]),
            ),
        )
        for kind, title in _TITLES.items()
    ]


def _check_numbers(file: Path, content: _Examples) -> None:
    """Images are named by their number, and each has a caption of the last phase."""
    images, last = content["images"], content["phases"][-1]
    without = [image["image"] for image in images if last not in image["captions"]]
    beyond = [number for number in content["random"] if number >= len(images)]
    if without or beyond:
        wrong = f"no image {beyond[0]}" if beyond else f"no caption of {without[0]} after {last}"
        raise ValueError(f"{file} is no {_EXAMPLES.what}: it has {wrong}; {_EXAMPLES.remedy}")


def _card(image: Mapping[str, Any], phases: Sequence[str], upright: bool) -> Card:
    """One picture with its captions and the right ones."""
    lines = []
    for phase in phases:
        if phase in image["captions"]:
            said = image["captions"][phase]
            lines.append(Line(phase, said["caption"] or "(nothing)", f"{said['score']:.0f}"))
    lines += [Line("right", text, strong=True) for text in image["references"]]
    return Card(_thumbnail(Path(image["image"]), upright), lines)


def _thumbnail(file: Path, upright: bool = True) -> Picture | str:
    """The picture, small; or that it is gone."""
    try:
        picture = read_picture(file, upright=upright)
    except (OSError, ValueError) as error:
        reason = (
            "no such file"
            if isinstance(error, FileNotFoundError)
            else "no picture that can be read"
        )
        return f"{file.name}: {reason}"
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return Picture(file.name, content.getvalue())
