"""Exact selection of the k smallest keys of huge tensors, in one read of them and one byte a key.

A random sample brackets the k-th key (Floyd and Rivest 1975). One read writes for each key the byte
of its bucket inside the bracket (`codes`); counting bytes finds the k-th key's bucket, and the few
keys in it are then ranked. The bytes end as the mask. Every decision is taken from counts alone, so
shards on many ranks agree by adding up a few integers, whatever the tensor's size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from .codes import LOWEST, count_equal, count_upto, encode, flag_, positions
from .keys import NAN, Keys
from .sharded import gather

_BUCKETS = 127
_BELOW, _FIRST, _ABOVE = LOWEST, LOWEST + 1, LOWEST + 1 + _BUCKETS
"""Bytes of keys below the bracket, in its first bucket, and above it."""
_SAMPLE = 1 << 13
_FEW = 1 << 16  # keys that are ranked directly
_BITS = 11  # of a key that one round of ranking settles, from 2^11 counts

Parts = list[
    tuple[Any, Tensor]
]  # tensors with the process group that each is spread over, None for this process alone


class _Interval(NamedTuple):
    """Where the k-th key lies, as far as it is known."""

    low: int
    high: int
    below: int
    """How many keys lie below ``low``."""
    inside: int
    """How many lie from ``low`` to ``high``."""


class _Grid(NamedTuple):
    """Buckets over a bracket: a key's byte is ``(key >> shift) - base``."""

    base: int
    shift: int
    buckets: int
    density: float
    """How many keys a bucket holds, if they lie evenly."""

    @classmethod
    def over(cls, low: int, high: int, inside: float) -> _Grid:
        """The finest grid of at most 127 buckets."""
        shift = max((high - low).bit_length() - 7, 0)
        if (high >> shift) - (low >> shift) >= _BUCKETS:
            shift += 1
        buckets = (high >> shift) - (low >> shift) + 1
        return cls((low >> shift) - _FIRST, shift, buckets, inside / buckets)

    def first_key(self, code: int) -> int:
        """The lowest key of a bucket."""
        return (self.base + code) << self.shift


def keep_largest(sources: Sequence[Keys], k: int, total: int) -> list[Tensor]:
    """Which keys are *not* among the k smallest of all sources: a flat bool tensor a source, ties
    to the lower index.

    Of the keys 5 1 4 1 3, the two smallest are left out with k = 2 (True False True False True),
    and with k = 1 the first 1 alone.

    Args:
        sources: of one key type; over all ranks they hold ``total`` keys together.
        k: how many to leave out, 0 <= k <= total.

    Raises:
        ValueError: a key lies above ``highest``: for magnitudes, a NaN.
    """
    if k == 0:
        return [torch.ones(s.numel, dtype=torch.bool, device=s.device) for s in sources]
    codes = [torch.empty(s.numel, dtype=torch.uint8, device=s.device) for s in sources]
    place, code = _Interval(0, sources[0].highest, 0, total), _BELOW
    few = max(total >> 7, _FEW)
    grid = _Grid.over(*_bracket(sources, k, total)) if total > few else None
    if grid is None:
        for tensor in codes:
            tensor.fill_(_BELOW)
    while grid is not None:  # once, unless the sample misled or very many keys are nearly equal
        place, code = _narrow(sources, codes, k, total, place, grid)
        known = place.low == place.high or place.inside <= few
        grid = None if known else _Grid.over(place.low, place.high, place.inside)
    if place.low < place.high:
        place = _rank(sources, codes, k, total, place, code)
    ties = k - place.below
    everyone = ties == place.inside
    shares = [len(c) for c in codes] if everyone else _share(sources, codes, code, ties)
    return [flag_(tensor, code, share) for tensor, share in zip(codes, shares, strict=True)]


def _narrow(
    sources: Sequence[Keys],
    codes: Sequence[Tensor],
    k: int,
    total: int,
    place: _Interval,
    grid: _Grid,
) -> tuple[_Interval, int]:
    """The bucket of the k-th key, and its code: one read of all keys."""
    _encode(sources, codes, grid)
    code, below, inside = _search(sources, codes, k, total, grid)
    low = grid.first_key(code) if code > _BELOW else place.low
    high = grid.first_key(code + 1) - 1 if code < _ABOVE else place.high
    return _Interval(low, high, below, inside), code


