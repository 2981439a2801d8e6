"""What decides whether a weight is kept, as a key: a non-negative integer, read a chunk at a time.

The bits of |w| order as the magnitudes do, denormals and infinities included; a hash of the
position chooses at random. Of a sharded tensor each rank reads its own part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .sharded import gather, shard_of

CHUNK = {"cpu": 1 << 19}
"""Elements a read; measured best from 2^17 to 2^20 (2 MB of keys). Other devices take 2^26 at a
time."""

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITY = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
_INT64 = 1 << 64

GOLDEN = 0x9E3779B97F4A7C15 - _INT64
"""The odd number nearest to 2^64 over the golden ratio, as a signed integer: its multiples are
spread evenly."""

NAN = "it holds a NaN, which has no magnitude: training diverged before this step"


@dataclass(frozen=True)
class Keys:
    """The keys of one tensor, or of this rank's shard of it."""

    read: Callable[[int, int, Tensor], None]  # read(start, stop, out) fills out
    pick: Callable[[Tensor | slice], Tensor]  # keys at some indices, or all
    numel: int
    highest: int
    dtype: torch.dtype
    device: torch.device
    group: Any = None  # the process group that the tensor is sharded over
    signed: Tensor | None = None  # all keys in a row of memory, each with a sign that says nothing

    def chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, keys) over the tensor; the next chunk overwrites ``keys``."""
        size = chunk_size(self.device)
        buffer = torch.empty(min(size, self.numel), dtype=self.dtype, device=self.device)
        for start in range(0, self.numel, size):
            stop = min(start + size, self.numel)
            keys = buffer[: stop - start]
            self.read(start, stop, keys)
            yield start, stop, keys


def magnitude_keys(weight: Tensor) -> Keys:
    """|w| as integers of the same width: monotone in the magnitude, and 0.0 and -0.0 are one
    key."""
    if weight.dtype not in _INFINITY:
        raise TypeError(
            f"magnitudes need a float16, bfloat16, float32 or float64 tensor, got {weight.dtype}"
        )
    local, group = shard_of(weight)
    integer = _INTEGER[weight.element_size()]
    bits, positive = local.view(integer), torch.iinfo(integer).max
    flat = bits.view(-1) if bits.is_contiguous() else None
    row = (
        0 if flat is not None else bits[:1].numel()
    )  # of channels_last and the like a chunk's rows are copied

    def read(start: int, stop: int, out: Tensor) -> None:
        if flat is None:
            skip = start // row * row
            part = bits[start // row : -(-stop // row)].reshape(-1)[start - skip : stop - skip]
        else:
            part = flat[start:stop]
        torch.bitwise_and(part, positive, out=out)

    def pick(indices: Tensor | slice) -> Tensor:
        if flat is not None:
            return flat[indices] & positive
        if isinstance(indices, slice):
            return bits.reshape(-1)[indices] & positive
        return bits[torch.unravel_index(indices, bits.shape)] & positive

    highest = _INFINITY[weight.dtype]
    signed = flat if type(local) is Tensor else None  # a subclass may have no memory
    return Keys(read, pick, bits.numel(), highest, integer, local.device, group, signed)


def random_keys(weight: Tensor, seed: int) -> Keys:
    """A hash of each element's index and of the tensor's own content: the same on every rank and
    device.

    Drawing from the weights themselves leaves torch's generators alone, so a run with a random mask
    sees the same data order and dropout as its control.
    """
    magnitudes = magnitude_keys(weight)
    group, device = magnitudes.group, magnitudes.device
    content = nans = 0
    for _, _, keys in magnitudes.chunks():
        content += int(keys.sum(dtype=torch.int64))
        nans += bool(keys.amax() > magnitudes.highest)
    parts = torch.tensor([[magnitudes.numel, _signed(content), nans]], device=device)
    parts, rank = (parts, 0) if group is None else (gather(parts[0], group), dist.get_rank(group))
    if parts[:, 2].any():
        raise ValueError(NAN)
    before, content = int(parts[:rank, 0].sum()), int(parts[:, 1].sum())
    offset = _signed(content + seed * GOLDEN)

    def pick(indices: Tensor | slice) -> Tensor:
        if isinstance(indices, slice):
            indices = torch.arange(magnitudes.numel, device=device)[indices]
        numbers = (indices + before).mul_(GOLDEN).add_(offset)
        return (scramble(numbers) >> 33).bitwise_and_(0x7FFF_FFFF).int()

    def read(start: int, stop: int, out: Tensor) -> None:
        out.copy_(pick(torch.arange(start, stop, device=device)))

    return Keys(read, pick, magnitudes.numel, 0x7FFF_FFFF, torch.int32, device, group)


def scramble(numbers: Tensor) -> Tensor:
    """Mix the bits of each int64, in place: the output function of splitmix64 (Steele, Lea and
    Flood 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers.bitwise_xor_((numbers >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(
            _signed(factor)
        )
    return numbers.bitwise_xor_((numbers >> 31).bitwise_and_((1 << 33) - 1))


def chunk_size(device: torch.device) -> int:
    """Elements that are worked on at a time."""
    return CHUNK.get(device.type, 1 << 26)


def _signed(number: int) -> int:
    """``number`` as the signed 64-bit integer of the same bits."""
    number %= _INT64
    return number - _INT64 if number >= _INT64 >> 1 else number
