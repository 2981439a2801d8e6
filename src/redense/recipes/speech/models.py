"""DeepSpeech 1 and 2 in the paper's sizes by default; smaller ones by argument. Padding never
changes a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from redense.files.typed import Kind, Number
from redense.recipes.speech.recurrent import clipped_relu, recurrent

BINS, SYMBOLS = 161, 29
"""Bins of a 20 ms spectrum at 16 kHz; blank, space, apostrophe and a to z."""


class Padded(NamedTuple):
    """Sequences of different lengths in one tensor; what lies beyond a length is never read.

    Args:
        data: (B, T, F).
        lengths: (B,) int64, at least 1, always on the CPU.
    """

    data: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Padded:
        """The same on another device."""
        return Padded(self.data.to(device, non_blocking=non_blocking), self.lengths)


class DeepSpeech1(nn.Module):
    """Three fully connected layers, a bidirectional recurrent one, a fully connected one, CTC
    (Hannun et al. 2014).

    Maps frames (B, T, bins) to log-probabilities (B, ceil(T / stride), symbols), symbol 0 the
    blank. 8,139,805 parameters at the default sizes, as in the DSD paper.

    Args:
        context: frames that the first layer sees, centred on the current one; odd.
        stride: every how many frames the net gives symbols.
        dropout: of the fully connected layers' outputs while training.
    """

    def __init__(
        self,
        bins: int = BINS,
        symbols: int = SYMBOLS,
        *,
        width: int = 1024,
        context: int = 11,
        stride: int = 1,
        cell: str = "rnn",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if context % 2 == 0:
            raise ValueError(
                f"context must be odd, to have as many frames before as after, got {context}"
            )
        self.context, self.stride = context, stride
        self.fully_connected = nn.ModuleList(
            nn.Linear(width_in, width) for width_in in (bins * context, width, width, width)
        )
        self.recurrent = recurrent(cell, width, width, norm=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, symbols)

    def forward(self, sounds: Padded) -> Padded:
        """Frames to log-probabilities."""
        side = self.context // 2
        padded = F.pad(_silent_beyond(sounds, self.output.weight.dtype), (0, 0, side, side))
        windows = padded.unfold(1, self.context, self.stride).flatten(2)  # (B, T', bins * context)
        packed = _pack(windows, frames_after(sounds.lengths, self.stride))
        x = packed.data
        for layer in self.fully_connected[:3]:
            x = self.dropout(clipped_relu(layer(x)))
        packed = self.recurrent(packed._replace(data=x))
        x = self.dropout(clipped_relu(self.fully_connected[3](packed.data)))
        return _unpack(packed._replace(data=self.output(x).log_softmax(1)))


class DeepSpeech2(nn.Module):
    """Two 2-D convolutions, bidirectional recurrent layers, a fully connected one, CTC (Amodei et
    al. 2015).

    Every layer is batch-normalised over valid frames, the recurrent ones on their input product.
    Maps frames (B, T, bins) to log-probabilities (B, T', symbols), symbol 0 the blank, T' = ceil(T
    / stride). 67,687,293 parameters at the default sizes, the DSD paper's 67.7 M.

    Args:
        filters: of each convolution.
        layers: recurrent ones.
        stride: every how many frames the net gives symbols; the first convolution's step in time (2
            in the paper), 4 is 2 and 2.
        cell: rnn (the paper's), gru or lstm.
        dropout: of the recurrent layers' outputs while training.
    """

    def __init__(
        self,
        bins: int = BINS,
        symbols: int = SYMBOLS,
        *,
        width: int = 1760,
        layers: int = 7,
        filters: int = 32,
        stride: int = 2,
        cell: str = "rnn",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        steps = (stride, 1) if stride < 4 or stride % 2 else (stride // 2, 2)
        self.stride, self.steps = stride, steps
        self.convolutions = nn.ModuleList(
            (
                nn.Conv2d(1, filters, (41, 11), (2, steps[0]), (20, 5), bias=False),
                nn.Conv2d(filters, filters, (21, 11), (2, steps[1]), (10, 5), bias=False),
            )
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(filters) for _ in range(2))
        width_in = filters * (((bins + 1) // 2 + 1) // 2)
        self.recurrent = nn.ModuleList(
            recurrent(cell, width_in if index == 0 else width, width, norm=True)
            for index in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.fully_connected = nn.Linear(width, width)
        self.output = nn.Linear(width, symbols)

    def forward(self, sounds: Padded) -> Padded:
        """Frames to log-probabilities."""
        lengths = sounds.lengths
        heard = _silent_beyond(sounds, self.output.weight.dtype)
        x = heard.transpose(1, 2).unsqueeze(1)  # (B, 1, bins, T)
        for convolution, norm, step in zip(self.convolutions, self.norms, self.steps, strict=True):
            lengths = frames_after(lengths, step)
            x = convolution(x).permute(0, 3, 1, 2)  # (B, T', C, F)
            valid = _valid(lengths, x.shape[1]).to(x.device)
            rows = clipped_relu(norm(x[valid]))  # (N, C, F): padding is not in the statistics
            x = (
                torch.zeros_like(x, dtype=rows.dtype)
                .masked_scatter(valid[:, :, None, None], rows)
                .permute(0, 2, 3, 1)
            )
        packed = _pack(x.permute(0, 3, 1, 2).flatten(2), lengths)
        for layer in self.recurrent:
            packed = layer(packed)
            packed = packed._replace(data=self.dropout(packed.data))
        x = clipped_relu(self.fully_connected(packed.data))
        return _unpack(packed._replace(data=self.output(x).log_softmax(1)))


def deepspeech1(
    bins: int = BINS, symbols: int = SYMBOLS, **sizes: int | float | str
) -> DeepSpeech1:
    """The paper's DeepSpeech, 8,139,805 parameters; see `DeepSpeech1` for arguments that make it
    smaller."""
    return DeepSpeech1(bins, symbols, **sizes)  # type: ignore[arg-type]


def deepspeech2(
    bins: int = BINS, symbols: int = SYMBOLS, **sizes: int | float | str
) -> DeepSpeech2:
    """The paper's DeepSpeech 2, 67,687,293 parameters; see `DeepSpeech2` for arguments that make it
    smaller."""
    return DeepSpeech2(bins, symbols, **sizes)  # type: ignore[arg-type]


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "small": deepspeech2,
    "deepspeech1": deepspeech1,
    "deepspeech2": deepspeech2,
}
"""What builds a network of `redense.recipes.speech.options.SIZES`."""


class Sizes(TypedDict, total=False):
    """Arguments of what builds it."""

    width: Annotated[int, Meta(ge=1, le=2**16)]
    layers: Annotated[int, Meta(ge=1, le=1000)]
    filters: Annotated[int, Meta(ge=1, le=2**12)]
    stride: Annotated[int, Meta(ge=1, le=64)]
    context: Annotated[int, Meta(ge=1, le=1000)]
    cell: str
    dropout: Number


class Description(TypedDict):
    """What rebuilds a speech network, as a task's `config()` has it."""

    architecture: str
    alphabet: str
    bins: Annotated[int, Meta(ge=1, le=2**16)]
    sizes: Sizes
    normalize: str
    mean: NotRequired[list[Number]]
    std: NotRequired[list[Annotated[float, Meta(gt=0, le=1e9)]]]


DESCRIPTION = Kind(Description, "description of a network", "restore it from where it came")


def network(config: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a task's `config()`."""
    build = NETWORKS[config["architecture"]]
    return build(config["bins"], len(config["alphabet"]) + 1, **config["sizes"])


def frames_after(lengths: Tensor, stride: int) -> Tensor:
    """How many frames a network of that stride gives for so many: ceil(lengths / stride)."""
    return (lengths + stride - 1) // stride


def _valid(lengths: Tensor, times: int) -> Tensor:
    return torch.arange(times) < lengths.unsqueeze(1)  # (B, T)


def _silent_beyond(sounds: Padded, dtype: torch.dtype) -> Tensor:
    """Zeros beyond each length: what a convolution or a context window reads past the end of a lone
    utterance; in the weights' precision."""
    beyond = ~_valid(sounds.lengths, sounds.data.shape[1]).to(sounds.data.device)
    return sounds.data.masked_fill(beyond.unsqueeze(2), 0.0).to(dtype)


def _pack(x: Tensor, lengths: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def _unpack(packed: PackedSequence) -> Padded:
    return Padded(*pad_packed_sequence(packed, batch_first=True))
