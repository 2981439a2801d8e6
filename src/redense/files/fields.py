"""The columns of the world's lists: what tools call them, of which kind they are, what they mean.

AUDIO = Field(("audio", "audio_filepath"), str, "the recording")
row_kind([AUDIO], "utterance", "each line has audio and text")      # checked by this
AUDIO.of({"audio_filepath": "a.wav"})                               # ("audio_filepath", "a.wav")
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from redense.files.typed import Kind

_WIDTH = 80


@dataclass(frozen=True)
class Field:
    """A column of a table, or a key of a row.

    Args:
        names: as tools call it, ours first.
        schema: a type that msgspec checks.
        meaning: in words.
        needed: whether a row without it is none.
    """

    names: tuple[str, ...]
    schema: Any
    meaning: str
    needed: bool = False

    def of(self, row: Mapping[str, Any]) -> tuple[str, Any] | None:
        """(name, value) of the first of its names under which the row has one, or an empty text;
        None without any."""
        there = [(name, row[name]) for name in self.names if row.get(name) is not None]
        return next((one for one in there if one[1] != ""), there[0] if there else None)


@dataclass(frozen=True)
class Form:
    """A way in which data may lie: what it is, and the fields of a row."""

    what: str
    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        lines = textwrap.wrap(self.what, _WIDTH)
        names = [", ".join(field.names) for field in self.fields]
        for name, field in zip(names, self.fields, strict=True):
            needed = "needed" if field.needed else "may be left out"
            lines += textwrap.wrap(
                f"{name}: {field.meaning} ({needed})",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
            )
        return "\n".join(lines)


def row_kind(fields: Iterable[Field], what: str, remedy: str) -> Kind[Any]:
    """What a row of these fields must be; others may stand in it."""
    columns = [
        (name, field.schema | msgspec.UnsetType, msgspec.UNSET)
        for field in fields
        for name in field.names
    ]
    return Kind(msgspec.defstruct("Row", columns), what, remedy, finite=False)
