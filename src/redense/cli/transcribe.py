"""``redense transcribe``: what is said in recordings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from redense.cli.flags import Parser, add_flag, add_path, given, parse


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
    add_flag(parser, "lm", Path | None, None, "n-gram model (ARPA) for a beam search; else greedy")
    add_flag(parser, "beam", int, 64, "hypotheses that the beam search keeps", least=1, most=10**6)
    add_flag(parser, "lm_weight", float, 1.0, "of a word's log-probability in --lm", least=0)
    add_flag(parser, "word_score", float, 1.0, "added for each word", least=-1e6, most=1e6)
    parser.add_argument("--json", action="store_true", help="a line of JSON per recording")
    asked = parse(parser, arguments)
    idle = sorted(given(arguments) & {"beam", "lm_weight", "word_score"})
    if idle and asked.lm is None:
        raise ValueError(
            f"--{idle[0].replace('_', '-')} is of the beam search, which needs --lm; pass that too"
        )
    from redense.files.folders import files_of
    from redense.files.sound import ENDINGS, BadAudioError
    from redense.recipes.hub import local
    from redense.recipes.speech.transcribe import transcribe

    bad, texts = 0, set()
    search = {name: getattr(asked, name) for name in ("lm", "beam", "lm_weight", "word_score")}
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
