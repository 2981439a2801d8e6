"""Recurrent layers whose two directions share their input matrix and are summed, as in DeepSpeech 1
and 2.

Between layers a batch of sequences is one `PackedSequence`: its valid frames alone, all first
frames, then all second ones, so that no layer ever reads padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from redense.recipes.speech.options import CELLS

CLIP = 20.0
"""Where the rectifier saturates: min(max(x, 0), 20), Hannun et al. 2014, section 2."""


def clipped_relu(x: Tensor) -> Tensor:
    """min(max(x, 0), 20)."""
    return x.clamp(0.0, CLIP)


class SharedRecurrent(nn.Module):
    """h(t) = g(W x(t) + U h(t-1)) in both directions with one W, and their sum; g is the clipped
    rectifier.

    With ``norm`` the product W x is normalised over all frames of the batch (DeepSpeech 2, section
    3.2), else it has a bias. W x is one matrix product for all frames.
    """

    def __init__(self, width_in: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.input = nn.Linear(width_in, width, bias=not norm)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.weight_hh = nn.Parameter(
            torch.empty(width, width).uniform_(-(width**-0.5), width**-0.5)
        )
        self.weight_hh_reverse = nn.Parameter(
            torch.empty(width, width).uniform_(-(width**-0.5), width**-0.5)
        )

    def forward(self, sequences: PackedSequence) -> PackedSequence:
        """(N, width_in) to (N, width), N the number of valid frames."""
        drive = self.norm(self.input(sequences.data))
        both = torch.stack((self.weight_hh, self.weight_hh_reverse)).to(drive.dtype)
        return sequences._replace(data=_Recurrence.apply(drive, both, _order(sequences), CLIP))


class GatedRecurrent(nn.Module):
    """A bidirectional GRU or LSTM by torch's own kernel, directions summed; each has its own input
    matrix."""

    def __init__(self, cell: str, width_in: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width_in) if norm else nn.Identity()
        self.cells = {"gru": nn.GRU, "lstm": nn.LSTM}[cell](width_in, width, bidirectional=True)

    def forward(self, sequences: PackedSequence) -> PackedSequence:
        """(N, width_in) to (N, width)."""
        found, _ = self.cells(sequences._replace(data=self.norm(sequences.data)))
        return sequences._replace(data=sum(found.data.chunk(2, dim=1)))


def recurrent(cell: str, width_in: int, width: int, *, norm: bool) -> nn.Module:
    """A bidirectional layer with summed directions: rnn (the paper's), gru or lstm."""
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
    return (
        SharedRecurrent(width_in, width, norm=norm)
        if cell == "rnn"
        else GatedRecurrent(cell, width_in, width, norm=norm)
    )


@dataclass(frozen=True)
class _Order:
    """Where the rows of packed frames go in (T, 2, B, H), flattened to rows: direction 0 as it is,
    1 time-reversed.

    Both directions start at time 0 and what is padding comes last, so that no mask is needed:
    nothing flows out of it.
    """

    shape: tuple[int, int, int]  # (T, 2, B)
    source: Tensor  # (T * 2 * B,): the packed row of each place, 0 in padding
    forward: Tensor  # (N,): the place of each packed row
    backward: Tensor  # (N,): its place in the reversed direction


def _order(sequences: PackedSequence) -> _Order:
    sizes = sequences.batch_sizes  # (T,), on the CPU
    times, batch = len(sizes), int(sizes[0])
    t, b = torch.arange(times).unsqueeze(1), torch.arange(batch).unsqueeze(0)
    valid = b < sizes.unsqueeze(1)  # (T, B)
    lengths = valid.sum(0)
    starts = sizes.cumsum(0) - sizes
    mirrored = lengths - 1 - t  # (T, B), negative in padding
    rows = torch.stack(
        (starts.unsqueeze(1) + b, starts[mirrored.clamp(min=0)] + b), dim=1
    )  # (T, 2, B)
    source = rows.masked_fill(~valid.unsqueeze(1), 0)
    forward, backward = (t * 2 * batch + b)[valid], (mirrored * 2 * batch + batch + b)[valid]
    device = sequences.data.device
    return _Order(
        (times, 2, batch), source.flatten().to(device), forward.to(device), backward.to(device)
    )


class _Recurrence(torch.autograd.Function):
    """All time steps: (N, H) and (2, H, H) to (N, H); the recurrent weights' gradient is one matrix
    product."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weights: Tensor, order: _Order, clip: float) -> Tensor:
        with torch.autocast(drive.device.type, enabled=False):
            states = drive.index_select(0, order.source).view(
                *order.shape, -1
            )  # (T, 2, B, H): W x, then h in place
            transposed = weights.transpose(1, 2)
            states[0].clamp_(0.0, clip)
            for before, now in pairwise(states):
                now.baddbmm_(before, transposed).clamp_(0.0, clip)
            rows = states.view(-1, states.shape[-1])
            ctx.save_for_backward(states, weights)
            ctx.order, ctx.clip = order, clip
            return rows[order.forward] + rows[order.backward]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, weights = ctx.saved_tensors
        order, width = ctx.order, states.shape[-1]
        with torch.autocast(grad.device.type, enabled=False):
            deltas = torch.zeros_like(states)
            rows = deltas.view(-1, width)
            rows[order.forward] = grad
            rows[order.backward] = grad
            inside = (states > 0) & (states < ctx.clip)
            deltas[-1].mul_(inside[-1])
            for now in range(len(deltas) - 2, -1, -1):
                deltas[now].baddbmm_(deltas[now + 1], weights).mul_(inside[now])
            later = deltas[1:].transpose(0, 1).reshape(2, -1, width)
            before = states[:-1].transpose(0, 1).reshape(2, -1, width)
            return (
                rows[order.forward] + rows[order.backward],
                later.transpose(1, 2) @ before,
                None,
                None,
            )
