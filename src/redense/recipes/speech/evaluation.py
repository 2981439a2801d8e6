"""How many words and characters a trained network gets wrong, on any list that training takes."""

from __future__ import annotations

from pathlib import Path

from redense.files.folders import say
from redense.files.sound import BadAudioError
from redense.recipes.inputs import Scores
from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.data import find
from redense.recipes.speech.scores import Answer, error_rates
from redense.recipes.speech.use import Transcriber
from redense.recipes.trained import restore


def evaluate(network: str, data: str) -> Scores:
    """``wer`` and ``cer`` in per cent, decoded greedily, of the test split of ``data``; of its
    validation split where there is none, or of all that it has.

    Recordings that cannot be used are named and left out.

    Raises:
        FileNotFoundError, ValueError: no such network or data, or no recording that can be used.
    """
    folder = Path(network)
    transcriber = Transcriber(*restore(folder, "speech"), folder)
    splits = find(data)
    split = next((name for name in ("test", "valid", "train") if splits[name]), "train")
    answers = []
    for utterance in splits[split]:
        text = normalize(utterance.text)
        try:
            sounds = transcriber.preprocess([utterance])
        except BadAudioError as error:
            say(f"left out: {error}")
            continue
        if text:
            said = transcriber.read(sounds)[0]
            answers.append(Answer(utterance._replace(text=text), said))
    if not answers:
        raise ValueError(f"data {data!r} has no recording with a text that can be used")
    say(f"{len(answers)} recordings of {split}")
    return Scores(error_rates(answers))
