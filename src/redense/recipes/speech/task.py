"""The speech task: CTC loss, error rates, optimizer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from redense.recipes.speech.alphabet import needed_frames
from redense.recipes.speech.batches import SPEEDS, Batches, Spoken, normalizer
from redense.recipes.speech.data import Split, load
from redense.recipes.speech.decoding import greedy
from redense.recipes.speech.models import Padded, network
from redense.recipes.speech.options import SpeechOptions
from redense.recipes.speech.scores import Answer, by_speaker, error_rates, most_frequent, worst
from redense.runs.checkpoints import write_text
from redense.runs.progress import Progress
from redense.runs.task import Metric


class SpeechTask(LightningModule):
    """A recogniser on its data, as `redense.runs.training.fit` drives it."""

    metric = Metric("wer", False, "points")
    prunes = ("fully_connected.*", "recurrent.*")
    """Neither the convolutions nor the CTC output, as in the paper."""
    elsewhere = ("data",)
    moving_average = None

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
        self.model: nn.Module = network(self.config())
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
        if self.current_epoch or not any(
            isinstance(callback, Progress) for callback in self.trainer.callbacks
        ):
            return
        sentence, rates = self._most_frequent()
        self.eval()
        with torch.no_grad():
            for index, (sounds, spoken) in enumerate(self.val_dataloader()):
                self.validation_step((sounds.to(self.device), spoken.to(self.device)), index)
        self.train()
        rates = {"untrained": self.scores(), f"always answering {sentence!r}": rates}
        said = (
            f"{what}: valid wer {rate['wer']:.2f}, cer {rate['cer']:.2f}"
            for what, rate in rates.items()
        )
        if self.trainer.is_global_zero:
            print("; ".join(said), flush=True)

    def on_train_epoch_end(self) -> None:
        """Say how many losses were infinite."""
        if self._infinite:
            print(
                f"{self._infinite} utterances had an infinite loss in this epoch, which counted as "
                "zero: too few "
                f"frames for their text; a smaller --stride gives more",
                file=sys.stderr,
            )
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

    @property
    def batch(self) -> int:
        """Utterances per optimizer step."""
        return self.options.batch

    def examples(self) -> dict[str, Any]:
        """This phase's worst utterances, and its speakers."""
        return {"worst": worst(self._last), "speakers": by_speaker(self._last)}

    def notes(self) -> list[str]:
        """Whether nothing but blanks was answered, as every CTC network does at first."""
        if not self._last or any(answer.said for answer in self._last):
            return []
        return [
            f"the network answers nothing but blanks to all {len(self._last)} recordings: it is "
            "hardly trained; more epochs, a higher --lr or less sparsity may help"
        ]

    def keep(self, folder: Path, examples: Mapping[str, Mapping[str, Any]]) -> None:
        """The examples in worst.json, and in network.json what the network is."""
        content = {"worst.json": examples, "network.json": self.config()}
        for name in content if examples else ("network.json",):
            write_text(folder / name, json.dumps(content[name], indent=2) + "\n")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, or DeepSpeech's Nesterov momentum; the plan sets the rate."""
        o = self.options
        if o.optimizer == "adamw":
            return torch.optim.AdamW(self.parameters(), lr=o.lr, weight_decay=o.weight_decay)
        return torch.optim.SGD(
            self.parameters(),
            lr=o.lr,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
            nesterov=o.momentum > 0,
        )

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """The gradient's norm, as DeepSpeech 2 clips it (there at 400, of a loss summed over the
        utterance)."""
        self.clip_gradients(
            optimizer, gradient_clip_val=self.options.clip, gradient_clip_algorithm="norm"
        )

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
        """What the record says of the data, with the score of always answering train's most
        frequent sentence."""
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
            **(
                {"mean": data.mean.tolist(), "std": data.std.tolist()}
                if o.normalize == "corpus"
                else {}
            ),
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
    """CTC loss (Graves et al. 2006) in nats a character, blank 0; impossible utterances add
    nothing."""
    losses = F.ctc_loss(
        found.data.transpose(0, 1),
        spoken.symbols.data,
        found.lengths,
        spoken.symbols.lengths,
        reduction="sum",
        zero_infinity=True,
    )
    return losses / spoken.symbols.lengths.sum()


def impossible(lengths: Tensor, spoken: Spoken) -> int:
    """How many utterances of a batch have fewer frames than CTC needs for their text."""
    symbols = zip(
        spoken.symbols.data.tolist(), spoken.symbols.lengths.tolist(), lengths.tolist(), strict=True
    )
    return sum(needed_frames(row[:length]) > frames for row, length, frames in symbols)
