"""Batches of utterances of about one length: the same for the same seed and epoch, on however many
ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from redense.recipes.speech.data import Split
from redense.recipes.speech.models import Padded
from redense.recipes.speech.readers import Utterance

SPEEDS = (1.0, 0.9, 1.1)
"""Speed perturbation, Ko et al. 2015."""

Normalize = Callable[[Tensor], Tensor]


class Spoken(NamedTuple):
    """What is said in each sound of a batch: symbols (B, L), their number (B,), and whose they
    are."""

    symbols: Padded
    utterances: tuple[Utterance, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Spoken:
        """Symbols are moved, texts stay."""
        return Spoken(self.symbols.to(device, non_blocking), self.utterances)


class Batches:
    """Iterating gives (sounds, what is said in them); ``set_epoch`` comes before each epoch.

    With a seed: epoch 0 goes from short to long (SortaGrad, DeepSpeech 2, section 3.4); later ones
    draw the batches' order and, by lengths blurred by a tenth, who shares a batch. Without: as they
    are, sorted by length.

    Args:
        normalize: frames (T, bins) to what the network sees.
        augment: one of the options' AUGMENTATIONS; speed draws one of a split's stored speeds for
            each utterance.
    """

    def __init__(
        self,
        split: Split,
        batch: int,
        normalize: Normalize,
        *,
        seed: int | None = None,
        augment: str = "none",
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._split, self._normalize, self._seed, self._augment = split, normalize, seed, augment
        self._rank, self._ranks = rank, ranks
        self._batch = max(batch // ranks, 1)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        each = self._batch * self._ranks
        if self._seed is None:
            return math.ceil(len(range(self._rank, len(self._split), self._ranks)) / self._batch)
        return (
            max(len(self._split) // each, 1)
            if self._ranks > 1
            else math.ceil(len(self._split) / each)
        )

    def __iter__(self) -> Iterator[tuple[Padded, Spoken]]:
        draw = None if self._seed is None else np.random.default_rng((self._seed, self._epoch))
        lengths = self._split.sounds.lengths[:, 0]
        if draw is None or self._epoch == 0:
            order = np.argsort(lengths, kind="stable")
        else:
            order = np.argsort(lengths * draw.uniform(0.95, 1.05, len(lengths)), kind="stable")
        starts = np.arange(len(self)) * self._batch * self._ranks
        if draw is None:
            order, starts = order[self._rank :: self._ranks], np.arange(len(self)) * self._batch
        elif self._epoch > 0:
            draw.shuffle(starts)
        speeds = self._split.sounds.lengths.shape[1]
        drawn = np.zeros(len(lengths), dtype=np.int64)
        if draw is not None and speeds > 1:
            drawn = draw.integers(speeds, size=len(lengths))
        own = None if draw is None else np.random.default_rng((self._seed, self._epoch, self._rank))
        for start in starts:
            if draw is None:
                chosen = order[start : start + self._batch]
            else:
                chosen = order[start : start + self._batch * self._ranks][self._rank :: self._ranks]
            yield self._collate(chosen, drawn, own)

    def _collate(
        self, chosen: np.ndarray, speeds: np.ndarray, draw: np.random.Generator | None
    ) -> tuple[Padded, Spoken]:
        split = self._split
        frames = [
            self._normalize(torch.tensor(np.asarray(split.sounds.frames(n, speeds[n]), np.float32)))
            for n in chosen
        ]
        if draw is not None and self._augment.startswith("spec"):
            frames = [mask_spectrum(one, draw) for one in frames]
        symbols = [torch.tensor(split.symbols[n]) for n in chosen]
        return _pad(frames), Spoken(_pad(symbols), tuple(split.utterances[n] for n in chosen))


def normalizer(how: str, mean: Tensor, std: Tensor) -> Normalize:
    """``utterance``: each bin's mean over the utterance is taken off, one deviation divides all
    bins. ``corpus``: both are the training set's, bin by bin.
    """
    if how == "utterance":
        return lambda frames: (
            (centred := frames - frames.mean(0)) / (centred.std(correction=0) + 1e-2)
        )
    if how == "corpus":
        return lambda frames: (frames - mean) / std
    raise ValueError(f"normalize must be utterance or corpus, got {how!r}")


def mask_spectrum(frames: Tensor, draw: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019): two bands of up to a sixth of the bins and two of up to a
    tenth of the time become 0, the mean.
    """
    masked = frames.clone()
    times, bins = frames.shape
    for _ in range(2):
        width, long = int(draw.integers(bins // 6 + 1)), int(draw.integers(times // 10 + 1))
        low, start = int(draw.integers(bins - width + 1)), int(draw.integers(times - long + 1))
        masked[:, low : low + width] = 0
        masked[start : start + long] = 0
    return masked


def _pad(rows: list[Tensor]) -> Padded:
    return Padded(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.tensor([len(row) for row in rows]),
    )