def _rank(
    sources: Sequence[Keys],
    codes: Sequence[Tensor],
    k: int,
    total: int,
    place: _Interval,
    code: int,
) -> _Interval:
    """The k-th key itself: the few keys of its bucket get the bytes below and above ``code``, and
    those that equal it keep that."""
    everywhere = place.inside == total
    indices = [slice(None) if everywhere else positions(tensor, code) for tensor in codes]
    keys = [source.pick(where) for source, where in zip(sources, indices, strict=True)]
    merged = _merge(_parts(sources, keys))
    exact = _kth(merged, k - place.below, place.inside, place.low, place.high)
    for tensor, where, key in zip(codes, indices, keys, strict=True):
        tensor[where] = key.gt(exact.low).byte().add_(code).sub_(key.lt(exact.low).byte())
    return exact._replace(below=place.below + exact.below)


def _bracket(sources: Sequence[Keys], k: int, total: int) -> tuple[int, int, float]:
    """Two keys that enclose the k-th one with near certainty, and about how many lie between them.

    They are quantiles of a random sample, four deviations to either side: for the 300th of 1,000
    keys, of a sample of 100, about the 8th and the 52nd.
    """
    drawn = []
    for source in sources:
        generator = torch.Generator("cpu").manual_seed(source.numel)
        share = -(-source.numel * _SAMPLE // total)
        highest_index = max(source.numel, 1)
        places = torch.randint(highest_index, (share,), generator=generator, device="cpu")
        drawn.append(source.pick(places.to(source.device)))
    sample = _merge(_parts(sources, drawn))
    sizes = [(group, torch.tensor(keys.numel(), device=keys.device)) for group, keys in sample]
    number = int(_total(sizes))
    middle = k / total * number
    margin = 4 * math.sqrt(middle * (1 - k / total)) + 4
    lower, upper, highest = (
        math.floor(middle - margin),
        math.ceil(middle + margin),
        sources[0].highest,
    )
    width = highest >> 20
    low = _kth(sample, lower, number, 0, highest, width).low if lower > 0 else 0
    high = _kth(sample, upper, number, 0, highest, width).high if upper < number else highest
    return low, high, 2 * margin / number * total


def _kth(keys: Parts, k: int, number: int, low: int, high: int, width: int = 0) -> _Interval:
    """Where the k-th of ``number`` few keys lies, all in [low, high], to within ``width``: a radix
    search."""
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
    return _Interval(low, high, below, number)


def _encode(sources: Sequence[Keys], codes: Sequence[Tensor], grid: _Grid) -> None:
    """Write a byte a key, cut off to 1 below the grid and to 129 above it; refuse a NaN."""
    lowest = grid.base + _BELOW
    most = min(grid.base + _ABOVE, sources[0].highest)
    nans = []
    for source, tensor in zip(sources, codes, strict=True):
        nans.append((encode(source, tensor, grid.shift, lowest, most) > source.highest).int())
    if _total(_parts(sources, nans)):
        raise ValueError(NAN)


def _search(
    sources: Sequence[Keys], codes: Sequence[Tensor], k: int, total: int, grid: _Grid
) -> tuple[int, int, int]:
    """The lowest code up to which there are k keys, how many have a lower code, how many this one.

    Newton's method from the middle of the grid, over which keys lie evenly; bisection if that is
    slow.
    """
    low, high = _BELOW, _ABOVE
    below, upto = 0, total
    guess = 1 + (grid.buckets + 1) // 2
    for tries in itertools.count():
        if low == high:
            break
        count = int(_total(_parts(sources, [count_upto(tensor, guess) for tensor in codes])))
        if count >= k:
            high, upto = guess, count
        else:
            low, below = guess + 1, count
        guess = guess + math.ceil((k - count) / grid.density) if tries < 4 else (low + high) // 2
        guess = max(low, min(guess, high - 1))
    return low, below, upto - below


def _share(sources: Sequence[Keys], codes: Sequence[Tensor], code: int, ties: int) -> list[int]:
    """How many of its keys of this code each source leaves out, the lower index first."""
    shares = []
    for source, tensor in zip(sources, codes, strict=True):
        equal = int(count_equal(tensor, code))
        before, everywhere = 0, equal
        if source.group is not None:
            parts = gather(torch.tensor([equal], device=source.device), source.group).view(-1)
            before, everywhere = int(parts[: dist.get_rank(source.group)].sum()), int(parts.sum())
        shares.append(min(max(ties - before, 0), equal))
        ties = max(ties - everywhere, 0)
    return shares


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
