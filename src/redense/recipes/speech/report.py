"""What a report says of a speech run: error rates by phase and speaker, and the worst utterances to
listen to."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import soundfile
import soxr

from redense.files.sound import BadAudioError, read_sound
from redense.recipes.sections import data_uri, table
from redense.recipes.speech.features import BINS, RATE

_CLIPS = 10
_SECONDS = 10.0
"""How many recordings are embedded and how much of each: about 40 kB of MP3, so that the page stays
small."""
_SPEAKERS = 60


def sections(run: Path) -> list[tuple[str, str]]:
    """(title, HTML) for the report page, from the run's worst.json; none where there is no such
    file."""
    if not (run / "worst.json").is_file():
        return []
    phases, record, network = (
        _read(run / name) for name in ("worst.json", "record.json", "network.json")
    )
    phases = {
        phase["name"]: phases[phase["name"]]
        for phase in record["phases"]
        if phase["name"] in phases
    }
    last, found = list(phases.items())[-1]
    return [
        ("Words and characters", _rates(record) + _speakers(phases)),
        (
            f"The worst utterances after {last}",
            _worst(found["worst"][:_CLIPS], has_audio=network["bins"] == BINS),
        ),
    ]


def _rates(record: Mapping[str, Any]) -> str:
    """Both error rates at the end of every phase, of the final weights on test, and of one constant
    answer."""
    rows: list[list[str | float]] = [
        [
            one["name"],
            one["epochs"],
            f"{100 * one['sparsity']:g} %" if one["sparsity"] else "–",
            one["valid"]["wer"],
            one["valid"]["cer"],
        ]
        for one in record["phases"]
    ]
    if "wer" in record["test"]:
        rows.append(["test, final weights", "", "", record["test"]["wer"], record["test"]["cer"]])
    if constant := record["data"].get("most_frequent"):
        name = f"always answering “{constant['text']}”"
        rows.append([name, "", "", constant["valid"]["wer"], constant["valid"]["cer"]])
    caption = "Error rates on validation at the end of each phase, in per cent of the references"
    return table(caption, ("after", "epochs", "held", "WER", "CER"), rows)


def _speakers(phases: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a speaker, the worst first: WER after each phase; the fewest utterances are left out
    first."""
    last = list(phases.values())[-1]["speakers"]
    heard = sorted(last, key=lambda name: (-last[name]["utterances"], name))[:_SPEAKERS]
    heard.sort(key=lambda name: (-last[name]["wer"], name))
    rows = [
        [
            name,
            last[name]["utterances"],
            *(one["speakers"][name]["wer"] for one in phases.values()),
            last[name]["cer"],
        ]
        for name in heard
    ]
    left = len(last) - len(heard)
    caption = "WER by speaker at the end of each phase, and CER at the last one’s, validation"
    caption += f"; {left} speakers with fewer utterances are left out" * bool(left)
    return table(
        caption, ("speaker", "utterances", *(f"WER {name}" for name in phases), "CER"), rows
    )


def _worst(rows: Sequence[Mapping[str, Any]], *, has_audio: bool) -> str:
    """The utterances with what was said, what was understood, and their recordings."""
    none = "<span class=quiet>no audio: the data set has features only</span>"
    shown = [
        [
            row["text"],
            row["said"] or "(nothing)",
            row["cer"],
            row["wer"],
            row["speaker"] or "unknown",
            _player(row) if has_audio else none,
        ]
        for row in rows
    ]
    titles = ("said", "understood", "CER", "WER", "speaker", "recording")
    return table("Highest character error rates on validation, in per cent", titles, shown, html=5)


def _player(row: Mapping[str, Any]) -> str:
    """The recording to listen to, or why there is none."""
    file, start = Path(row["audio"]), row.get("start")
    part = row.get("duration") if start is not None else None
    try:
        sound = read_sound(file, start=start, seconds=part)
    except BadAudioError as error:
        return f"<span class=quiet>{escape(file.name)}: {escape(error.reason)}</span>"
    first = sound.samples[: int(_SECONDS * sound.rate)]
    clip = io.BytesIO()
    soundfile.write(clip, soxr.resample(first, sound.rate, RATE), RATE, format="MP3")
    cut = (
        f"<br><span class=quiet>the first {_SECONDS:g} of {sound.seconds:.1f} s</span>"
        if sound.seconds > _SECONDS
        else ""
    )
    source = data_uri("audio/mpeg", clip.getvalue())
    name = escape(file.name)
    return f'<audio controls preload="metadata" title="{name}" src="{source}"></audio>{cut}'


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found
