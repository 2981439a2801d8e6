"""How a speech set is written: one FLAC per utterance and one JSON line per utterance in the
manifest of its split."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from redense.datasets.split import SPLITS, split_of

try:
    import soundfile
except ImportError as error:
    raise ImportError("speech sets need soundfile; run 'pip install redense[speech]'") from error

SECONDS = (0.5, 8.0)
CHARACTERS_PER_SECOND = (2.5, 22.0)
SPLIT = (
    "by the sha256 of the sentence, in lower case without punctuation: 80 / 10 / 10 %, all its "
    "clips together"
)


@dataclass(frozen=True)
class Utterance:
    """A clip in the encoding it was found in, what is said in it, and who says it, where that is
    known."""

    name: str
    audio: bytes
    text: str
    speaker: str | None


@dataclass(frozen=True)
class Written:
    """What `write_speech` wrote: clips per split, the characters of all texts, what train and test
    share."""

    sizes: dict[str, int]
    alphabet: str
    leakage: str


def write_speech(out: Path, utterances: Sequence[Utterance]) -> Written:
    """Write mono `audio/*.flac` and `{train,valid,test}.jsonl` with the keys audio, text, duration
    (s) and speaker.

    Clips outside 0.5 to 8 s, or whose text is read at less than 2.5 or more than 22 characters a
    second, are left out: their text belongs to another clip, or is not spoken.
    """
    lines: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    (out / "audio").mkdir()
    for utterance in tqdm(utterances, desc="decoding", unit="clip", disable=None, delay=2):
        channels, rate = soundfile.read(
            io.BytesIO(utterance.audio), dtype="int16", always_2d=True
        )  # (T, C), in Hz
        samples = channels.mean(axis=1).astype(channels.dtype)  # (T,)
        duration, text = len(samples) / rate, " ".join(utterance.text.split())
        if not _within(duration, SECONDS) or not _within(
            len(text) / duration, CHARACTERS_PER_SECOND
        ):
            continue
        audio = f"audio/{utterance.name}.flac"
        soundfile.write(out / audio, samples, rate, subtype="PCM_16")
        line = {
            "audio": audio,
            "text": text,
            "duration": round(duration, 3),
            "speaker": utterance.speaker,
        }
        lines[split_of(sentence(text))].append(line)
    for split in SPLITS:
        rows = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines[split])
        (out / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    return Written(
        sizes={split: len(lines[split]) for split in SPLITS},
        alphabet="".join(
            sorted({letter for split in SPLITS for line in lines[split] for letter in line["text"]})
        ),
        leakage=_leakage(lines),
    )


def sentence(text: str) -> str:
    """What makes two texts the same sentence: the words, in lower case, without punctuation."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _leakage(lines: dict[str, list[dict[str, Any]]]) -> str:
    """The share of test whose speaker is heard in train, in a sentence."""
    heard = {line["speaker"] for line in lines["train"]} - {None}
    test = [line["speaker"] for line in lines["test"]]
    known = sum(speaker in heard for speaker in test) / len(test)
    unnamed = test.count(None) / len(test)
    return (
        f"no sentence is shared; voices are: {known:.1%} of test clips name a speaker who is heard "
        "in train "
        f"(named there: {len(heard)}), {unnamed:.1%} name nobody; scores are for known voices"
    )
