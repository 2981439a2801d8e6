"""How pictures to be classified may lie, and the fields of their lists."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from redense.files.fields import Field, Form, row_kind
from redense.files.folders import SPLITS
from redense.files.pictures import endings

_NAME = Annotated[str, Meta(min_length=1)]
_literal: Any = Literal
_SPLIT = _literal[tuple(name for names in SPLITS.values() for name in names)]

COLUMNS = (
    Field(("path",), _NAME, "the picture; a relative path counts from the list", needed=True),
    Field(("label",), str, "its class's name; empty for one that is not used", needed=True),
    Field(("split",), _SPLIT, "train, val or test", needed=True),
)
"""Of a list of pictures."""

ROW = row_kind(
    COLUMNS, "picture", "each line has a path, a label or none, and as split train, val or test"
)

IMAGE = Field(("image", "img", "jpg"), bytes, "encoded bytes, or a struct with bytes", needed=True)
LABEL = Field(
    ("label", "labels", "cls", "fine_label"),
    int | str,
    "its class's number or name; -1 for none",
    needed=True,
)
"""Columns of Parquet shards."""

_KINDS = ", ".join(sorted(endings()))
FORMS = (
    Form(
        "a folder train/CLASS/PICTURE, perhaps val/ and test/ beside it; without val/ a tenth "
        f"of train is held out. Pictures end in {_KINDS}"
    ),
    Form("a list, .csv or .tsv with a header", COLUMNS),
    Form(
        "a folder of Parquet shards, train-00000.parquet, perhaps validation-00000.parquet "
        "and test-00000.parquet; classes from classes.txt, a line each, or the hub's own",
        (IMAGE, LABEL),
    ),
)
"""The plainest first."""
