"""How recordings with their texts may lie, and the fields of their lists."""

from __future__ import annotations

from typing import TypedDict

from redense.files.fields import Field, Form, row_kind
from redense.files.typed import Kind

AUDIO = Field(
    ("audio", "audio_filepath", "wav_filename", "file_name", "wav_path", "path"),
    str | None,
    "the recording; a relative path counts from the list",
    needed=True,
)
TEXT = Field(
    ("text", "transcript", "transcription", "sentence"),
    str | None,
    "what is said in it",
    needed=True,
)
SPLIT = Field(("split",), str | None, "train, valid (or dev) or test")
SPEAKER = Field(("speaker", "speaker_id", "client_id"), str | int | float | None, "who says it")
DURATION = Field(("duration",), float | str | None, "seconds; shorter recordings are cut off")
OFFSET = Field(
    ("offset",), float | str | None, "second at which it begins in a recording of several"
)
FIELDS = (AUDIO, TEXT, DURATION, OFFSET, SPEAKER, SPLIT)
"""Of a list, as ours, NeMo's, Mozilla's, Hugging Face's and Common Voice's call them."""

ROW = row_kind(
    FIELDS,
    "utterance",
    "each line has audio and text, and perhaps duration, offset, speaker and split",
)


class _Pair(TypedDict):
    """A recording and the file of its text."""

    wav_path: str
    transcript_path: str


class _Pairs(TypedDict):
    """deepspeech.pytorch's manifest."""

    root_path: str
    samples: list[_Pair]


PAIRS = Kind(
    _Pairs,
    "list of utterances",
    "it is neither JSON lines, an object each, nor deepspeech.pytorch's root_path and samples",
    finite=False,
)

FORMS = (
    Form(
        "a list of utterances: .jsonl or .json with an object a line, .csv or .tsv with a "
        "header; or a folder of lists called train, valid (or dev) and test",
        FIELDS,
    ),
    Form("Kaldi's folders: wav.scp and text, perhaps segments and utt2spk, in each split's"),
    Form("LJSpeech's metadata.csv: NAME|TEXT|TEXT IN WORDS a line, recordings in wavs/"),
    Form("deepspeech.pytorch's lists: RECORDING,FILE OF ITS TEXT a line, or its manifest.json"),
    Form("LibriSpeech, WSJ0 and WSJ1, and Common Voice as they are unpacked"),
)
"""The plainest first."""
