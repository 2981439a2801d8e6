"""The plainest classifiers, for scores to stand beside: always the commonest class, and the class
whose mean picture is nearest. A network that learns anything beats both."""

from __future__ import annotations

import torch
from torch import Tensor

from redense.recipes.images.data import ImageData
from redense.recipes.images.folders import StreamedData

_MOST = 1000
"""Pictures at a time."""
_FAR = 1e6
"""Grey values; infinity would make distances by products of matrices undefined."""


def plain_scores(data: ImageData | StreamedData) -> dict[str, float]:
    """Their top-1 on validation, in per cent, by name; pictures that are streamed have the first
    alone."""
    known, asked = data.train.labels, data.valid.labels
    said = {"always the commonest class": known.bincount().argmax().expand_as(asked)}
    if isinstance(data, ImageData):
        means = class_means(data.train.images, known, len(data.classes))
        said["the nearest class mean"] = nearest_mean(means, data.valid.images)
    return {name: 100 * float((answers == asked).double().mean()) for name, answers in said.items()}


def class_means(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean picture (classes, C, H, W) of images (N, C, H, W); of a class without any, one far
    from every picture.

    >>> class_means(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
    tensor([[2.0000e+00],
            [1.0000e+06]], dtype=torch.float64)
    """
    sums = torch.zeros(classes, *images.shape[1:], dtype=torch.float64)
    for some, their in zip(images.split(_MOST), labels.split(_MOST), strict=True):
        sums.index_add_(0, their, some.double())
    counts = labels.bincount(minlength=classes).view(-1, *[1] * (images.ndim - 1))
    return torch.where(counts > 0, sums / counts.clamp(min=1), _FAR)


def nearest_mean(means: Tensor, images: Tensor) -> Tensor:
    """For each image (N, C, H, W) the class whose mean is nearest, by Euclidean distance; of equals
    the first."""
    return torch.cat(
        [
            torch.cdist(some.flatten(1).double(), means.flatten(1)).argmin(1)
            for some in images.split(_MOST)
        ]
    )
