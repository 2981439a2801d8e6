"""How many words and characters a trained network gets wrong, on any list that training takes."""

from __future__ import annotations

from pathlib import Path

import torch

from redense.files.folders import say
from redense.files.sound import BadAudioError
from redense.recipes.inputs import Scores, choose_split
from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.data import find, unusable
from redense.recipes.speech.scores import Answer, error_rates
from redense.recipes.speech.use import transcriber


def evaluate(
    network: str,
    data: str,
    *,
    split: str | None = None,
    lm: Path | None = None,
    beam: int = 64,
    lm_weight: float = 1.0,
    word_score: float = 1.0,
) -> Scores:
    """``wer`` and ``cer`` in per cent of ``data``, decoded greedily or with a language model.

    Recordings that training could not use either are named and left out.

    Args:
        split: as for `choose_split`. lm, beam, lm_weight, word_score: as for `transcriber`; choose
            them on valid.

    Raises:
        FileNotFoundError, ValueError: no such network, data or split, or no recording that can be
            used.
    """
    heard = transcriber(Path(network), lm=lm, beam=beam, lm_weight=lm_weight, word_score=word_score)
    splits, frames = find(data)
    split = choose_split(splits, split, data)
    answers = []
    for number, utterance in enumerate(splits[split]):
        sound = torch.tensor(frames[split].frames(number)) if frames else utterance
        try:
            sounds = heard.preprocess([sound])
        except BadAudioError as error:
            say(f"left out: {error}")
            continue
        text = normalize(utterance.text)
        alphabet, stride = heard.config["alphabet"], heard.config["sizes"]["stride"]
        if reason := unusable(text, int(sounds.lengths[0]), alphabet, stride):
            say(f"left out: {utterance.audio}: {reason}")
            continue
        said = heard.read(sounds)[0]
        answers.append(Answer(utterance._replace(text=text), said))
    if not answers:
        raise ValueError(f"data {data!r} has no recording with a text that can be used")
    say(f"{len(answers)} recordings of {split}")
    return Scores(error_rates(answers))
