"""What recognition is worth: error rates by jiwer, overall and per speaker, and the worst
utterances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

try:
    import jiwer
except ImportError as error:
    raise ImportError("speech needs jiwer; run 'pip install redense[speech]'") from error

from redense.recipes.speech.readers import Utterance


@dataclass(frozen=True)
class Answer:
    """An utterance and what the network took it for."""

    utterance: Utterance
    said: str


def error_rates(answers: Sequence[Answer]) -> dict[str, float]:
    """wer and cer in per cent of all words and characters of the references."""
    true, said = [a.utterance.text for a in answers], [a.said for a in answers]
    return {"wer": 100 * jiwer.wer(true, said), "cer": 100 * jiwer.cer(true, said)}


def by_speaker(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """`error_rates` and the number of utterances for each speaker, "unknown" for those without a
    name."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.utterance.speaker or "unknown", []).append(answer)
    return {
        name: {**error_rates(groups[name]), "utterances": len(groups[name])}
        for name in sorted(groups)
    }


def worst(answers: Sequence[Answer], most: int = 20) -> list[dict[str, Any]]:
    """The utterances with the highest character error rate, the longest first among equals."""
    rows = [
        {
            "audio": a.utterance.audio,
            "start": a.utterance.start,
            "duration": a.utterance.duration,
            "speaker": a.utterance.speaker,
            "text": a.utterance.text,
            "said": a.said,
        }
        | error_rates([a])
        for a in answers
    ]
    return sorted(rows, key=lambda row: (-row["cer"], -len(row["text"]), row["audio"]))[:most]


def most_frequent(
    train: Sequence[Utterance], asked: Sequence[Utterance]
) -> tuple[str, dict[str, float]]:
    """The sentence that train has most often (ties: the first in the alphabet), and its score as
    every answer."""
    counts = Counter(utterance.text for utterance in train)
    sentence = min(counts, key=lambda text: (-counts[text], text))
    return sentence, error_rates([Answer(utterance, sentence) for utterance in asked])
