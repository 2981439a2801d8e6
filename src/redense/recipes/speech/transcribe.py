"""What a user does with a trained network: the text of a recording."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from redense.files.folders import Piped
from redense.files.sound import BadAudioError
from redense.recipes.speech.decoding import BeamSearch
from redense.recipes.speech.models import Padded
from redense.recipes.speech.use import Transcriber
from redense.recipes.trained import restore


def transcribe(
    model: Path,
    audio: Iterable[Path | Piped],
    *,
    lm: Path | None = None,
    beam: int = 64,
    lm_weight: float = 1.0,
    word_score: float = 1.0,
) -> Iterator[tuple[Path | Piped, str | BadAudioError]]:
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
            sounds = _preprocessed(transcriber, file)
        except BadAudioError as error:
            yield file, error
            continue
        yield file, transcriber.read(sounds, search)[0]


def _preprocessed(transcriber: Transcriber, file: Path | Piped) -> Padded:
    """What came through a pipe is kept while it is read: of some forms the end is read first."""
    if isinstance(file, Path):
        return transcriber.preprocess(file)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "piped"
        kept.write_bytes(file.getvalue())
        try:
            return transcriber.preprocess(kept)
        except BadAudioError as error:
            raise BadAudioError(file, error.reason) from error
