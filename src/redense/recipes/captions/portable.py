"""A captioner for other runtimes: its CNN, and what says words of features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from redense.recipes.captions.decoding import greedy
from redense.recipes.captions.models import STOP, NeuralTalk
from redense.recipes.captions.use import Captioner
from redense.recipes.portable import Portable


class Speaker(nn.Module):
    """Features (B, F) to words (B, most), decoded greedily: numbers from 1 on as the vocabulary has
    them, 0 from a caption's end on."""

    def __init__(self, network: NeuralTalk, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, features: Tensor) -> Tensor:
        """All steps, for a graph has no end that depends on what was said."""
        network = self.network
        gates = network.encode(features)
        hidden = torch.zeros_like(gates)
        hidden, cell = self._step(gates, hidden, torch.zeros_like(hidden))
        words = torch.zeros_like(features[:, 0], dtype=torch.long)  # STOP
        open_ = torch.ones_like(words, dtype=torch.bool)
        said = []
        for _ in range(self.most):
            hidden, cell = self._step(network.word_encoder(words), hidden, cell)
            words = network.decoder(hidden).argmax(1)
            open_ = open_ & (words != STOP)
            words = words * open_
            said.append(words)
        return torch.stack(said, 1)

    def _step(self, given: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """A step of `torch.nn.LSTM`, whose own kernel no trace of any batch size has."""
        lstm = self.network.lstm
        gates = nn.functional.linear(given, lstm.weight_ih_l0, lstm.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, lstm.weight_hh_l0, lstm.bias_hh_l0)
        entry, forget, fresh, out = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + entry.sigmoid() * fresh.tanh()
        return out.sigmoid() * cell.tanh(), cell


def portable(network: nn.Module, config: Mapping[str, Any], folder: Path) -> list[Portable]:
    """Features (B, F) to words (B, most), and pixels to features where the network has a CNN."""
    talker, most = cast("NeuralTalk", network), config["most_words"]
    draw = torch.Generator().manual_seed(0)

    def answer(features: Tensor) -> Tensor:
        said = torch.zeros(len(features), most, dtype=torch.long)
        for row, words in zip(said, greedy(talker, features, most), strict=True):
            row[: len(words)] = torch.tensor(words, dtype=torch.long)
        return said

    parts = [
        Portable(
            "model",
            Speaker(talker, most),
            answer,
            [torch.randn(many, config["features"], generator=draw) for many in (2, 1, 5)],
            {0: "batch"},
            "features",
            "words",
            "of the CNN; word n is number n - 1 of the vocabulary in config.json, 0 the end",
        )
    ]
    if config["cnn"] is not None:
        cnn = Captioner(talker, config, folder).cnn
        pixels = [torch.randn(many, 3, cnn.size, cnn.size, generator=draw) for many in (2, 1)]
        parts.append(
            Portable(
                "cnn",
                cnn.network,
                cnn.network,
                pixels,
                {0: "batch"},
                "pixels",
                "features",
                f"in [0, 1], minus {cnn.mean}, divided by {cnn.std}",
            )
        )
    return parts
