"""How pictures with captions may lie, and the fields of their files."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from redense.files.fields import Field, Form
from redense.files.typed import Count, Kind, Table

_IMAGE = Field(
    ("image", "image_name", "filename", "file_name", "file", "path"),
    str,
    "the picture; a relative path counts from --images",
    needed=True,
)
_CAPTION = Field(
    ("caption", "comment", "text", "raw"), str, "what it shows; a line for each", needed=True
)
_SPLIT = Field(("split",), str, "train, val or test")
COLUMNS = (_IMAGE, _CAPTION, _SPLIT)
"""Of a table, as Kaggle's call them."""


class KarpathyImage(TypedDict):
    """An image of dataset.json."""

    filename: str
    split: str
    sentences: list[Any] | None
    filepath: NotRequired[str | None]
    imgid: NotRequired[Count]


class CocoImage(TypedDict):
    """An image of captions_train2017.json."""

    id: int
    file_name: str


class CocoCaption(TypedDict):
    """An annotation of captions_train2017.json; what is no text is no caption."""

    image_id: int
    caption: Any


class _Karpathy(TypedDict):
    """dataset.json of Karpathy's splits."""

    images: list[KarpathyImage]


class _Coco(TypedDict):
    """captions_train2017.json."""

    images: list[CocoImage]
    annotations: list[CocoCaption]


FILE = Kind(Table, "file of captions", "it needs Karpathy's or COCO's form", finite=False)
KARPATHY = Kind(
    _Karpathy, FILE.what, "Karpathy's form has images with filename, split and sentences"
)
COCO = Kind(
    _Coco,
    FILE.what,
    "COCO's captions_*.json have images with id and file_name, and annotations with image_id "
    "and caption",
)

FORMS = (
    Form(
        "dataset.json of Karpathy's splits: a list called images of",
        (
            Field(("filename",), str, "the picture, in images/ or --images", needed=True),
            Field(("split",), str, "train, val, test or restval", needed=True),
            Field(("sentences",), list, "list of {raw: text} or {tokens: words}", needed=True),
            Field(("filepath",), str, "a folder between --images and filename"),
            Field(("imgid",), int, "its column in vgg_feats.mat; default its place"),
        ),
    ),
    Form(
        "annotations/captions_train2017.json and captions_val2017.json of COCO: lists called "
        "images and annotations of",
        (
            Field(("id",), int, "an image's number", needed=True),
            Field(("file_name",), str, "an image's file", needed=True),
            Field(("image_id",), int, "of an annotation: the image it is of", needed=True),
            Field(("caption",), str, "of an annotation: what it shows", needed=True),
        ),
    ),
    Form(
        "Flickr8k.token.txt: PICTURE#NUMBER, a tab and a caption a line; splits from "
        "Flickr_8k.trainImages.txt, devImages and testImages beside it"
    ),
    Form("a table, .txt, .csv or .tsv with a header, as Kaggle's", COLUMNS),
)
"""The plainest first."""
