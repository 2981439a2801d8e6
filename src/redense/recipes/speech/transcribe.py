"""What a user does with a trained network: the text of a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from redense.files.sound import BadAudioError, read_sound
from redense.recipes.speech.batches import normalizer
from redense.recipes.speech.decoding import BeamSearch, greedy
from redense.recipes.speech.features import BINS, features
from redense.recipes.speech.models import Padded
from redense.recipes.trained import restore


def transcribe(
    model: Path,
    audio: Sequence[Path],
    *,
    lm: Path | None = None,
    beam: int = 64,
    lm_weight: float = 1.0,
    word_score: float = 1.0,
) -> Iterator[tuple[Path, str | BadAudioError]]:
    """(file, text) of each recording, one after the other; what is wrong with it instead of a
    text where it cannot be used.

    Args:
        model: a finished run's folder or an exported one.
        audio: wav, flac, ogg, mp3, NIST sphere; any rate, any number of channels.
        lm: an n-gram language model (ARPA) over normalised words for a `BeamSearch`; None decodes
            greedily. beam, lm_weight, word_score: of the beam search.

    Raises:
        FileNotFoundError, ValueError: no such model, or not one of sound.
    """
    network, config = restore(model, "speech")
    if config["bins"] != BINS:
        raise ValueError(f"{model} was trained on {config['bins']} numbers a frame, not on audio")
    mean, std = torch.tensor(config.get("mean", 0.0)), torch.tensor(config.get("std", 1.0))
    normalize = normalizer(config["normalize"], mean, std)
    alphabet = config["alphabet"]
    search = None
    if lm is not None:
        search = BeamSearch(alphabet, lm, beam=beam, weight=lm_weight, word_score=word_score)
    for file in audio:
        try:
            sound = read_sound(file)
        except BadAudioError as error:
            yield file, error
            continue
        frames = torch.tensor(features(sound.samples, sound.rate))
        with torch.inference_mode():
            found = network(Padded(normalize(frames).unsqueeze(0), torch.tensor([len(frames)])))
        yield file, (search(found) if search else greedy(found, alphabet))[0]
