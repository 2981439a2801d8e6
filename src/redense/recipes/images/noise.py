"""Wrong labels on purpose, to see how a training copes with them."""

from __future__ import annotations

import torch
from torch import Tensor


def mislabel(labels: Tensor, share: float, classes: int) -> Tensor:
    """Labels (N,) of which ``round(share * N)`` are another class, each of the others as likely.

    The same ones for every run and seed, so that the runs of a study are trained on the same data.
    Validation and test labels are never to be passed.

    >>> labels = torch.zeros(10, dtype=torch.int64)
    >>> int((mislabel(labels, 0.4, classes=3) != labels).sum())
    4
    """
    wrong = round(share * len(labels))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(labels), generator=generator)[:wrong]
    further = torch.randint(1, classes, (wrong,), generator=generator)
    mislabelled = labels.clone()
    mislabelled[chosen] = (labels[chosen] + further) % classes
    return mislabelled
