"""How data of your own may lie, by recipe: forms, and the fields of their rows, as the readers
check them."""

from __future__ import annotations

from redense.files.fields import Field, Form
from redense.files.pictures import endings
from redense.recipes.captions import readers as captions
from redense.recipes.images import folders, shards
from redense.recipes.speech import readers as speech


def formats() -> dict[str, tuple[Form, ...]]:
    """The forms of each recipe, the plainest first."""
    kinds = ", ".join(sorted(endings()))
    images = (
        Form(
            "a folder train/CLASS/PICTURE, perhaps val/ and test/ beside it; without val/ a tenth "
            f"of train is held out. Pictures end in {kinds}"
        ),
        Form("a list, .csv or .tsv with a header", folders.COLUMNS),
        Form(
            "a folder of Parquet shards, train-00000.parquet, perhaps validation-00000.parquet "
            "and test-00000.parquet; classes from classes.txt, a line each, or the hub's own",
            (
                Field(shards.IMAGE, bytes, "encoded bytes, or a struct with bytes", needed=True),
                Field(shards.LABEL, int, "its class's number or name; -1 for none", needed=True),
            ),
        ),
    )
    sentences = Field(("sentences",), list, "a list of {raw: text} or {tokens: words}", needed=True)
    caption_sets = (
        Form(
            "dataset.json of Karpathy's splits: a list called images of",
            (
                Field(("filename",), str, "the picture, in images/ or --images", needed=True),
                Field(("split",), str, "train, val, test or restval", needed=True),
                sentences,
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
        Form("a table, .txt, .csv or .tsv with a header, as Kaggle's", captions.COLUMNS),
    )
    recordings = (
        Form(
            "a list of utterances: .jsonl or .json with an object a line, .csv or .tsv with a "
            "header; or a folder of lists called train, valid (or dev) and test",
            speech.FIELDS,
        ),
        Form("Kaldi's folders: wav.scp and text, perhaps segments and utt2spk, in each split's"),
        Form("LJSpeech's metadata.csv: NAME|TEXT|TEXT IN WORDS a line, recordings in wavs/"),
        Form("deepspeech.pytorch's lists: RECORDING,FILE OF ITS TEXT a line, or its manifest.json"),
        Form("LibriSpeech, WSJ0 and WSJ1, and Common Voice as they are unpacked"),
    )
    return {"images": images, "captions": caption_sets, "speech": recordings}
