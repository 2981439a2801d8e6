"""Exact selection of the k smallest keys of huge tensors, in one read of them and one byte a key.

A random sample brackets the k-th key (Floyd and Rivest 1975). One read, in chunks that fit the
cache, writes for each key the byte of its bucket inside the bracket; counting bytes finds the k-th
key's bucket, and the few keys in it are then ranked. The bytes end as the mask. Every decision is
taken from counts alone, so shards on many ranks agree by adding up a few integers, whatever the
tensor's size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .keys import NAN, Keys, chunk_size
from .sharded import gather

_BUCKETS = 127  # codes 2 to 128; 1 is below the bracket, 129 above
_SAMPLE = 1 << 13
_FEW = 1 << 16  # keys that are ranked directly
_BITS = 11  # of a key that one round of ranking settles, from 2^11 counts

Parts = list[
    tuple[Any, Tensor]
]  # tensors with the process group that each is spread over, None for this process alone


def keep_largest(sources: Sequence[Keys], k: int, total: int) -> list[Tensor]:
    """Which keys are *not* among the k smallest of all sources: a flat bool tensor a source, ties
    to the lower index.

    Args:
        sources: of one key type; over all ranks they hold ``total`` keys together.
        k: how many to leave out, 0 <= k <= total.

    Raises:
        ValueError: a key lies above ``highest``: for magnitudes, a NaN.
    """
    codes = [
        torch.ones(source.numel, dtype=torch.uint8, device=source.device) for source in sources
    ]
    if k == 0:
        return [tensor.view(torch.bool) for tensor in codes]
    highest = sources[0].highest
    code, low, high, below, inside = 1, 0, highest, 0, total
    few = max(total >> 7, _FEW)
    bracket = _bracket(sources, k, total) if inside > few else (low, high, inside)
    while (
        low < high and inside > few
    ):  # once, unless the sample misled or very many keys are nearly equal
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
        found: list[Tensor | slice] = [
            slice(None) if inside == total else _positions(tensor, code) for tensor in codes
        ]
        keys = [source.pick(where) for source, where in zip(sources, found, strict=True)]
        threshold, _, fewer, inside = _kth(
            _merge(_parts(sources, keys)), k - below, inside, low, high
        )
        below += fewer
        for tensor, where, key in zip(codes, found, keys, strict=True):
            tensor[where] = key.gt(threshold).byte().add_(code).sub_(key.lt(threshold).byte())
    ties = k - below
    if ties == inside:
        return [tensor.gt_(code).view(torch.bool) for tensor in codes]
    shares = _share(sources, codes, code, ties)
    return [_above(tensor, code, share) for tensor, share in zip(codes, shares, strict=True)]


def _bracket(sources: Sequence[Keys], k: int, total: int) -> tuple[int, int, float]:
    """Two keys that enclose the k-th one with near certainty, and about how many keys lie between
    them.

    They are quantiles of a random sample, four deviations to either side.
    """
    drawn = []
    for source in sources:
        generator = torch.Generator("cpu").manual_seed(source.numel)
        share = -(-source.numel * _SAMPLE // total)
        highest_index = max(source.numel, 1)
        places = torch.randint(highest_index, (share,), generator=generator, device="cpu")
        drawn.append(source.pick(places.to(source.device)))
    sample = _merge(_parts(sources, drawn))
    number = int(
        _total([(group, torch.tensor(keys.numel(), device=keys.device)) for group, keys in sample])
    )
    middle = k / total * number
    margin = 4 * math.sqrt(middle * (1 - k / total)) + 4
    low, high, highest = math.floor(middle - margin), math.ceil(middle + margin), sources[0].highest
    return (
        _kth(sample, low, number, 0, highest, highest >> 20)[0] if low > 0 else 0,
        _kth(sample, high, number, 0, highest, highest >> 20)[1] if high < number else highest,
        2 * margin / number * total,
    )


def _kth(
    keys: Parts, k: int, number: int, low: int, high: int, width: int = 0
) -> tuple[int, int, int, int]:
    """Where the k-th of ``number`` few keys lies, all in [low, high], to within ``width``: a radix
    search.

    Returns (low, high, below, inside): how many keys lie below that range and how many inside it.
    """
    below = 0
    while high - low > width:
        shift = max((high - low).bit_length() - _BITS, 0)
        bins = ((high - low) >> shift) + 1
        buckets = (
            (group, ((part - low) >> shift).clamp_(-1, bins).add_(1)) for group, part in keys
        )
        counts = _total(
            [(group, torch.bincount(part, minlength=bins + 2)) for group, part in buckets]
        )
        sums = counts[1:-1].cumsum(0)
        if sums[-1] != number:
            raise ValueError(NAN)
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
            keys.bitwise_right_shift_(shift).clamp_(
                base + 1, min(base + 2 + _BUCKETS, source.highest)
            )
            tensor[start:stop].copy_(keys).sub_(base % 256)
        peaks.append((peak > source.highest).int())
    if _total(_parts(sources, peaks)):
        raise ValueError(NAN)


def _search(
    sources: Sequence[Keys], codes: Sequence[Tensor], k: int, total: int, span: int, density: float
) -> tuple[int, int, int]:
    """The lowest code up to which there are k keys, how many have a lower code, how many this one.

    Newton's method from the middle of the bracket's ``span``, over which keys lie evenly; bisection
    if that is slow.
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
            parts = gather(torch.tensor([equal], device=source.device), source.group).view(-1)
            before, everywhere = int(parts[: dist.get_rank(source.group)].sum()), int(parts.sum())
        shares.append(min(max(ties - before, 0), equal))
        ties = max(ties - everywhere, 0)
    return shares


def _above(codes: Tensor, code: int, ties: int) -> Tensor:
    """Turn codes into flags: True above ``code``, and where they equal it after the first ``ties``
    such."""
    size = chunk_size(codes.device)
    for start in range(0, codes.numel(), size):
        part = codes[start : start + size]
        equal = int(_count(part, torch.eq, code)) if ties else 0
        spared = _positions(part, code)[ties:] if 0 < ties < equal else None
        part.gt_(code) if ties else part.ge_(code)
        if spared is not None:
            part[spared] = 1
        ties = max(ties - equal, 0)
    return codes.view(torch.bool)


def _flags(
    codes: Tensor, compare: Callable[..., Tensor], code: int
) -> Iterator[tuple[int, Tensor]]:
    """(start, flags) a chunk, 1 where ``compare(codes, code)``; 8 flags make an int64, 0 beyond the
    end."""
    size = chunk_size(codes.device)
    flags = torch.zeros(
        -(-min(size, codes.numel()) // 1024) * 1024, dtype=torch.uint8, device=codes.device
    )
    for start in range(0, codes.numel(), size):
        part = codes[start : start + size]
        flags[part.numel() :] = 0
        compare(part, code, out=flags[: part.numel()])
        yield start, flags


def _count(codes: Tensor, compare: Callable[..., Tensor], code: int) -> Tensor:
    """How many codes compare so."""
    count = torch.zeros((), dtype=torch.int64, device=codes.device)
    for _, flags in _flags(codes, compare, code):
        # words of eight flags, 128 of them added without a carry: a fifth of the time of adding
        # bytes
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
