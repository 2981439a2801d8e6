"""What a report shows of a speech run: error rates by phase and speaker, and the worst utterances
to listen to."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]

from redense.files.records import read_record
from redense.files.sound import BadAudioError, read_sound
from redense.files.typed import Count, Kind, Number, read_json
from redense.plan import in_percent
from redense.recipes.speech.features import BINS, RATE
from redense.runs.sections import Cell, Recording, Section, Table, number

_CLIPS = 10
_SECONDS = 10.0
"""How many recordings are embedded and how much of each: about 40 kB of MP3, so that the page stays
small."""
_SPEAKERS = 60


class _Rates(TypedDict):
    """Error rates of a speaker's utterances."""

    wer: Number
    cer: Number
    utterances: Count


class _Utterance(TypedDict):
    """What was said, what was understood."""

    audio: str
    start: NotRequired[Number | None]
    duration: NotRequired[Number | None]
    speaker: str | None
    text: str
    said: str
    wer: Number
    cer: Number


class _Phase(TypedDict):
    """A phase's worst utterances, and its speakers."""

    worst: list[_Utterance]
    speakers: dict[str, _Rates]


class _Network(TypedDict):
    """What the page asks of network.json."""

    bins: Count


_NETWORK = Kind(_Network, "description of a network", "restore it from where it came")
_EXAMPLES = Kind(
    dict[str, _Phase], "file of utterances by phase", "delete it, and the page goes without"
)


def sections(run: Path) -> list[Section]:
    """Tables of the run's worst.json; none where there is no such file."""
    if not (run / "worst.json").is_file():
        return []
    kept = read_json(run / "worst.json", _EXAMPLES)
    record = read_record(run / "record.json")
    network = read_json(run / "network.json", _NETWORK)
    phases = {
        phase["name"]: kept[phase["name"]] for phase in record["phases"] if phase["name"] in kept
    }
    if not phases:
        raise ValueError(
            f"{run / 'worst.json'} has none of the phases of record.json; {_EXAMPLES.remedy}"
        )
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
    return [_rate(scores.get(name, math.nan)) for name in ("wer", "cer")]


def _rate(value: float) -> Cell:
    return number(value, ".2f")


def _speakers(phases: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row per speaker, the worst first: WER after each phase; the fewest utterances are left out
    first."""
    every = [phase["speakers"].keys() for phase in phases.values()]
    last = {
        name: rates
        for name, rates in list(phases.values())[-1]["speakers"].items()
        if all(name in speakers for speakers in every)
    }
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
