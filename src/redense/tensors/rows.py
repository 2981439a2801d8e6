"""What a mask does to whole rows: a row is what one output of a layer is made with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from .sharded import shard_of
from .threads import one_thread


@one_thread
def whole_rows(mask: Tensor, weight: Tensor, stacked: bool) -> tuple[bool, int]:
    """Whether anything is kept of a tensor, and how many of this rank's rows are held whole though
    their weights equal kept ones.

    Sixteen zeros as four rows, half of them held: rows 0 and 1 are, and they equal rows 2 and 3.
    """
    local, group = shard_of(mask)
    flags, magnitudes = _rows(local, stacked), _rows(shard_of(weight)[0], stacked)
    empty = torch.zeros(0, dtype=torch.bool, device=local.device)
    rows = flags.view(torch.uint8).amax(1).bool() if flags.numel() else empty
    equal = _equal_rows(magnitudes, ~rows) if flags.numel() else magnitudes[:0, :1].abs()
    told = torch.tensor([int(rows.any()), len(equal)], device=local.device)
    if group is not None:
        dist.all_reduce(told, dist.ReduceOp.MAX, group=group)
    if not told.all():
        return bool(told[0]), 0
    least = magnitudes[flags].abs().amin() if rows.any() else magnitudes.new_tensor(torch.inf)
    if group is not None:
        dist.all_reduce(least, dist.ReduceOp.MIN, group=group)
    return True, int((equal == least).sum())


def _equal_rows(weight: Tensor, held: Tensor) -> Tensor:
    """(n, 1): the magnitude of each of the ``held`` rows that has only one."""
    if weight.shape[1] == 1:  # no row, but one weight of many
        return weight[:0].abs()
    suspects = held & (weight[:, 0].abs() == weight[:, -1].abs())
    rows = weight[suspects].abs()
    return rows[(rows == rows[:, :1]).all(1), :1]


def _rows(tensor: Tensor, stacked: bool) -> Tensor:
    """(rows, weights of each): what one output of a layer, or of an expert, is made with."""
    outputs = tensor.shape[:2].numel() if stacked else tensor.shape[:1].numel()
    return tensor.reshape(outputs, -1) if tensor.numel() else tensor.reshape(0, 1)
