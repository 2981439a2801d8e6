"""The speech task: options, CTC loss, error rates, optimizer."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from redense.recipes.checkpoints import write_text
from redense.recipes.speech.alphabet import needed_frames
from redense.recipes.speech.batches import AUGMENTATIONS, SPEEDS, Batches, Spoken, normalizer
from redense.recipes.speech.data import Split, load
from redense.recipes.speech.decoding import greedy
from redense.recipes.speech.models import Padded
from redense.recipes.speech.networks import NETWORKS, build
from redense.recipes.speech.recurrent import CELLS
from redense.recipes.speech.scores import Answer, by_speaker, error_rates, most_frequent, worst

NORMALIZATIONS = ("utterance", "corpus")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class SpeechOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (amazon-queen, fillets-cs, spoken-digits, ...), .jsonl manifest, or folder of manifests,
            LibriSpeech, WSJ or Common Voice.
        model: small (a DeepSpeech 2 for CPUs), deepspeech1 or deepspeech2 (the paper's sizes).
        width: units of each layer; default the model's own.
        layers: recurrent layers (not deepspeech1); default the model's own.
        filters: of each convolution (not deepspeech1); default the model's own.
        stride: every how many 10 ms frames the network gives a symbol; default the model's own.
        cell: rnn (the paper's), gru or lstm; default the model's own.
        dropout: share of units that training drops.
        alphabet: characters that the network says; default those that a thousandth of train's texts uses.
        train_utterances: how many of a seeded shuffle to train on; default all.
        longest: seconds; longer recordings are bad data.
        on_bad_data: skip (names and counts what is left out) or stop.
        normalize: frames by each utterance's own mean and deviation, or the corpus's.
        augment: none, spec (SpecAugment), speed (0.9, 1.0 or 1.1 times as fast) or spec-speed.
        batch: utterances an optimizer step, over all devices together.
        optimizer: adamw, or sgd with Nesterov momentum as in DeepSpeech.
        lr: learning rate that the phases' factors multiply.
        momentum: of sgd.
        weight_decay: decoupled for adamw, L2 for sgd.
        clip: largest norm of the gradient.
    """

    data: str = "amazon-queen"
    model: str = "small"
    width: int | None = None
    layers: int | None = None
    filters: int | None = None
    stride: int | None = None
    cell: str | None = None
    dropout: float = 0.0
    alphabet: str | None = None
    train_utterances: int | None = None
    longest: float = 20.0
    on_bad_data: str = "skip"
    normalize: str = "utterance"
    augment: str = "none"
    batch: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.99
    weight_decay: float = 1e-5
    clip: float = 10.0

    def __post_init__(self) -> None:
        choices = {
            "model": tuple(NETWORKS), "cell": CELLS, "on_bad_data": ("skip", "stop"), "normalize": NORMALIZATIONS,
            "augment": AUGMENTATIONS, "optimizer": OPTIMIZERS,
        }  # fmt: skip
        for name, known in choices.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name in ("width", "layers", "filters", "stride", "train_utterances", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("longest", "lr", "clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        for name in ("dropout", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        if self.model == "deepspeech1" and (self.layers or self.filters):
            raise ValueError("deepspeech1 has one recurrent layer and no convolution; leave out --layers and --filters")

    def sizes(self) -> dict[str, Any]:
        """The network's own arguments, its defaults and what these options replace."""
        given = {name: getattr(self, name) for name in ("width", "layers", "filters", "stride", "cell")}
        return NETWORKS[self.model][1] | {k: v for k, v in given.items() if v is not None} | {"dropout": self.dropout}


class SpeechTask(LightningModule):
    """A recogniser on its data, as `redense.recipes.training.train` drives it."""

    metric, higher_is_better, unit = "wer", False, "points"

    def __init__(self, options: SpeechOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        self.data = load(
            options.data,
            alphabet=options.alphabet,
            stride=options.sizes()["stride"],
            speeds=SPEEDS if options.augment.endswith("speed") else SPEEDS[:1],
            longest=options.longest,
            on_bad_data=options.on_bad_data,
            most=options.train_utterances,
        )
        torch.manual_seed(seed)
        self.model: nn.Module = build(self.config())
        self._answers: list[Answer] = []
        self._last: list[Answer] = []
        self._loss = [0.0, 0]
        self._infinite = 0

    def training_step(self, batch: tuple[Padded, Spoken], index: int) -> Tensor:
        """CTC, in nats a character; utterances with no possible path count zero and are counted."""
        sounds, spoken = batch
        found = self.model(sounds)
        self._infinite += impossible(found.lengths, spoken)
        return ctc(found, spoken)

    def validation_step(self, batch: tuple[Padded, Spoken], index: int) -> None:
        """Collect loss and greedily decoded answers."""
        sounds, spoken = batch
        found = self.model(sounds)
        characters = int(spoken.symbols.lengths.sum())
        self._loss[0] += float(ctc(found, spoken)) * characters
        self._loss[1] += characters
        said = greedy(found, self.data.alphabet)
        self._answers += [Answer(u, text) for u, text in zip(spoken.utterances, said, strict=True)]

    test_step = validation_step

    def on_train_start(self) -> None:
        """Say what the error rates are before anything is learnt."""
        if self.current_epoch or not self.trainer.is_global_zero:
            return
        sentence, rates = self._most_frequent()
        self.eval()
        with torch.no_grad():
            for index, (sounds, spoken) in enumerate(self.val_dataloader()):
                self.validation_step((sounds.to(self.device), spoken.to(self.device)), index)
        self.train()
        untrained = self.scores()
        print(f"untrained: valid wer {untrained['wer']:.2f}, cer {untrained['cer']:.2f}; always answering {sentence!r}: "
              f"wer {rates['wer']:.2f}, cer {rates['cer']:.2f}", flush=True)  # fmt: skip

    def on_train_epoch_end(self) -> None:
        """Say how many losses were infinite."""
        if self._infinite:
            print(f"{self._infinite} utterances had an infinite loss in this epoch, which counted as zero: too few "
                  f"frames for their text; a smaller --stride gives more", file=sys.stderr)  # fmt: skip
        self._infinite = 0

    def scores(self) -> dict[str, float]:
        """Loss in nats a character, WER and CER in per cent, since the last call."""
        answers, loss, characters = self._answers, *self._loss
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, (answers, loss, characters))
            answers = [answer for part in parts for answer in part[0]]
            loss, characters = sum(part[1] for part in parts), sum(part[2] for part in parts)
        self._last, self._answers, self._loss = answers, [], [0.0, 0]
        return {"loss": loss / max(characters, 1), **error_rates(answers)}

    def phase_ended(self, phase: str, folder: Path) -> None:
        """Keep this phase's worst utterances and speakers in worst.json, and in network.json what the network is."""
        file = folder / "worst.json"
        found = json.loads(file.read_text("utf-8")) if file.exists() else {}
        found[phase] = {"worst": worst(self._last), "speakers": by_speaker(self._last)}
        write_text(file, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "network.json", json.dumps(self.config(), indent=2, ensure_ascii=False) + "\n")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, or DeepSpeech's Nesterov momentum; the plan sets the rate."""
        o = self.options
        if o.optimizer == "adamw":
            return torch.optim.AdamW(self.parameters(), lr=o.lr, weight_decay=o.weight_decay)
        return torch.optim.SGD(
            self.parameters(), lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=o.momentum > 0
        )

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """The gradient's norm, as DeepSpeech 2 clips it (there at 400, of a loss summed over the utterance)."""
        self.clip_gradients(optimizer, gradient_clip_val=self.options.clip, gradient_clip_algorithm="norm")

    def train_dataloader(self) -> Batches:
        """Bucketed by length, drawn by seed and epoch."""
        return self._batches(self.data.train, self.seed)

    def val_dataloader(self) -> Batches:
        """By length."""
        return self._batches(self.data.valid)

    def test_dataloader(self) -> Batches:
        """By length; read once, after training."""
        return self._batches(self.data.test)

    def fingerprint(self) -> dict[str, object]:
        """What the record says of the data, with the score of always answering train's most frequent sentence."""
        sentence, rates = self._most_frequent()
        return self.data.fingerprint() | {"most_frequent": {"text": sentence, "valid": rates}}

    def config(self) -> dict[str, Any]:
        """What a loader must know to rebuild the network, its input and its symbols."""
        o, data = self.options, self.data
        return {
            "architecture": o.model,
            "alphabet": data.alphabet,
            "bins": data.bins,
            "sizes": o.sizes(),
            "normalize": o.normalize,
            **({"mean": data.mean.tolist(), "std": data.std.tolist()} if o.normalize == "corpus" else {}),
        }

    def _most_frequent(self) -> tuple[str, dict[str, float]]:
        return most_frequent(self.data.train.utterances, self.data.valid.utterances)

    def _batches(self, split: Split, seed: int | None = None) -> Batches:
        o = self.options
        return Batches(
            split,
            o.batch if seed is not None else max(o.batch, 32),
            normalizer(o.normalize, self.data.mean, self.data.std),
            seed=seed,
            augment=o.augment,
            rank=self.trainer.global_rank,
            ranks=self.trainer.world_size,
        )


def ctc(found: Padded, spoken: Spoken) -> Tensor:
    """CTC loss (Graves et al. 2006) in nats a character, blank 0; impossible utterances add nothing."""
    losses = F.ctc_loss(
        found.data.transpose(0, 1), spoken.symbols.data, found.lengths, spoken.symbols.lengths, reduction="sum",
        zero_infinity=True,
    )  # fmt: skip
    return losses / spoken.symbols.lengths.sum()


def impossible(lengths: Tensor, spoken: Spoken) -> int:
    """How many utterances of a batch have fewer frames than CTC needs for their text."""
    symbols = zip(spoken.symbols.data.tolist(), spoken.symbols.lengths.tolist(), lengths.tolist(), strict=True)
    return sum(needed_frames(row[:length]) > frames for row, length, frames in symbols)
