"""Random erasing: a network that sees pictures with a piece missing learns them by heart later."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHANCE = 0.5
_AREA = (0.02, 0.33)
"""Least and most share of a picture that is lost."""
_ASPECT = 3.3
"""Height over width of the piece lies between one over this and this."""


def erase(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Half of the images (B, C, H, W), uint8, with a rectangle of random pixels; the rest as they
    are.

    Source: Zhong et al. 2017, Random Erasing (arXiv 1708.04896), section 3.2; area and aspect (even
    in its logarithm) as torchvision's RandomErasing draws them. Of a piece that would be longer
    than the picture only the length that fits is lost.
    """
    count, _, height, width = images.shape
    chosen, share, shape, down, right = torch.rand(5, count, 1, generator=generator)
    low, high = _AREA
    area = (low + (high - low) * share) * height * width
    aspect = torch.exp(math.log(_ASPECT) * (2 * shape - 1))
    tall = (area * aspect).sqrt().round().clamp(1, height)
    wide = (area / aspect).sqrt().round().clamp(1, width)
    rows = _inside(height, tall, down)
    columns = _inside(width, wide, right)
    lost = (chosen < _CHANCE).unsqueeze(2) & rows.unsqueeze(2) & columns.unsqueeze(1)
    noise = torch.randint(256, images.shape, dtype=torch.uint8, generator=generator)
    return torch.where(lost.unsqueeze(1), noise, images)


def _inside(side: int, length: Tensor, place: Tensor) -> Tensor:
    """Which of ``side`` pixels lie in a piece of ``length`` (B, 1), whose start ``place`` in [0, 1)
    says: (B, side)."""
    start = (place * (side - length + 1)).floor()
    pixels = torch.arange(side)
    return (pixels >= start) & (pixels < start + length)
