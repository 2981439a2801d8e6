"""What a user does with a trained network: the text of a recording."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from redense.files.folders import Piped
from redense.files.sound import BadAudioError
from redense.recipes.speech.models import Padded
from redense.recipes.speech.use import Transcriber, transcriber


def transcribe(
    model: Path,
    audio: Iterable[Path | Piped],
    **search: Any,
) -> Iterator[tuple[Path | Piped, str | BadAudioError]]:
    """(file, text) of each recording, one after the other; what is wrong with it instead of a
    text where it cannot be used.

    Args:
        model: a finished run's folder or an exported one.
        audio: wav, flac, ogg, mp3, NIST sphere; any rate, any number of channels.
        search: a language model and how it is searched, as for `transcriber`.

    Raises:
        FileNotFoundError, ValueError: no such model, or not one of sound.
    """
    network = transcriber(model, **search)
    for file in audio:
        try:
            sounds = _preprocessed(network, file)
        except BadAudioError as error:
            yield file, error
            continue
        yield file, network.read(sounds)[0]


def _preprocessed(network: Transcriber, file: Path | Piped) -> Padded:
    """What came through a pipe is kept while it is read: of some forms the end is read first."""
    if isinstance(file, Path):
        return network.preprocess(file)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "piped"
        kept.write_bytes(file.getvalue())
        try:
            return network.preprocess(kept)
        except BadAudioError as error:
            raise BadAudioError(file, error.reason) from error
