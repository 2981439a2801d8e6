"""What a report says of a caption run: the paper's Figure 3, pictures with what each phase says of
them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from redense.files.pictures import read_picture
from redense.recipes.captions.examples import choose
from redense.recipes.sections import data_uri

_SIDE = 200
"""Pixels of a picture's longer side: about 8 kB of JPEG."""
_MOST = 6
_TITLES = {
    "random": "Captions of pictures chosen at random",
    "best": "The best captions",
    "worst": "The worst captions",
}


def sections(run: Path) -> list[tuple[str, str]]:
    """(title, HTML) for the report page, from the run's captions.json; none where there is no such
    file."""
    file = run / "captions.json"
    if not file.is_file():
        return []
    content = json.loads(file.read_text("utf-8"))
    chosen = choose(content, min(_MOST, max(len(content["images"]) // 2, 1)))
    last = content["phases"][-1]

    def gallery(numbers: Sequence[int]) -> str:
        return "".join(_picture(content["images"][n], content["phases"]) for n in numbers)

    why = {
        "random": f"Drawn with seed {content['seed']}, whatever their score.",
        "best": f"Those with the highest score after {last}.",
        "worst": f"Those with the lowest score after {last}.",
    }
    return [
        (
            title,
            f"<p>{escape(why[kind])} Validation images; the number at each phase is the caption’s "
            f"score ({escape(content['score'])}), 100 at best.</p>"
            f'<ul class="gallery">{gallery(chosen[kind])}</ul>',
        )
        for kind, title in _TITLES.items()
    ]


def _picture(image: Mapping[str, Any], phases: list[str]) -> str:
    """One picture with its captions and the right ones."""
    said = "".join(
        f'<dt>{escape(name)} <span class="number">{one["score"]:.0f}</span></dt>'
        f"<dd>{escape(one['caption'] or '(nothing)')}</dd>"
        for name, one in (
            (name, image["captions"][name]) for name in phases if name in image["captions"]
        )
    )
    right = "".join(f'<dd class="right">{escape(text)}</dd>' for text in image["references"])
    return f"<li>{_thumbnail(Path(image['image']))}<dl>{said}<dt>right</dt>{right}</dl></li>"


def _thumbnail(file: Path) -> str:
    """The picture, small; or that it is gone."""
    try:
        picture = read_picture(file)
    except (OSError, ValueError) as error:
        reason = (
            "no such file"
            if isinstance(error, FileNotFoundError)
            else "no picture that can be read"
        )
        return f'<p class="quiet gone">{escape(file.name)}: {reason}</p>'
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f'<img alt="{escape(file.name)}" src="{data_uri("image/jpeg", content.getvalue())}">'
