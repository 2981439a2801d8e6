"""Exact selection of the k smallest keys of huge tensors, in one read of them and one byte a key.

A key is a non-negative integer: the bits of |w|, which order as the magnitudes do, denormals and infinities included,
or a hash of the position for a random choice. A random sample brackets the k-th key (Floyd and Rivest 1975). One read,
in chunks that fit the cache, writes for each key the byte of its bucket inside the bracket; counting bytes finds the
k-th key's bucket, and the few keys in it are then ranked. The bytes end as the mask. Every decision is taken from
counts alone, so shards on many ranks agree by adding up a few integers, whatever the tensor's size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard

CHUNK = {"cpu": 1 << 19}
"""Elements a read; measured best from 2^17 to 2^20 (2 MB of keys). Other devices take 2^26 at a time."""

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITY = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
_INT64 = 1 << 64

GOLDEN = 0x9E3779B97F4A7C15 - _INT64
"""The odd number nearest to 2^64 over the golden ratio, as a signed integer: its multiples are spread evenly."""

_BUCKETS = 127  # codes 2 to 128; 1 is below the bracket, 129 above
_SAMPLE = 1 << 13
_FEW = 1 << 16  # keys that are ranked directly
_BITS = 11  # of a key that one round of ranking settles, from 2^11 counts
_NAN = "it holds a NaN, which has no magnitude: training diverged before this step"

Parts = list[tuple[Any, Tensor]]  # tensors with the process group that each is spread over, None for this process alone


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

    def chunks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, keys) over the tensor; the next chunk overwrites ``keys``."""
        size = _chunk(self.device)
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
    bits, positive = local.view(integer), torch.iinfo(integer).max
    flat = bits.view(-1) if bits.is_contiguous() else None
    row = 0 if flat is not None else bits[:1].numel()  # of channels_last and the like a chunk's rows are copied

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

    return Keys(read, pick, bits.numel(), _INFINITY[weight.dtype], integer, local.device, group)


