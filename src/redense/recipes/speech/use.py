"""What a user does with a trained network: the words of a recording."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from redense.files.sound import read_sound
from redense.recipes.inputs import answering, as_list
from redense.recipes.speech.batches import normalizer
from redense.recipes.speech.decoding import BeamSearch, greedy
from redense.recipes.speech.features import BINS, RATE, features
from redense.recipes.speech.models import Padded
from redense.recipes.speech.readers import Utterance
from redense.recipes.trained import restore

Sound = str | Path | NDArray[np.float32] | Tensor | Utterance
"""A file, samples at 16 kHz in [-1, 1], frames (T, bins) as the network was trained on, or an
utterance of a list."""


@dataclass(frozen=True)
class Transcriber:
    """A trained network and the sounds that it expects."""

    network: nn.Module
    config: Mapping[str, Any]
    folder: Path
    search: BeamSearch | None = None
    """None decodes greedily."""

    def preprocess(self, sounds: Sound | Sequence[Sound]) -> Padded:
        """Normalised spectrograms (B, T, bins) and their lengths, of files, samples or frames.

        Raises:
            BadAudioError: a file that cannot be used, by name.
            ValueError: frames of another width than the network's, or audio for a network that was
                trained on other features.
        """
        mean, std = self.config.get("mean", 0.0), self.config.get("std", 1.0)
        normalize = normalizer(self.config["normalize"], torch.tensor(mean), torch.tensor(std))
        frames = [normalize(self._frames(sound)) for sound in as_list(sounds)]
        lengths = torch.tensor([len(one) for one in frames])
        return Padded(pad_sequence(frames, batch_first=True), lengths)

    def _frames(self, sound: Sound) -> Tensor:
        bins = self.config["bins"]
        if isinstance(sound, Tensor):
            if sound.ndim != 2 or sound.shape[1] != bins or not len(sound):
                raise ValueError(f"frames are (T, {bins}) here, got {tuple(sound.shape)}")
            if not sound.isfinite().all():
                raise ValueError("frames hold NaN or infinity; leave those out")
            return sound.float()
        if bins != BINS:
            raise ValueError(
                f"{self.folder} was trained on {bins} numbers a frame, not on audio; give it "
                f"frames as it was trained on, a tensor (T, {bins})"
            )
        return _spectrogram(sound)

    def predict(self, sounds: Sound | Sequence[Sound]) -> list[str]:
        """What is said in each: ``["so you are the queen"]``."""
        return [self.read(self.preprocess(sound))[0] for sound in as_list(sounds)]

    def read(self, sounds: Padded) -> list[str]:
        """The text of each of some preprocessed sounds."""
        with answering(self.network):
            found = self.network(sounds)
        return self.search(found) if self.search else greedy(found, self.config["alphabet"])


def transcriber(
    folder: Path,
    *,
    lm: Path | None = None,
    beam: int = 64,
    lm_weight: float = 1.0,
    word_score: float = 1.0,
) -> Transcriber:
    """The network of a finished run or of an export, greedy unless it is given a language model.

    Args:
        lm: an n-gram language model (ARPA) over normalised words, for a `BeamSearch`. beam,
            lm_weight, word_score: of the beam search.

    Raises:
        FileNotFoundError, ValueError: no such network or language model, or not one of sound.
    """
    network, config = restore(folder, "speech")
    if lm is None:
        return Transcriber(network, config, folder)
    alphabet = config["alphabet"]
    search = BeamSearch(alphabet, lm, beam=beam, weight=lm_weight, word_score=word_score)
    return Transcriber(network, config, folder, search)


def example(config: Mapping[str, Any], folder: str) -> str:
    """Lines of Python for the model card."""
    if config["bins"] == BINS:
        module = "import numpy as np"
        sound = "np.zeros(16_000, np.float32)  # a second at 16 kHz, or the name of a file"
    else:
        module = "import torch"
        sound = f"torch.zeros(100, {config['bins']})  # frames, as the data set has them"
    return f"""{module}

import redense

folder = {json.dumps(folder)}
network = redense.load(folder)
sound = {sound}
print(network.predict(sound))  # a text per sound
"""


def _spectrogram(sound: str | Path | NDArray[np.float32] | Utterance) -> Tensor:
    if isinstance(sound, np.ndarray):
        return torch.tensor(features(sound.astype(np.float32), RATE))
    if isinstance(sound, Utterance):
        read = read_sound(Path(sound.audio), start=sound.start, seconds=sound.duration)
    else:
        read = read_sound(Path(sound))
    return torch.tensor(features(read.samples, read.rate))
