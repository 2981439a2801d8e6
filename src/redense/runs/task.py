"""What a recipe brings to be trained: a LightningModule that also says what is judged, what it is
trained on, and what the network is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn


@dataclass(frozen=True)
class Metric:
    """The score that a run is judged by.

    Args:
        name: among the names of the scores.
        higher_is_better: whether a higher one is the better one.
        unit: in words; empty for a plain number.
    """

    name: str
    higher_is_better: bool = True
    unit: str = ""

    @property
    def doubt(self) -> str:
        """A warning where the name says that a lower score is the better one, but the direction
        does not; else empty.

        >>> [bool(Metric(name).doubt) for name in ("valLoss", "neg_mean_squared_error", "top1")]
        [True, False, False]
        """
        apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name)
        parts = set(re.split(r"[\W_\d]+", apart.lower()))
        if not self.higher_is_better or _TURNED & parts or not _LOWER_IS_BETTER & parts:
            return ""
        return (
            f"{self.name} is judged as if a higher one were better; if a lower one is, all of this "
            "is upside down: begin anew with higher_is_better=False (--higher-is-better false)"
        )


_LOWER_IS_BETTER = {
    *("loss", "error", "err", "mse", "rmse", "mae", "mape", "nll", "ce", "bce", "crossentropy"),
    *("wer", "cer", "eer", "ppl", "perplexity", "bpc", "bpb", "fid", "brier", "ece"),
}
"""Words of names."""
_TURNED = {"neg", "negative", "minus", "inverse", "reduction", "free", "without"}
"""Words that turn those round."""


class Batches(Protocol):
    """A loader that gives the same batches for the same seed and epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Draw this epoch's order and augmentation."""

    def __len__(self) -> int:
        """Batches; 0 where there is no such split."""


class Task(Protocol):
    """A recipe's LightningModule as `redense.runs.training.fit` drives it."""

    model: nn.Module
    """The network, whose weights are exported."""
    metric: Metric
    prunes: Sequence[str]
    """Patterns of the network's weights that are held if nobody asks for others; empty for
    `redense.prunable`'s own choice."""
    elsewhere: Collection[str]
    """Options that may be others when a stopped run goes on: where files lie, how they are read."""

    @property
    def batch(self) -> int:
        """Examples per optimizer step, over all devices together."""

    @property
    def moving_average(self) -> float | None:
        """Decay of an exponential moving average that is evaluated and exported; None for none."""

    def train_dataloader(self) -> Batches:
        """Shuffled by seed and epoch."""

    def val_dataloader(self) -> Batches:
        """In order."""

    def test_dataloader(self) -> Batches:
        """In order; of length 0 where there is no test split."""

    def scores(self) -> dict[str, float]:
        """The scores since the last call, ``loss`` among them."""

    def fingerprint(self) -> dict[str, Any]:
        """Name, sizes and sha256 of the data."""

    def config(self) -> dict[str, Any]:
        """What rebuilds the network, as plain data."""

    def examples(self) -> dict[str, Any]:
        """What the network answers by now, as plain data; read at the end of each phase."""

    def notes(self) -> list[str]:
        """What a person must know of the answers that were scored last; mostly nothing."""

    def keep(self, folder: Path, examples: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what the network is, and the phases' examples so far, into the run's folder."""
