"""NeuralTalk: an LSTM that is shown an image's features as its first step and then says what it
sees, word by word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from redense.files.typed import Kind, Number

STOP = 0
"""Before the first word this index stands for START, among the predictions for END; words follow
from 1 on."""

State = tuple[Tensor, Tensor]
"""Hidden and cell, (1, B, H) each."""


class NeuralTalk(nn.Module):
    """Image and word encoders, LSTM and decoder of Karpathy and Fei-Fei 2015 (arXiv 1412.2306).

    The image is the first step, START the second, then the words; from START on each step predicts
    the next word and after the last one END. As in the authors' code, dropout acts on both
    encodings and on what the decoder reads, and weights start uniform in ±0.1 with biases of zero.
    Sequences are packed: padding is never computed. Features lose their mean first and get a spread
    of one (`standardise`): what a CNN gives is positive, so that all pictures would push the LSTM's
    gates the same way, and it could not tell them apart.

    Args:
        vocabulary: words and one more, since START and END share an index.
        features: width of the image features.
        hidden: width of encodings and LSTM.
        dropout: share of encodings and of LSTM outputs that is dropped while training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self, vocabulary: int, features: int = 4096, hidden: int = 256, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(()))
        self.image_encoder = nn.Linear(features, hidden)
        self.word_encoder = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.Linear(hidden, vocabulary)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1) if parameter.ndim > 1 else nn.init.zeros_(
                parameter
            )

    def forward(self, features: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
        """Logits of every next word of a batch of captions, in the order of `next_words`.

        Args:
            features: (B, F).
            words: (B, T) indices; what stands beyond a caption's length is never read.
            lengths: (B,) words of each caption, on the CPU.

        Returns:
            (N, V) with N the number of words and of captions together.
        """
        given = _pack(F.pad(words, (1, 0), value=STOP), lengths + 1)
        images = self.encode(features[given.sorted_indices])
        encoded = torch.cat((images, self.word_encoder(given.data)))
        sizes = torch.cat((given.batch_sizes[:1], given.batch_sizes))
        packed = PackedSequence(
            self.dropout(encoded), sizes, given.sorted_indices, given.unsorted_indices
        )
        outputs = self.lstm(packed)[0].data[len(images) :]  # what the image step says is not a word
        logits: Tensor = self.decoder(self.dropout(outputs))
        return logits

    def standardise(self, features: Tensor) -> None:
        """Remember the mean of these features (N, F), each by itself, and their spread around it,
        one for all: a feature that hardly varies must not be blown up.

        Features that are all the same keep their spread.
        """
        self.mean = features.mean(0)
        spread = (features - self.mean).square().mean().sqrt()
        self.spread = spread.where(spread > 0, torch.ones_like(spread))

    def encode(self, features: Tensor) -> Tensor:
        """What the LSTM is shown of images (B, F): (B, H)."""
        encoded: Tensor = self.image_encoder((features - self.mean) / self.spread)
        return encoded

    def look(self, features: Tensor) -> State:
        """The state after seeing images (B, F)."""
        state: State = self.lstm(self.encode(features).unsqueeze(1))[1]
        return state

    def say(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, V) of the words that follow ``words`` (B,), STOP to begin with, and the state
        after them."""
        outputs, state = self.lstm(self.word_encoder(words).unsqueeze(1), state)
        return self.decoder(outputs.squeeze(1)), state


def neuraltalk(vocabulary: int) -> NeuralTalk:
    """The network in the paper's sizes: 4096x256, Vx256, (256 + 256 + 1)x1024, 256xV.

    torch keeps the LSTM's matrix in two halves, for input and state, and a second bias.

    >>> sum(p.numel() for p in neuraltalk(vocabulary=2539).parameters())
    2877675
    """
    return NeuralTalk(vocabulary)


class CnnOfConfig(TypedDict):
    """Which CNN looks at the pictures."""

    name: str
    weights: str
    size: Annotated[int, Meta(ge=1, le=2**16)]
    upright: NotRequired[bool]


class Description(TypedDict):
    """What rebuilds a captioner, as a task's `config()` has it."""

    architecture: str
    vocabulary: list[str]
    features: Annotated[int, Meta(ge=1, le=2**24)]
    hidden: Annotated[int, Meta(ge=1, le=2**16)]
    beam: Annotated[int, Meta(ge=1, le=10_000)]
    length_penalty: Number
    most_words: Annotated[int, Meta(ge=1, le=10_000)]
    cnn: CnnOfConfig | None


DESCRIPTION = Kind(Description, "description of a network", "restore it from where it came")


def network(config: Mapping[str, Any]) -> NeuralTalk:
    """The untrained network of a task's `config()`."""
    return NeuralTalk(len(config["vocabulary"]) + 1, config["features"], config["hidden"])


def next_words(words: Tensor, lengths: Tensor) -> Tensor:
    """What `NeuralTalk.forward` predicts for these captions: (N,) words, END after each caption's
    last."""
    ended = F.pad(words, (0, 1))
    ended[torch.arange(len(words), device=words.device), lengths.to(words.device)] = STOP
    return _pack(ended, lengths + 1).data


def _pack(padded: Tensor, lengths: Tensor) -> PackedSequence:
    return pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
