"""``redense transcribe``: what is said in recordings."""

from __future__ import annotations

import json
import sys

from redense.cli.beam import BEAM, add_beam_flags, check_beam_flags
from redense.cli.flags import Parser, add_path, parse


def transcribe_command(arguments: list[str]) -> int:
    """Print what is said in recordings."""
    parser = Parser("redense transcribe", "Print what is said in recordings, one line per file.")
    add_path(
        parser,
        "model",
        "a run of speech, what redense export made of one, or owner/name on the hub",
    )
    add_path(
        parser,
        "audio",
        "wav, flac, ogg, mp3, NIST sphere, any rate and channels; folders of them, or - for a pipe",
        nargs="+",
    )
    add_beam_flags(parser)
    parser.add_argument("--json", action="store_true", help="a line of JSON per recording")
    asked = parse(parser, arguments)
    check_beam_flags(arguments)
    from redense.files.folders import files_of
    from redense.files.sound import ENDINGS, BadAudioError
    from redense.recipes.hub import local
    from redense.recipes.speech.transcribe import transcribe

    bad, texts = 0, set()
    search = {name: getattr(asked, name) for name in BEAM}
    sounds = files_of(asked.audio, ENDINGS, "recording")
    for file, said in transcribe(local(asked.model), sounds, **search):
        if isinstance(said, BadAudioError):
            bad += 1
            print(said, file=sys.stderr)
        else:
            texts.add(said)
            told = {"audio": str(file), "text": said}
            print(json.dumps(told) if asked.json else f"{file}: {said}", flush=True)
    if texts == {""}:
        print(
            "the network answered nothing but blanks: it is hardly trained, or on other sounds; "
            "its scores are in record.json",
            file=sys.stderr,
        )
    return 2 if bad else 0
