"""A small CNN for pictures that no pretrained network knows: trained once to tell which words a
caption will hold.

It sees the training split alone and is fixed from then on, as the paper's VGG-16 is. Its features
are its last hidden layer. It learns with one softmax over all words, of which a caption's share the
target: of words that two pictures have, a sigmoid each learns far slower (as Mahajan et al. 2018,
arXiv 1805.00932, found on hashtags).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from redense.files.weights import load_exactly, read_weights
from redense.recipes.captions.features import Cnn, cache_folder
from redense.runs.checkpoints import write_whole

SIZE, HIDDEN = 48, 256
_MEAN, _STD = (0.8, 0.8, 0.8), (0.3, 0.3, 0.3)  # drawings on white
_BATCH, _RATE = 64, 4e-3


class WordCnn(nn.Module):
    """Four convolutions and two linear layers; (N, 3, 48, 48) to (N, 256)."""

    def __init__(self, words: int) -> None:
        super().__init__()
        widths, strides = (3, 32, 64, 96, 128), (2, 2, 2, 1)
        layers: list[nn.Module] = []
        for before, width, stride in zip(widths, widths[1:], strides, strict=False):
            convolution = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2))
        self.hidden = nn.Linear(128 * (SIZE // 16) ** 2, HIDDEN)
        self.words = nn.Linear(HIDDEN, words)

    def forward(self, images: Tensor) -> Tensor:
        """Hidden units."""
        hidden: Tensor = F.relu(self.hidden(self.convolutions(images)))
        return hidden

    def logits(self, images: Tensor) -> Tensor:
        """(N, words), for training."""
        logits: Tensor = self.words(F.dropout(self(images), 0.5, self.training))
        return logits


def word_cnn(file: Path, upright: bool = True) -> Cnn:
    """The CNN that `train_word_cnn` left in ``file``."""
    state = read_weights(file)
    network = WordCnn(len(state.get("words.bias", ())))
    load_exactly(network, state, str(file), "the CNN of words")
    return Cnn("words", network.eval().requires_grad_(False), SIZE, _MEAN, _STD, upright)


def train_word_cnn(images: Tensor, targets: Tensor, epochs: int) -> Path:
    """Train on images (N, 3, 48, 48) uint8 and the words of their captions (N, V) in {0, 1}; the
    file of weights.

    The same images, words and epochs give the same file: it is trained once and kept in the cache.
    """
    digest = hashlib.sha256(
        f"softmax {epochs} {_BATCH} {_RATE} {images.shape} {targets.shape}".encode()
    )
    digest.update(images.numpy().tobytes())
    digest.update(targets.numpy().tobytes())
    file = cache_folder() / f"cnn-words-{digest.hexdigest()[:32]}.safetensors"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            with torch.random.fork_rng([]):
                torch.manual_seed(0)
                network = _fit(images, targets.float(), epochs)
            write_whole(file, lambda partial: save_file(network.state_dict(), partial))
    return file


def _fit(images: Tensor, targets: Tensor, epochs: int) -> WordCnn:
    network = WordCnn(targets.shape[1])
    network.convolutions.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (_MEAN, _STD))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.05)
    steps = max(len(images) // _BATCH, 1)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps * epochs)
    shares = targets / targets.sum(1, keepdim=True).clamp(min=1)
    network.train()
    with tqdm(
        total=steps * epochs, desc="training the word CNN", unit="step", disable=None, leave=False
    ) as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images))
            for chosen in order.split(_BATCH)[:steps]:
                down, right = torch.randint(9, (2,)).tolist()
                padded = F.pad(images[chosen], (4, 4, 4, 4), value=255)
                pixels = (
                    padded[..., down : down + SIZE, right : right + SIZE]
                    .float()
                    .div_(255)
                    .sub_(mean)
                    .div_(std)
                )
                outputs = network.logits(pixels.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(outputs, shares[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rates.step()
                bar.update()
    return network.to(memory_format=torch.contiguous_format)
