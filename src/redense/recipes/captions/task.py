"""The caption task: loss, scores, optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from redense.recipes.captions import scores
from redense.recipes.captions.data import Batches, Images, Pairs, load
from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.examples import keep_examples, keep_network
from redense.recipes.captions.features import read_images
from redense.recipes.captions.models import NeuralTalk, next_words
from redense.recipes.captions.nearest import nearest_captions
from redense.recipes.captions.options import CaptionOptions
from redense.recipes.captions.word_cnn import SIZE
from redense.runs.task import Metric


class CaptionTask(LightningModule):
    """NeuralTalk on its data, as `redense.runs.training.fit` drives it."""

    metric = Metric("bleu4", True, "points")
    prunes = ()
    elsewhere = ("data", "images", "features", "cnn_weights")
    moving_average = None

    def __init__(self, options: CaptionOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        o = options
        images, features = (None if path is None else Path(path) for path in (o.images, o.features))
        self.data = load(
            o.data,
            images=images,
            features=features,
            cnn=o.cnn,
            weights=o.cnn_weights,
            size=o.cnn_size,
            epochs=o.cnn_epochs,
            least=o.least,
            upright=o.upright,
        )
        seen = self.data.splits["train"].features
        torch.manual_seed(seed)
        self.model = NeuralTalk(len(self.data.vocabulary) + 1, seen.shape[1], o.hidden, o.dropout)
        self.model.standardise(seen)
        self.loss = MeanMetric()
        self._kind, self._final = "valid", False
        self._said: dict[int, str] = {}

    def training_step(self, batch: Pairs, index: int) -> Tensor:
        """Cross entropy of every next word."""
        features, words, lengths = batch
        lengths = lengths.cpu()
        return F.cross_entropy(self.model(features, words, lengths), next_words(words, lengths))

    def validation_step(self, batch: tuple[str, list[int], Tensor, Pairs], index: int) -> None:
        """Collect the loss and what is said of each image."""
        self._kind, chosen, features, (pictures, words, lengths) = batch
        lengths = lengths.cpu()
        targets = next_words(words, lengths)
        self.loss.update(
            F.cross_entropy(self.model(pictures, words, lengths), targets), len(targets)
        )
        o = self.options
        if o.beam == 1:
            said = greedy(self.model, features, o.most_words)
        else:
            said = beam_search(self.model, features, o.beam, o.length_penalty, o.most_words)
        self._said |= dict(zip(chosen, map(self.data.text, said), strict=True))
        self._final = False

    def test_step(self, batch: tuple[str, list[int], Tensor, Pairs], index: int) -> None:
        """The same, for all scores."""
        self.validation_step(batch, index)
        self._final = True

    def scores(self) -> dict[str, float]:
        """Loss a word in nats, BLEU and exact match in per cent since the last call; all scores at
        the end of a run."""
        found = {"loss": float(self.loss.compute())}
        self.loss.reset()
        captions, references = list(self._said.values()), self.data.splits[self._kind].references
        self._said = {}
        self._last = captions
        found |= scores.bleu(captions, references) | {"exact": scores.exact(captions, references)}
        return found | (self._more(captions, references) if self._final else {})

    @property
    def batch(self) -> int:
        """Pairs of image and caption per optimizer step."""
        return self.options.batch

    def examples(self) -> dict[str, Any]:
        """What the network says of every validation image by now."""
        return {"captions": self._last}

    def notes(self) -> list[str]:
        """There are none."""
        return []

    def keep(self, folder: Path, examples: Mapping[str, Mapping[str, Any]]) -> None:
        """captions.json, captions.png, and what the network is."""
        said = {phase: answers["captions"] for phase, answers in examples.items()}
        if said:
            valid, upright = self.data.splits["valid"], self.options.upright
            keep_examples(folder, said, valid, self.seed, upright)
        keep_network(folder, self.config(), self.data.cnn)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The paper's RMSprop, with its start corrected: Adam without momentum. The plan sets the
        rate.

        Plain RMSprop divides its first gradient by its own thirtieth part, and takes 1,000 steps to
        forget that: steps thirty times the rate shut the LSTM's gates.
        """
        o = self.options
        return torch.optim.Adam(
            self.model.parameters(),
            lr=o.lr,
            betas=(0.0, 0.999),
            eps=1e-8,
            weight_decay=o.weight_decay,
        )

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        """Element by element."""
        torch.nn.utils.clip_grad_value_(self.model.parameters(), self.options.clip)

    def train_dataloader(self) -> Batches:
        """Shuffled by seed and epoch."""
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return Batches(
            self.data.splits["train"], self.options.batch, seed=self.seed, rank=rank, ranks=ranks
        )

    def val_dataloader(self) -> Images:
        """In order."""
        return Images("valid", self.data.splits["valid"], 500)

    def test_dataloader(self) -> Images:
        """In order; read once, after training."""
        return Images("test", self.data.splits["test"], 500)

    def fingerprint(self) -> dict[str, object]:
        """What the record says of the data."""
        return self.data.fingerprint()

    def config(self) -> dict[str, Any]:
        """What a loader must know to rebuild the network and its input."""
        o, cnn = asdict(self.options), self.data.cnn
        kept = ("hidden", "beam", "length_penalty", "most_words")
        return {
            "architecture": "neuraltalk",
            "vocabulary": list(self.data.vocabulary),
            "features": self.data.splits["train"].features.shape[1],
            "cnn": None
            if cnn is None
            else {
                "name": cnn.name,
                "weights": o["cnn_weights"],
                "size": cnn.size,
                "upright": cnn.upright,
            },
            **{name: o[name] for name in kept},
        }

    @cached_property
    def _constant(self) -> str:
        return scores.constant_caption(self.data.splits["train"].references)

    def _more(self, captions: list[str], references: list[list[str]]) -> dict[str, float]:
        """The slower scores, those without captions that flatter, and those of captioners that
        learn nothing: one caption for all, and the nearest training picture's."""
        found = scores.more(captions, references) | self._apart(captions, references)
        said = scores.bleu([self._constant] * len(references), references)
        found |= {f"{name}_constant": value for name, value in said.items()}
        for by, said in self._nearest().items():
            found[f"bleu4_nearest_{by}"] = scores.bleu(said, references)["bleu4"]
            found |= {
                name.replace("bleu4", f"bleu4_nearest_{by}"): value
                for name, value in self._apart(said, references).items()
                if name.startswith("bleu4")
            }
        return found

    def _apart(self, captions: list[str], references: list[list[str]]) -> dict[str, float]:
        """BLEU and exact match without the captions that flatter; empty where there are none."""
        apart = self.data.apart
        rest = [n for n, right in enumerate(references) if not any(apart in text for text in right)]
        if not apart or not rest:
            return {}
        kept, right = [captions[n] for n in rest], [references[n] for n in rest]
        found = scores.bleu(kept, right) | {"exact": scores.exact(kept, right)}
        return {f"{name}_without_{apart.replace(' ', '_')}": one for name, one in found.items()}

    def _nearest(self) -> dict[str, list[str]]:
        """What was said of the nearest training picture, by features; of drawings also by pixels,
        which their own network reads anyway."""
        train, asked = self.data.splits["train"], self.data.splits[self._kind]
        found = {"features": nearest_captions(train.features, asked.features, train.references)}
        cnn = self.data.cnn
        if cnn is not None and cnn.size == SIZE:
            files = ([picture.file for picture in split.pictures] for split in (train, asked))
            pixels = (read_images(some, SIZE, cnn.upright).flatten(1) for some in files)
            found["pixels"] = nearest_captions(*pixels, train.references)
        return found