def random_keys(weight: Tensor, seed: int) -> Keys:
    """A hash of each element's index and of the tensor's own content: the same on every rank and device.

    Drawing from the weights themselves leaves torch's generators alone, so a run with a random mask sees the same data
    order and dropout as its control.
    """
    magnitudes = magnitude_keys(weight)
    group, device = magnitudes.group, magnitudes.device
    content = nans = 0
    for _, _, keys in magnitudes.chunks():
        content += int(keys.sum(dtype=torch.int64))
        nans += bool(keys.amax() > magnitudes.highest)
    parts = torch.tensor([[magnitudes.numel, _signed(content), nans]], device=device)
    parts, rank = (parts, 0) if group is None else (_gather(parts[0], group), dist.get_rank(group))
    if parts[:, 2].any():
        raise ValueError(_NAN)
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
    """Mix the bits of each int64, in place: the output function of splitmix64 (Steele, Lea and Flood 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers.bitwise_xor_((numbers >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(_signed(factor))
    return numbers.bitwise_xor_((numbers >> 31).bitwise_and_((1 << 33) - 1))


def keep_largest(sources: Sequence[Keys], k: int, total: int) -> list[Tensor]:
    """Which keys are *not* among the k smallest of all sources: a flat bool tensor a source, ties to the lower index.

    Args:
        sources: of one key type; over all ranks they hold ``total`` keys together.
        k: how many to leave out, 0 <= k <= total.

    Raises:
        ValueError: a key lies above ``highest``: for magnitudes, a NaN.
    """
    codes = [torch.ones(source.numel, dtype=torch.uint8, device=source.device) for source in sources]
    if k == 0:
        return [tensor.view(torch.bool) for tensor in codes]
    highest = sources[0].highest
    code, low, high, below, inside = 1, 0, highest, 0, total
    few = max(total >> 7, _FEW)
    bracket = _bracket(sources, k, total) if inside > few else (low, high, inside)
    while low < high and inside > few:  # once, unless the sample misled or very many keys are nearly equal
        first, last, expected = bracket
        shift = max((last - first).bit_length() - 7, 0)
        shift += (last >> shift) - (first >> shift) >= _BUCKETS
        base, span = (first >> shift) - 2, (last >> shift) - (first >> shift) + 1
        _encode(sources, codes, base, shift)
        code, below, inside = _search(sources, codes, k, total, span, expected / span)
        if code < _BUCKETS + 2:
            high = ((base + code + 1) << shift) - 1
        if code > 1:
            low = (base + code) << shift
        bracket = low, high, inside
    if low < high:
        found: list[Tensor | slice] = [slice(None) if inside == total else _positions(tensor, code) for tensor in codes]
        keys = [source.pick(where) for source, where in zip(sources, found, strict=True)]
        threshold, _, fewer, inside = _kth(_merge(_parts(sources, keys)), k - below, inside, low, high)
        below += fewer
        for tensor, where, key in zip(codes, found, keys, strict=True):
            tensor[where] = key.gt(threshold).byte().add_(code).sub_(key.lt(threshold).byte())
    ties = k - below
    if ties == inside:
        return [tensor.gt_(code).view(torch.bool) for tensor in codes]
    shares = _share(sources, codes, code, ties)
    return [_above(tensor, code, share) for tensor, share in zip(codes, shares, strict=True)]


def _bracket(sources: Sequence[Keys], k: int, total: int) -> tuple[int, int, float]:
    """Two keys that enclose the k-th one with near certainty, and about how many keys lie between them.

    They are quantiles of a random sample, four deviations to either side.
    """
    drawn = []
    for source in sources:
        generator = torch.Generator().manual_seed(source.numel)
        share = -(-source.numel * _SAMPLE // total)
        drawn.append(source.pick(torch.randint(max(source.numel, 1), (share,), generator=generator).to(source.device)))
    sample = _merge(_parts(sources, drawn))
    number = int(_total([(group, torch.tensor(keys.numel(), device=keys.device)) for group, keys in sample]))
    middle = k / total * number
    margin = 4 * math.sqrt(middle * (1 - k / total)) + 4
    low, high, highest = math.floor(middle - margin), math.ceil(middle + margin), sources[0].highest
    return (
        _kth(sample, low, number, 0, highest, highest >> 20)[0] if low > 0 else 0,
        _kth(sample, high, number, 0, highest, highest >> 20)[1] if high < number else highest,
        2 * margin / number * total,
    )


def _kth(keys: Parts, k: int, number: int, low: int, high: int, width: int = 0) -> tuple[int, int, int, int]:
    """Where the k-th of ``number`` few keys lies, all in [low, high], to within ``width``: a radix search.

    Returns (low, high, below, inside): how many keys lie below that range and how many inside it.
    """
    below = 0
    while high - low > width:
        shift = max((high - low).bit_length() - _BITS, 0)
        bins = ((high - low) >> shift) + 1
        buckets = ((group, ((part - low) >> shift).clamp_(-1, bins).add_(1)) for group, part in keys)
        counts = _total([(group, torch.bincount(part, minlength=bins + 2)) for group, part in buckets])
        sums = counts[1:-1].cumsum(0)
        if sums[-1] != number:
            raise ValueError(_NAN)
        chosen = int(torch.searchsorted(sums, k - below))
        number = int(counts[chosen + 1])
        below += int(sums[chosen]) - number
        low += chosen << shift
        high = min(low + (1 << shift) - 1, high)
    return low, high, below, number


def _encode(sources: Sequence[Keys], codes: Sequence[Tensor], base: int, shift: int) -> None:
    """Write a byte a key: ``(key >> shift) - base``, cut off to 1 and to 129; refuse a NaN."""
    peaks = []
    for source, tensor in zip(sources, codes, strict=True):
        peak = torch.zeros((), dtype=source.dtype, device=source.device)
        for start, stop, keys in source.chunks():
            torch.maximum(peak, keys.amax(), out=peak)
            keys.bitwise_right_shift_(shift).clamp_(base + 1, min(base + 2 + _BUCKETS, source.highest))
            tensor[start:stop].copy_(keys).sub_(base % 256)
        peaks.append((peak > source.highest).int())
    if _total(_parts(sources, peaks)):
        raise ValueError(_NAN)


def _search(
    sources: Sequence[Keys], codes: Sequence[Tensor], k: int, total: int, span: int, density: float
) -> tuple[int, int, int]:
    """The lowest code up to which there are k keys, how many have a lower code, how many this one.

    Newton's method from the middle of the bracket's ``span``, over which keys lie evenly; bisection if that is slow.
    """
    low, high, below, upto, guess = 1, _BUCKETS + 2, 0, total, 1 + (span + 1) // 2
    for tries in itertools.count():
        if low == high:
            break
        count = int(_total(_parts(sources, [_count(tensor, torch.le, guess) for tensor in codes])))
        if count >= k:
            high, upto = guess, count
        else:
            low, below = guess + 1, count
        guess = guess + math.ceil((k - count) / density) if tries < 4 else (low + high) // 2
        guess = max(low, min(guess, high - 1))
    return low, below, upto - below


def _share(sources: Sequence[Keys], codes: Sequence[Tensor], code: int, ties: int) -> list[int]:
    """How many of its keys of this code each source leaves out, the lower index first."""
    shares = []
    for source, tensor in zip(sources, codes, strict=True):
        equal = int(_count(tensor, torch.eq, code))
        before, everywhere = 0, equal
        if source.group is not None:
            parts = _gather(torch.tensor([equal], device=source.device), source.group).view(-1)
            before, everywhere = int(parts[: dist.get_rank(source.group)].sum()), int(parts.sum())
        shares.append(min(max(ties - before, 0), equal))
        ties = max(ties - everywhere, 0)
    return shares


def _above(codes: Tensor, code: int, ties: int) -> Tensor:
    """Turn codes into flags: True above ``code``, and where they equal it after the first ``ties`` such."""
    size = _chunk(codes.device)
    for start in range(0, codes.numel(), size):
        part = codes[start : start + size]
        equal = int(_count(part, torch.eq, code)) if ties else 0
        spared = _positions(part, code)[ties:] if 0 < ties < equal else None
        part.gt_(code) if ties else part.ge_(code)
        if spared is not None:
            part[spared] = 1
        ties = max(ties - equal, 0)
    return codes.view(torch.bool)


def _flags(codes: Tensor, compare: Callable[..., Tensor], code: int) -> Iterator[tuple[int, Tensor]]:
    """(start, flags) a chunk, 1 where ``compare(codes, code)``; 8 flags make an int64, 0 beyond the end."""
    size = _chunk(codes.device)
    flags = torch.zeros(-(-min(size, codes.numel()) // 1024) * 1024, dtype=torch.uint8, device=codes.device)
    for start in range(0, codes.numel(), size):
        part = codes[start : start + size]
        flags[part.numel() :] = 0
        compare(part, code, out=flags[: part.numel()])
        yield start, flags


def _count(codes: Tensor, compare: Callable[..., Tensor], code: int) -> Tensor:
    """How many codes compare so."""
    count = torch.zeros((), dtype=torch.int64, device=codes.device)
    for _, flags in _flags(codes, compare, code):
        # words of eight flags, 128 of them added without a carry: a fifth of the time of adding bytes
        count += flags.view(torch.int64).view(128, -1).sum(0).view(torch.uint8).sum()
    return count


def _positions(codes: Tensor, code: int) -> Tensor:
    """Indices of one code, in order."""
    found = [torch.empty(0, dtype=torch.int64, device=codes.device)]
    eight = torch.arange(8, device=codes.device)
    for start, flags in _flags(codes, torch.eq, code):
        words = flags.view(torch.int64).nonzero()  # few are not zero
        if words.numel():
            near = (words * 8 + eight).view(-1)
            found.append(near[flags[near].view(torch.bool)] + start)
    return torch.cat(found)


def _parts(sources: Sequence[Keys], tensors: Iterable[Tensor]) -> Parts:
    return [(source.group, tensor) for source, tensor in zip(sources, tensors, strict=True)]


def _merge(parts: Parts) -> Parts:
    """One tensor a group, end to end; what is this process's own comes to the CPU."""
    merged: dict[Any, list[Tensor]] = {}
    for group, part in parts:
        merged.setdefault(group, []).append(part if group is not None else part.cpu())
    return [(group, torch.cat(tensors)) for group, tensors in merged.items()]


def _total(parts: Parts) -> Tensor:
    """The sum of equal shapes over parts and ranks, on the CPU."""
    sums: dict[Any, Tensor] = {}
    for group, part in parts:
        part = part if group is not None else part.cpu()
        sums[group] = sums[group] + part if group in sums else part
    for group, part in sums.items():
        if group is not None:
            dist.all_reduce(part, group=group)
    return torch.stack([part.cpu() for part in sums.values()]).sum(0)


def _gather(row: Tensor, group: Any) -> Tensor:
    """(ranks, len(row)): every rank's row in rank order."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, row, group=group)
    return torch.stack(rows)


def _chunk(device: torch.device) -> int:
    return CHUNK.get(device.type, 1 << 26)


def _signed(number: int) -> int:
    """``number`` as the signed 64-bit integer of the same bits."""
    number %= _INT64
    return number - _INT64 if number >= _INT64 >> 1 else number
