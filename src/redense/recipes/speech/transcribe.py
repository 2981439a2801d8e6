"""What a user does with a trained network: the text of a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from redense.files.sound import BadAudioError
from redense.recipes.speech.decoding import BeamSearch
from redense.recipes.speech.use import Transcriber
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
    transcriber, search = Transcriber(network, config, model), None
    if lm is not None:
        search = BeamSearch(
            config["alphabet"], lm, beam=beam, weight=lm_weight, word_score=word_score
        )
    for file in audio:
        try:
            sounds = transcriber.preprocess(file)
        except BadAudioError as error:
            yield file, error
            continue
        yield file, transcriber.read(sounds, search)[0]
