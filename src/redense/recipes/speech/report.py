"""What a report shows of a speech run: error rates by phase and speaker, and the worst utterances
to listen to."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]

from redense.files.records import read_json
from redense.files.sound import BadAudioError, read_sound
from redense.plan import in_percent
from redense.recipes.speech.features import BINS, RATE
from redense.runs.sections import Cell, Recording, Section, Table, number

_CLIPS = 10
_SECONDS = 10.0
"""How many recordings are embedded and how much of each: about 40 kB of MP3, so that the page stays
small."""
_SPEAKERS = 60


def sections(run: Path) -> list[Section]:
    """Tables of the run's worst.json; none where there is no such file."""
    if not (run / "worst.json").is_file():
        return []
    kept, record, network = (
        read_json(run / name) for name in ("worst.json", "record.json", "network.json")
    )
    phases = {
        phase["name"]: kept[phase["name"]] for phase in record["phases"] if phase["name"] in kept
    }
    last = list(phases)[-1]
    worst = _worst(phases[last]["worst"][:_CLIPS], has_audio=network["bins"] == BINS)
    return [
        Section("Words and characters", (_rates(record), _speakers(phases))),
        Section(f"The worst utterances after {last}", (worst,)),
    ]


def _rates(record: Mapping[str, Any]) -> Table:
    """Both error rates at the end of every phase, of the final weights on test, and of one constant
    answer."""
    rows = [
        [
            Cell(phase["name"]),
            number(phase["epochs"], "d"),
            Cell(in_percent(phase["sparsity"]) if phase["sparsity"] else "–"),
            *_both(phase["valid"]),
        ]
        for phase in record["phases"]
    ]
    if "wer" in record["test"]:
        rows.append([Cell("test, final weights"), Cell(""), Cell(""), *_both(record["test"])])
    if constant := record["data"].get("most_frequent"):
        name = f"always answering “{constant['text']}”"
        rows.append([Cell(name), Cell(""), Cell(""), *_both(constant["valid"])])
    caption = "Error rates on validation at the end of each phase, in per cent of the references"
    return Table(caption, ("after", "epochs", "held", "WER", "CER"), rows)


def _both(scores: Mapping[str, float]) -> list[Cell]:
    return [_rate(scores["wer"]), _rate(scores["cer"])]


def _rate(value: float) -> Cell:
    return number(value, ".2f")


def _speakers(phases: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per speaker, the worst first: WER after each phase; the fewest utterances are left out
    first."""
    last = list(phases.values())[-1]["speakers"]
    heard = sorted(last, key=lambda name: (-last[name]["utterances"], name))[:_SPEAKERS]
    heard.sort(key=lambda name: (-last[name]["wer"], name))
    rows = [
        [
            Cell(name),
            number(last[name]["utterances"], "d"),
            *(_rate(phase["speakers"][name]["wer"]) for phase in phases.values()),
            _rate(last[name]["cer"]),
        ]
        for name in heard
    ]
    left = len(last) - len(heard)
    caption = "WER by speaker at the end of each phase, and CER at the last one’s, validation"
    caption += f"; {left} speakers with fewer utterances are left out" * bool(left)
    titles = ("speaker", "utterances", *(f"WER {name}" for name in phases), "CER")
    return Table(caption, titles, rows)


def _worst(rows: Sequence[Mapping[str, Any]], *, has_audio: bool) -> Table:
    """The utterances with what was said, what was understood, and their recordings."""
    none = Cell("no audio: the data set has features only")
    shown = [
        [
            Cell(row["text"]),
            Cell(row["said"] or "(nothing)"),
            _rate(row["cer"]),
            _rate(row["wer"]),
            Cell(row["speaker"] or "unknown"),
            _recording(row) if has_audio else none,
        ]
        for row in rows
    ]
    titles = ("said", "understood", "CER", "WER", "speaker", "recording")
    return Table("Highest character error rates on validation, in per cent", titles, shown)


def _recording(row: Mapping[str, Any]) -> Cell:
    """The recording to listen to, or why there is none."""
    file, start = Path(row["audio"]), row.get("start")
    part = row.get("duration") if start is not None else None
    try:
        sound = read_sound(file, start=start, seconds=part)
    except BadAudioError as error:
        return Cell(f"{file.name}: {error.reason}")
    first = sound.samples[: int(_SECONDS * sound.rate)]
    clip = io.BytesIO()
    soundfile.write(clip, soxr.resample(first, sound.rate, RATE), RATE, format="MP3")
    cut = f"the first {_SECONDS:g} of {sound.seconds:.1f} s" if sound.seconds > _SECONDS else ""
    return Cell(cut, recording=Recording(file.name, clip.getvalue()))
