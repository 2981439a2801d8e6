"""Exact selection of the k smallest keys of huge tensors, in about four reads and one byte a key.

A key is a non-negative integer: the bits of |w|, which order as the magnitudes do, denormals and infinities included,
or a hash of the position for a random choice. Keys are read chunk by chunk into a buffer that fits the cache. A random
sample brackets the k-th key (Floyd and Rivest 1975), one read counts around the bracket, one collects what lies inside,
and a bisection of those few ends on the key. Every decision is taken from counts alone, so shards on many ranks agree
by adding up a few integers, whatever the tensor's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard

CHUNK = {"cpu": 1 << 18}
"""Elements a read; 2^18 four-byte keys fill half of a common 2 MB cache. Other devices take 2^26 at a time."""

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITY = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
_INT64 = 1 << 64


@dataclass(frozen=True)
class Keys:
    """The keys of one tensor, or of this rank's shard of it."""

    read: Callable[[int, int, Tensor], None]  # read(start, stop, out) fills out
    pick: Callable[[Tensor], Tensor]  # keys at some indices
    numel: int
    highest: int
    dtype: torch.dtype
    device: torch.device
    group: Any = None  # the process group that the tensor is sharded over

    def chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, keys) over the tensor; the next chunk overwrites ``keys``."""
        size = CHUNK.get(self.device.type, 1 << 26)
        buffer = torch.empty(min(size, self.numel), dtype=self.dtype, device=self.device)
        for start in range(0, self.numel, size):
            stop = min(start + size, self.numel)
            keys = buffer[: stop - start]
            self.read(start, stop, keys)
            yield start, stop, keys


def shard_of(tensor: Tensor) -> tuple[Tensor, Any]:
    """This rank's part of ``tensor`` and the group it is sharded over, None for a plain or replicated tensor.

    Shards of the first dimension (FSDP2) are supported, since rank order is index order there.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach(), None
    group = None
    for dimension, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            continue
        if type(placement) is not Shard or placement.dim != 0 or group is not None:
            raise NotImplementedError(
                f"masks need a tensor that is replicated or sharded once, over its first dimension, "
                f"got placements {tensor.placements}; exclude this tensor or shard it with fully_shard"
            )
        group = tensor.device_mesh.get_group(dimension)
    local: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]  # DTensor.detach is typed as Tensor
    return local, group


def magnitude_keys(weight: Tensor) -> Keys:
    """|w| as integers of the same width: monotone in the magnitude, and 0.0 and -0.0 are one key."""
    if weight.dtype not in _INFINITY:
        raise TypeError(f"magnitudes need a float16, bfloat16, float32 or float64 tensor, got {weight.dtype}")
    local, group = shard_of(weight)
    integer = _INTEGER[weight.element_size()]
    bits = local.reshape(-1).view(integer)
    positive = torch.iinfo(integer).max

    def read(start: int, stop: int, out: Tensor) -> None:
        torch.bitwise_and(bits[start:stop], positive, out=out)

    def pick(indices: Tensor) -> Tensor:
        return bits[indices].bitwise_and_(positive)

    return Keys(read, pick, bits.numel(), _INFINITY[weight.dtype], integer, local.device, group)


