"""A speech network for other runtimes: one sound at a time, so that nothing is packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from redense.recipes.portable import Portable
from redense.recipes.speech.models import DeepSpeech1, DeepSpeech2, Padded
from redense.recipes.speech.recurrent import GatedRecurrent, SharedRecurrent, clipped_relu

State = tuple[Tensor, ...]
Step = Callable[[State, Tensor], tuple[State, Tensor]]


class OneSound(nn.Module):
    """Frames (1, T, bins) to log-probabilities (1, T', symbols): the same network, of the same
    weights, without a batch."""

    def __init__(self, network: DeepSpeech1 | DeepSpeech2) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """All of one sound at once."""
        network = self.network
        if isinstance(network, DeepSpeech1):
            rows = _windows(frames[0], network.context, network.stride)
            for layer in network.fully_connected[:3]:
                rows = clipped_relu(layer(rows))
            rows = _recurrent(network.recurrent, rows)
            rows = clipped_relu(network.fully_connected[3](rows))
        else:
            x = frames.transpose(1, 2).unsqueeze(1)  # (1, 1, bins, T)
            for convolution, norm in zip(network.convolutions, network.norms, strict=True):
                x = clipped_relu(norm(convolution(x)[0].permute(2, 0, 1)))  # (T', C, F)
                x = x.permute(1, 2, 0).unsqueeze(0)
            rows = x[0].permute(2, 0, 1).flatten(1)  # (T', C * F)
            for layer in network.recurrent:
                rows = _recurrent(layer, rows)
            rows = clipped_relu(network.fully_connected(rows))
        return network.output(rows).log_softmax(1).unsqueeze(0)


def portable(network: nn.Module, config: Mapping[str, Any], folder: Path) -> list[Portable]:
    """Normalised spectrograms (1, T, bins) to log-probabilities (1, T', symbols)."""
    trained = cast("DeepSpeech1 | DeepSpeech2", network)
    draw = torch.Generator().manual_seed(0)

    def answer(frames: Tensor) -> Tensor:
        heard: Padded = trained(Padded(frames, torch.tensor([frames.shape[1]])))
        return heard.data

    return [
        Portable(
            "model",
            OneSound(trained),
            answer,
            [torch.randn(1, frames, config["bins"], generator=draw) for frames in (120, 57, 301)],
            {1: "frames"},
            "frames",
            "log_probabilities",
            "a spectrogram of one sound, as network.preprocess gives it",
        )
    ]


def _windows(frames: Tensor, context: int, stride: int) -> Tensor:
    """(T, bins) to (T', bins * context), as `Tensor.unfold` lays them."""
    times, side = frames.shape[0], context // 2
    padded = F.pad(frames, (0, 0, side, side))
    shifted = [padded[shift : shift + times : stride] for shift in range(context)]
    return torch.stack(shifted, 2).flatten(1)


def _recurrent(layer: nn.Module, rows: Tensor) -> Tensor:
    """(T, width_in) to (T, width): both directions, summed."""
    if isinstance(layer, SharedRecurrent):
        drive = layer.norm(layer.input(rows))
        ahead = _scan(_clipped(layer.weight_hh), drive, gates=1, states=1)
        back = _scan(_clipped(layer.weight_hh_reverse), drive.flip(0), gates=1, states=1)
        return ahead + back.flip(0)
    gated = cast("GatedRecurrent", layer)
    rows, cells = gated.norm(rows), gated.cells
    cell, gates, states = {"GRU": (_gru, 3, 1), "LSTM": (_lstm, 4, 2)}[cells.mode]
    both = []
    for ending, given in (("", rows), ("_reverse", rows.flip(0))):
        drive = F.linear(given, *_weights(cells, "ih", ending))
        both.append(_scan(cell(*_weights(cells, "hh", ending)), drive, gates, states))
    return both[0] + both[1].flip(0)


def _weights(cells: nn.Module, which: str, ending: str) -> tuple[Tensor, Tensor]:
    """A direction's matrix and bias, as torch names them."""
    weight = cells.get_parameter(f"weight_{which}_l0{ending}")
    return weight, cells.get_parameter(f"bias_{which}_l0{ending}")


def _scan(step: Step, drive: Tensor, gates: int, states: int) -> Tensor:
    """What a cell gives at each time (T, width) for what it is given, (T, gates * width)."""
    width = drive.shape[1] // gates
    start = tuple(drive.new_zeros(1, width) for _ in range(states))
    outputs: Tensor = scan(step, start, drive.unsqueeze(1), dim=0)[1]
    return outputs.squeeze(1)


def _clipped(weight: Tensor) -> Step:
    def step(state: State, drive: Tensor) -> tuple[State, Tensor]:
        hidden = clipped_relu(drive + F.linear(state[0], weight))
        return (hidden,), hidden.clone()

    return step


def _gru(weight: Tensor, bias: Tensor) -> Step:
    """The equations of `torch.nn.GRU`."""

    def step(state: State, drive: Tensor) -> tuple[State, Tensor]:
        reset, update, fresh = drive.chunk(3, 1)
        of_reset, of_update, of_fresh = F.linear(state[0], weight, bias).chunk(3, 1)
        fresh = (fresh + (reset + of_reset).sigmoid() * of_fresh).tanh()
        kept = (update + of_update).sigmoid()
        hidden = (1 - kept) * fresh + kept * state[0]
        return (hidden,), hidden.clone()

    return step


def _lstm(weight: Tensor, bias: Tensor) -> Step:
    """The equations of `torch.nn.LSTM`."""

    def step(state: State, drive: Tensor) -> tuple[State, Tensor]:
        gates = drive + F.linear(state[0], weight, bias)
        entry, forget, fresh, out = gates.chunk(4, 1)
        cell = forget.sigmoid() * state[1] + entry.sigmoid() * fresh.tanh()
        hidden = out.sigmoid() * cell.tanh()
        return (hidden, cell), hidden.clone()

    return step
