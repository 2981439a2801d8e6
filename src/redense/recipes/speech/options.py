"""The speech recipe's flags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUGMENTATIONS = ("none", "spec", "speed", "spec-speed")
CELLS = ("rnn", "gru", "lstm")
SIZES: Mapping[str, dict[str, Any]] = {
    "small": {"width": 256, "layers": 2, "filters": 8, "stride": 3, "cell": "rnn"},
    "deepspeech1": {"cell": "rnn", "width": 1024, "stride": 1},
    "deepspeech2": {"cell": "rnn", "width": 1760, "layers": 7, "filters": 32, "stride": 2},
}
"""Networks by name, with the paper's sizes but for the small one."""
NORMALIZATIONS = ("utterance", "corpus")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class SpeechOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (amazon-queen, fillets-cs, spoken-digits, ...), list of audio and text
            (.jsonl, .json, .csv, .tsv), or folder of lists, Kaldi, LibriSpeech, WSJ, Common Voice
            or LJSpeech.
        model: small (a DeepSpeech 2 for CPUs), deepspeech1 or deepspeech2 (the paper's sizes).
        width: units of each layer; default the model's own.
        layers: recurrent layers (not deepspeech1); default the model's own.
        filters: of each convolution (not deepspeech1); default the model's own.
        stride: every how many 10 ms frames the network gives a symbol; default the model's own.
        cell: rnn (the paper's), gru or lstm; default the model's own.
        dropout: share of units that training drops.
        alphabet: characters that the network says; default those that a thousandth of train's texts
            uses. train_utterances: how many of a seeded shuffle to train on; default all. longest:
            seconds; longer recordings are bad data.
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
            "model": tuple(SIZES),
            "cell": CELLS,
            "on_bad_data": ("skip", "stop"),
            "normalize": NORMALIZATIONS,
            "augment": AUGMENTATIONS,
            "optimizer": OPTIMIZERS,
        }
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
            raise ValueError(
                "deepspeech1 has one recurrent layer and no convolution; leave out --layers and "
                "--filters"
            )

    def sizes(self) -> dict[str, Any]:
        """The network's own arguments, its defaults and what these options replace."""
        given = {
            name: getattr(self, name) for name in ("width", "layers", "filters", "stride", "cell")
        }
        return (
            SIZES[self.model]
            | {k: v for k, v in given.items() if v is not None}
            | {"dropout": self.dropout}
        )

    def check_sharding(self) -> None:
        """Each device holds the whole network."""
        raise ValueError(
            "strategy fsdp2 trains images only, got recipe speech; leave out --strategy"
        )
