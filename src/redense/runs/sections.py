"""What a report shows, as data: a recipe makes sections of its own, the report alone draws them.

table = Table("Error rates", ("after", "WER"), [[Cell("dense"), number(31.5, ".2f")]])
Section("Words and characters", (Text("In per cent of the references."), table))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Picture:
    """A picture to look at; ``content`` is a JPEG file's."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Recording:
    """A recording to listen to; ``content`` is an MP3 file's."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Cell:
    """What a table shows at one place.

    Args:
        text: the words.
        value: the number behind them, to sort by; it sets a column flush right.
        bar: a share, 0 to 1, drawn beside them.
        recording: a sound, played above them.
        note: a few more words below them, in small print.
    """

    text: str
    value: float | None = None
    bar: float | None = None
    recording: Recording | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """``rows`` under ``titles``; the first column heads the rows."""

    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False

    def is_number(self, column: int) -> bool:
        """Whether a column is set flush right."""
        return any(row[column].value is not None for row in self.rows)


@dataclass(frozen=True)
class Line:
    """One thing said about a picture, under a name; ``score`` is the number beside the name."""

    name: str
    words: str
    score: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Card:
    """A picture, or why there is none, over what is said about it."""

    picture: Picture | str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Text | Table | Gallery]


Sections = Callable[[Path], Sequence[Section]]
"""What a run's folder has to show beyond its record."""


def number(value: float, form: str = ".3f") -> Cell:
    """A number as it is shown and as it is; its minus sign is as wide as the plus.

    >>> number(-0.25, "+.1f").text
    '−0.2'
    """
    return Cell(signed(format(value, form)), value) if math.isfinite(value) else Cell(str(value))


def signed(text: str) -> str:
    """With the minus sign that is as wide as the plus."""
    return text.replace("-", "−")


def percent(share: float, bar: bool = False) -> Cell:
    """A share of one, in per cent."""
    return Cell(f"{100 * share:.1f} %", share, min(share, 1.0) if bar else None)
