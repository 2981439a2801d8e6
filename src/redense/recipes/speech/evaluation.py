"""How many words and characters a trained network gets wrong, on any list that training takes."""

from __future__ import annotations

from pathlib import Path

import torch

from redense.files.folders import say
from redense.files.sound import BadAudioError
from redense.recipes.inputs import Scores, choose_split
from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.data import find
from redense.recipes.speech.scores import Answer, error_rates
from redense.recipes.speech.use import Transcriber
from redense.recipes.trained import restore


def evaluate(network: str, data: str, *, split: str | None = None) -> Scores:
    """``wer`` and ``cer`` in per cent of ``data``, decoded greedily.

    Recordings that cannot be used are named and left out.

    Args:
        split: as for `choose_split`.

    Raises:
        FileNotFoundError, ValueError: no such network, data or split, or no recording that can be
            used.
    """
    folder = Path(network)
    transcriber = Transcriber(*restore(folder, "speech"), folder)
    splits, frames = find(data)
    split = choose_split(splits, split, data)
    answers = []
    for number, utterance in enumerate(splits[split]):
        text = normalize(utterance.text)
        if not text:
            say(f"left out: {utterance.audio} has no text")
            continue
        sound = torch.tensor(frames[split].frames(number)) if frames else utterance
        try:
            sounds = transcriber.preprocess([sound])
        except BadAudioError as error:
            say(f"left out: {error}")
            continue
        said = transcriber.read(sounds)[0]
        answers.append(Answer(utterance._replace(text=text), said))
    if not answers:
        raise ValueError(f"data {data!r} has no recording with a text that can be used")
    say(f"{len(answers)} recordings of {split}")
    return Scores(error_rates(answers))