def random_keys(weight: Tensor, seed: int) -> Keys:
    """A hash of each element's index and of the tensor's own content: the same on every rank and device.

    Drawing from the weights themselves leaves torch's generators alone, so a run with a random mask sees the same data
    order and dropout as its control. The mixer is splitmix64's (Steele, Lea and Flood 2014).
    """
    magnitudes = magnitude_keys(weight)
    group, device = magnitudes.group, magnitudes.device
    before = 0
    content = sum(int(keys.sum(dtype=torch.int64)) for _, _, keys in magnitudes.chunks()) % _INT64
    if group is not None:
        parts = _gather(torch.tensor([magnitudes.numel, _signed(content)], device=device), group)
        before = int(parts[: dist.get_rank(group), 0].sum())
        content = int(parts[:, 1].sum())
    offset = _signed(content + seed * 0x9E3779B97F4A7C15)

    def pick(indices: Tensor) -> Tensor:
        mixed = (indices + before).mul_(_signed(0x9E3779B97F4A7C15)).add_(offset)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed.bitwise_xor_((mixed >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(_signed(factor))
        return (mixed >> 33).bitwise_and_(0x7FFF_FFFF).int()

    def read(start: int, stop: int, out: Tensor) -> None:
        out.copy_(pick(torch.arange(start, stop, device=device)))

    return Keys(read, pick, magnitudes.numel, 0x7FFF_FFFF, torch.int32, device, group)


def keep_largest(sources: Sequence[Keys], k: int, total: int) -> list[Tensor]:
    """Which keys are *not* among the k smallest of all sources: a flat bool tensor a source, ties to the lower index.

    Args:
        sources: of one key type; over all ranks they hold ``total`` keys together.
        k: how many to leave out, 0 <= k <= total.

    Raises:
        ValueError: a key lies above ``highest``: for magnitudes, a NaN.
    """
    if k == 0:
        return [torch.ones(source.numel, dtype=torch.bool, device=source.device) for source in sources]
    threshold, ties, equal = _kth(sources, k, total)
    shares = [None] * len(sources) if ties == equal else _share(sources, threshold, ties)
    return [_above(source, threshold, share) for source, share in zip(sources, shares, strict=True)]


def _kth(sources: Sequence[Keys], k: int, total: int) -> tuple[int, int, int]:
    """(threshold, ties, equal): the k-th smallest key, how many keys equal to it are chosen, how many there are."""
    highest = sources[0].highest
    low, high = _bracket(sources, k, total, highest)
    below, upto = _count(sources, low, high, check=True)
    if k <= below:
        low, high, below, upto = 0, low - 1, 0, below
    elif k > upto:
        low, high, below, upto = high + 1, highest, upto, total
    few = max(total >> 4, 1 << 16)
    while low < high and upto - below > few:  # a sample that misled, or very many equal keys
        low, high, below, upto = _bisect(sources, k, low, high, below, upto)
    if low < high:
        inside = [_collect(source, low, high) for source in sources]
        outside = below
        while low < high:
            low, high, below, upto = _bisect(inside, k, low, high, below, upto, outside)
    return low, k - below, upto - below


def _bisect(
    sources: Sequence[Keys], k: int, low: int, high: int, below: int, upto: int, outside: int = 0
) -> tuple[int, int, int, int]:
    middle = (low + high) // 2
    count = outside + _count(sources, None, middle)[1]
    return (low, middle, below, count) if count >= k else (middle + 1, high, count, upto)


def _bracket(sources: Sequence[Keys], k: int, total: int, highest: int) -> tuple[int, int]:
    """Two keys that enclose the k-th one with near certainty: quantiles of a random sample, four deviations apart."""
    if total < 1 << 16:
        return 0, highest
    drawn = min(total >> 6, 1 << 16)
    sampled = []
    for source in sources:
        generator = torch.Generator().manual_seed(source.numel)
        share = drawn * source.numel // max(1, sum(other.numel for other in sources))
        share = min(source.numel, max(share, 16))
        picked = source.pick(torch.randint(max(source.numel, 1), (share,), generator=generator).to(source.device))
        sampled.append(_gather_ragged(picked, drawn, source.group))
    sample = torch.cat(sampled).sort().values.tolist()
    middle = k / total * len(sample)
    margin = 4 * math.sqrt(middle * (1 - k / total)) + 4
    low, high = math.floor(middle - margin), math.ceil(middle + margin)
    return (sample[low] if low >= 0 else 0, min(sample[high], highest) if high < len(sample) else highest)


def _count(sources: Sequence[Keys], low: int | None, high: int, check: bool = False) -> tuple[int, int]:
    """How many keys lie below ``low`` and how many up to ``high``, over all shards; ``check`` refuses a NaN."""
    counts: dict[Any, Tensor] = {}
    for source in sources:
        tally = counts.setdefault(source.group, torch.zeros(3, dtype=torch.int64, device=source.device))
        scratch: Tensor | None = None
        for _, _, keys in source.chunks():
            if check:
                tally[2] += keys.amax() > source.highest
            if low is not None:
                scratch = torch.empty_like(keys) if scratch is None else scratch[: keys.numel()]
                tally[0] += torch.lt(keys, low, out=scratch).sum(dtype=torch.int32)
            tally[1] += keys.le_(high).sum(dtype=torch.int32)
    for group, tally in counts.items():
        if group is not None:
            dist.all_reduce(tally, group=group)
    below, upto, nan = (int(number) for number in torch.stack([tally.cpu() for tally in counts.values()]).sum(0))
    if nan:
        raise ValueError("it holds a NaN, which has no magnitude: training diverged before this step")
    return below, upto


def _collect(source: Keys, low: int, high: int) -> Keys:
    """The keys from ``low`` to ``high`` as a source of their own."""
    found = [torch.empty(0, dtype=source.dtype, device=source.device)]
    for _, _, keys in source.chunks():
        # a flag a key as one byte, then eight flags at a time as one word: few words are not zero
        flags = torch.zeros(-(-keys.numel() // 8) * 8, dtype=torch.int8, device=source.device)
        flags[: keys.numel()] = keys.clamp(low, high).eq_(keys)
        words = flags.view(torch.int64).nonzero().view(-1)
        if words.numel():
            indices = (words.unsqueeze(1) * 8 + torch.arange(8, device=source.device)).view(-1)
            found.append(keys[indices[flags[indices].bool()]])
    kept = torch.cat(found)

    def read(start: int, stop: int, out: Tensor) -> None:
        out.copy_(kept[start:stop])

    return Keys(read, kept.__getitem__, kept.numel(), source.highest, source.dtype, source.device, source.group)


def _share(sources: Sequence[Keys], threshold: int, ties: int) -> list[int | None]:
    """How many of its keys equal to ``threshold`` each source leaves out, the lower index first."""
    shares: list[int | None] = []
    for source in sources:
        equal = sum(int(keys.eq_(threshold).sum(dtype=torch.int32)) for _, _, keys in source.chunks())
        before, everywhere = 0, equal
        if source.group is not None:
            parts = _gather(torch.tensor([equal], device=source.device), source.group).view(-1)
            before, everywhere = int(parts[: dist.get_rank(source.group)].sum()), int(parts.sum())
        shares.append(min(max(ties - before, 0), equal))
        ties = max(ties - everywhere, 0)
    return shares


def _above(source: Keys, threshold: int, ties: int | None) -> Tensor:
    """True where a key lies above ``threshold`` or equals it after the first ``ties`` such (None: every one)."""
    keep = torch.empty(source.numel, dtype=torch.bool, device=source.device)
    flags = keep.view(torch.int8)
    for start, stop, keys in source.chunks():
        if ties is None:
            flags[start:stop] = keys.gt_(threshold)
        elif ties == 0:
            flags[start:stop] = keys.ge_(threshold)
        else:
            flags[start:stop] = keys > threshold
            equal = keys.eq_(threshold).nonzero().view(-1) + start
            flags[equal[ties:]] = 1
            ties = max(ties - equal.numel(), 0)
    return keep


def _gather(row: Tensor, group: Any) -> Tensor:
    """(ranks, len(row)): every rank's row in rank order."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, row, group=group)
    return torch.stack(rows)


def _gather_ragged(keys: Tensor, most: int, group: Any) -> Tensor:
    """All ranks' keys, of which each has at most ``most``, on the CPU as int64."""
    if group is None:
        return keys.cpu().long()
    padded = torch.full((most,), -1, dtype=torch.int64, device=keys.device)
    padded[: keys.numel()] = keys[:most]
    together = _gather(padded, group).view(-1).cpu()
    return together[together >= 0]


def _signed(number: int) -> int:
    """``number`` as the signed 64-bit integer of the same bits."""
    number %= _INT64
    return number - _INT64 if number >= _INT64 >> 1 else number
