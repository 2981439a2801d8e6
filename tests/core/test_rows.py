"""Rows that are held whole, against a plain loop over them."""

import pytest
import torch

from redense import magnitude_mask
from redense.tensors.rows import whole_rows


def plain(mask, weight):
    kept = [float(w.abs()) for w, k in zip(weight.flatten(), mask.flatten(), strict=True) if k]
    rows = 0
    for flags, row in zip(mask.flatten(1), weight.flatten(1), strict=True):
        level = {float(w) for w in row.abs()}
        rows += row.numel() > 1 and not flags.any() and len(level) == 1 and level <= set(kept)
    return bool(kept), rows


@pytest.mark.parametrize("shape", [(12, 5), (12, 1), (6, 3, 3, 3), (1, 7), (0, 4)])
@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.99])
def test_they_are_counted_as_a_plain_loop_counts_them(shape, levels, sparsity):
    generator = torch.Generator().manual_seed(levels)
    weight = torch.randint(0, levels, shape, generator=generator).float()
    weight[::3] = 0.0
    weight[1::3] *= -1
    mask = magnitude_mask(weight, sparsity)
    assert whole_rows(mask, weight, stacked=False) == plain(mask, weight)


def test_rows_of_stacked_matrices_are_theirs():
    weight = torch.zeros(3, 4, 5)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[1, 2] = mask[2, 0] = False
    assert whole_rows(mask, weight, stacked=True) == (True, 2)
    assert whole_rows(mask, weight, stacked=False) == (True, 0)
