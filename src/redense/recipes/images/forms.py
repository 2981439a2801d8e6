"""How pictures to be classified may lie, and the fields of their lists."""

from __future__ import annotations

from redense.files.fields import Field, Form
from redense.files.pictures import endings

COLUMNS = (
    Field(("path",), str, "the picture; a relative path counts from the list", needed=True),
    Field(("label",), str, "its class's name; empty for one that is not used", needed=True),
    Field(("split",), str, "train, val or test", needed=True),
)
"""Of a list of pictures."""

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
