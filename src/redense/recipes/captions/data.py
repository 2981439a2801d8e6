"""Captions for training: pairs of image features and words, a vocabulary from train, and seeded
batches."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from redense.files.folders import say
from redense.recipes.captions import readers, scores
from redense.recipes.captions.features import (
    Cnn,
    cached_features,
    read_features,
    read_images,
    torchvision_cnn,
)
from redense.recipes.captions.readers import Picture
from redense.recipes.captions.word_cnn import SIZE, train_word_cnn, word_cnn
from redense.runs.seeds import epoch_seed

Pairs = tuple[Tensor, Tensor, Tensor]
"""Features (B, F), words (B, T), lengths (B,)."""

_APART = {"emoji-tones": "skin tone"}
"""Captions of these words are so alike that they flatter: scores without them stand beside."""


@dataclass(frozen=True)
class Split:
    """Images with features (N, F); captions as indices (P, T), zeros beyond their lengths (P,), of
    images (P,)."""

    pictures: tuple[Picture, ...]
    features: Tensor
    words: Tensor
    lengths: Tensor
    owners: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def references(self) -> list[list[str]]:
        """Every image's captions as text."""
        return [[" ".join(caption) for caption in picture.captions] for picture in self.pictures]


@dataclass(frozen=True)
class CaptionData:
    """A caption set: index n of the vocabulary is word n + 1; ``cnn`` is None where features came
    from a file."""

    name: str
    vocabulary: tuple[str, ...]
    splits: Mapping[str, Split]
    cnn: Cnn | None
    left_out: Mapping[str, Sequence[str]]
    apart: str

    def text(self, words: Sequence[int]) -> str:
        """Indices as a sentence."""
        return " ".join(self.vocabulary[word - 1] for word in words)

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes and a sha256 over every feature and caption; how captions are compared; what
        was left out."""
        digest = hashlib.sha256("\n".join(self.vocabulary).encode())
        for split in self.splits.values():
            for tensor in (split.features, split.words, split.owners):
                digest.update(tensor.contiguous().numpy().tobytes())
            digest.update(repr(split.references).encode())
        known = set(self.vocabulary)
        said = [
            word
            for p in self.splits["train"].pictures
            for caption in p.captions
            for word in caption
        ]
        return {
            "name": self.name,
            "sizes": {kind: len(split) for kind, split in self.splits.items()},
            "captions": {kind: len(split.owners) for kind, split in self.splits.items()},
            "sha256": digest.hexdigest(),
            "vocabulary": len(self.vocabulary),
            "unknown_words": 100 * sum(word not in known for word in said) / len(said),
            "features": {"width": self.splits["train"].features.shape[1]}
            | (
                {}
                if self.cnn is None
                else {"cnn": self.cnn.name, "size": self.cnn.size, "sha256": self.cnn.digest()}
            ),
            "tokenisation": scores.TOKENISATION,
            "bleu": scores.signature(),
            "left_out": {
                reason: {"count": len(n), "first": list(n[:3])}
                for reason, n in self.left_out.items()
            },
        }


def load(
    name: str,
    *,
    images: Path | None = None,
    features: Path | None = None,
    cnn: str | None = None,
    weights: str = "pretrained",
    size: int = 224,
    epochs: int = 15,
    least: int = 5,
    upright: bool = True,
) -> CaptionData:
    """Read a caption set and its images' features; the first time a CNN makes those, later a cache
    gives them.

    Args:
        name: see `readers.read`.
        features: a feature file instead of a CNN; default ``vgg_feats.mat`` where one lies beside
            the JSON. cnn: ``words`` (`word_cnn`, for drawings) or a torchvision network with its
            ``weights`` at ``size`` pixels. epochs: of the word CNN.
        least: a word that train has less often is left out of captions, as NeuralTalk does.
        upright: as for `read_picture`.

    Raises:
        ValueError, FileNotFoundError: missing images, damaged ones, features of other images, by
            name and count.
    """
    found = readers.read(name, images)
    parts = {
        kind: [p for p in found.pictures if p.split == kind] for kind in ("train", "valid", "test")
    }
    if empty := [kind for kind in ("train", "valid") if not parts[kind]]:
        raise ValueError(
            f"{found.name} has no captioned image for {empty[0]}; it needs train and validation "
            "images"
        )
    vocabulary = build_vocabulary(parts["train"], least)
    network = None
    file = features or (found.features if cnn is None else None)
    if file is not None:
        if features is None:
            say(f"{found.name}: the features are those of {file}; --cnn would make others")
        matrix = read_features(file, 1 + max(picture.column for picture in found.pictures))
        matrix = matrix[[picture.column for picture in found.pictures]]
    else:
        readers.check_images(found.pictures, "--images names their folder")
        network = (
            _word_cnn(parts["train"], vocabulary, epochs, upright)
            if cnn in (None, "words")
            else torchvision_cnn(cnn, weights, size, upright)
        )
        matrix = cached_features(network, [picture.file for picture in found.pictures])
    rows = {picture.file: row for row, picture in enumerate(found.pictures)}
    splits = {
        kind: _split(pictures, matrix[[rows[picture.file] for picture in pictures]], vocabulary)
        for kind, pictures in parts.items()
    }
    splits["train"], silent = _without_silence(splits["train"])
    left_out = {
        **found.left_out,
        **({"training captions without a known word": silent} if silent else {}),
    }
    return CaptionData(
        found.name, vocabulary, splits, network, left_out, _APART.get(found.name, "")
    )


def build_vocabulary(train: Sequence[Picture], least: int) -> tuple[str, ...]:
    """Words that train has at least ``least`` times, in order of the alphabet."""
    counted = Counter(word for picture in train for caption in picture.captions for word in caption)
    vocabulary = tuple(sorted(word for word, many in counted.items() if many >= least))
    if not vocabulary:
        raise ValueError(
            f"no word occurs {least} times in the training captions; pass a smaller --least"
        )
    return vocabulary


class Batches:
    """Batches of a split's pairs: shuffled by seed and epoch, the same on however many ranks.

    Iterating gives (features (B, F), words (B, T), lengths (B,)); ``set_epoch`` comes before each
    epoch.
    """

    def __init__(
        self, split: Split, batch: int, *, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self._split, self._seed, self._rank, self._ranks = split, seed, rank, ranks
        self._batch = max(batch // ranks, 1)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return max(len(self._split.owners) // (self._batch * self._ranks), 1)  # whole batches only

    def __iter__(self) -> Iterator[Pairs]:
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self._epoch))
        order = torch.randperm(len(self._split.owners), generator=generator)[
            self._rank :: self._ranks
        ]
        for number in range(len(self)):
            yield pairs(self._split, order[number * self._batch : (number + 1) * self._batch])


class Images:
    """A split's images in order with all their captions, and the split's name and the images'
    numbers.

    Every rank gets all of them, so that scores need no exchange.
    """

    def __init__(self, kind: str, split: Split, batch: int) -> None:
        self._kind, self._split, self._batch = kind, split, batch

    def __len__(self) -> int:
        return math.ceil(len(self._split) / self._batch)

    def __iter__(self) -> Iterator[tuple[str, list[int], Tensor, Pairs]]:
        for start in range(0, len(self._split), self._batch):
            chosen = range(start, min(start + self._batch, len(self._split)))
            owned = (self._split.owners >= chosen.start) & (self._split.owners < chosen.stop)
            features = self._split.features[chosen.start : chosen.stop]
            yield self._kind, list(chosen), features, pairs(self._split, owned.nonzero().squeeze(1))


def pairs(split: Split, chosen: Tensor) -> Pairs:
    """The chosen pairs of a split, words no wider than their longest caption."""
    lengths = split.lengths[chosen]
    return split.features[split.owners[chosen]], split.words[chosen, : int(lengths.max())], lengths


def _split(pictures: Sequence[Picture], features: Tensor, vocabulary: Sequence[str]) -> Split:
    index = {word: number for number, word in enumerate(vocabulary, start=1)}
    encoded = [
        [index[w] for w in caption if w in index]
        for picture in pictures
        for caption in picture.captions
    ]
    owners = [number for number, picture in enumerate(pictures) for _ in picture.captions]
    words = torch.zeros(len(encoded), max(map(len, encoded), default=0), dtype=torch.long)
    for row, caption in zip(words, encoded, strict=True):
        row[: len(caption)] = torch.tensor(caption, dtype=torch.long)
    lengths = torch.tensor(list(map(len, encoded)), dtype=torch.long)
    return Split(tuple(pictures), features, words, lengths, torch.tensor(owners, dtype=torch.long))


def _without_silence(split: Split) -> tuple[Split, list[str]]:
    """A split without pairs of no known word, which would teach to say nothing; and their files'
    names."""
    known = split.lengths > 0
    silent = [split.pictures[owner].file.name for owner in split.owners[~known].tolist()]
    kept = replace(
        split, words=split.words[known], lengths=split.lengths[known], owners=split.owners[known]
    )
    return kept, silent


def _word_cnn(
    train: Sequence[Picture], vocabulary: Sequence[str], epochs: int, upright: bool
) -> Cnn:
    targets = torch.tensor(
        [
            [word in said for word in vocabulary]
            for p in train
            for said in [{w for c in p.captions for w in c}]
        ]
    )
    images = read_images([picture.file for picture in train], SIZE, upright)
    return word_cnn(train_word_cnn(images, targets, epochs), upright)
