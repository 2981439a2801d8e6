"""The caption task: options, loss, scores, optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from redense.recipes.captions import examples, scores
from redense.recipes.captions.data import Batches, Images, Pairs, load
from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.models import NeuralTalk, next_words


@dataclass(frozen=True)
class CaptionOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (emoji, tuxpaint), JSON in Karpathy's or COCO's form, or a folder with
            it. images: folder of the images; default images, imgs or the JSON's own. features: file
            of image features (vgg_feats.mat, safetensors); default vgg_feats.mat if it lies beside
            the JSON. cnn: what makes features otherwise: words (small, trained first on the
            training words) or a torchvision network. cnn_weights: of a torchvision network: a file,
            pretrained (torchvision fetches them) or random. cnn_size: pixels a side for a
            torchvision network.
        cnn_epochs: of the words network.
        least: words that train has less often are left out.
        hidden: width of encoders and LSTM.
        dropout: share dropped of encodings and of the decoder's input.
        batch: pairs of image and caption an optimizer step, over all devices together.
        lr: learning rate that the phases' factors multiply.
        clip: largest absolute value of a gradient element.
        weight_decay: L2 penalty.
        beam: sentences side by side in decoding; 1 is greedy.
        length_penalty: power of the length that a beam's scores are divided by; 0 none, 1 mean.
        most_words: where a caption ends at the latest.
    """

    data: str = "emoji"
    images: str | None = None
    features: str | None = None
    cnn: str = "words"
    cnn_weights: str = "pretrained"
    cnn_size: int = 224
    cnn_epochs: int = 15
    least: int = 3
    hidden: int = 256
    dropout: float = 0.5
    batch: int = 100
    lr: float = 1e-3
    clip: float = 5.0
    weight_decay: float = 1e-8
    beam: int = 1
    length_penalty: float = 0.0
    most_words: int = 20

    def __post_init__(self) -> None:
        for name in ("cnn_size", "cnn_epochs", "least", "hidden", "batch", "beam", "most_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip", "weight_decay", "length_penalty"):
            value, positive = getattr(self, name), name in ("lr", "clip")
            if not (math.isfinite(value) and value >= 0) or (positive and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above' if positive else 'at least'} 0, got "
                    f"{value}"
                )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class CaptionTask(LightningModule):
    """NeuralTalk on its data, as `redense.runs.training.train` drives it."""

    metric, higher_is_better, unit = "bleu4", True, "points"

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
        )
        width = self.data.splits["train"].features.shape[1]
        torch.manual_seed(seed)
        self.model = NeuralTalk(len(self.data.vocabulary) + 1, width, o.hidden, o.dropout)
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

    def phase_ended(self, phase: str, folder: Path) -> None:
        """Keep what the network says of every validation image by now."""
        examples.keep(folder, phase, self.data.splits["valid"], self._last, self.seed)
        examples.keep_network(folder, self.config(), self.data.cnn)

    @staticmethod
    def branched(parent: Path, child: Path, phases: Sequence[str]) -> None:
        """Take over what `phase_ended` kept of the phases that a run shares with the one it
        branches from."""
        examples.take_over(parent, child, phases)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """RMSprop as in the paper; the plan sets the rate."""
        o = self.options
        return torch.optim.RMSprop(
            self.model.parameters(), lr=o.lr, alpha=0.999, eps=1e-8, weight_decay=o.weight_decay
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
            else {"name": cnn.name, "weights": o["cnn_weights"], "size": cnn.size},
            **{name: o[name] for name in kept},
        }

    @cached_property
    def _constant(self) -> str:
        return scores.constant_caption(self.data.splits["train"].references)

    def _more(self, captions: list[str], references: list[list[str]]) -> dict[str, float]:
        """The slower scores, those without captions that flatter, and what one constant caption
        would have."""
        found = scores.more(captions, references)
        if self.data.apart:
            rest = [
                n
                for n, right in enumerate(references)
                if not any(self.data.apart in text for text in right)
            ]
            if rest:
                mark = f"_without_{self.data.apart.replace(' ', '_')}"
                kept, right = [captions[n] for n in rest], [references[n] for n in rest]
                found |= {name + mark: value for name, value in scores.bleu(kept, right).items()}
                found["exact" + mark] = scores.exact(kept, right)
        said = scores.bleu([self._constant] * len(references), references)
        return found | {f"{name}_constant": value for name, value in said.items()}
