"""A byte a key: what selection knows of a huge tensor after one read of it.

In a grid over the keys 50 to 59 in steps of two, 1 is all below 50, 2 is 50 and 51, and so on. The
compiled kernel has a loop for each pass; elsewhere, and where nothing was compiled, it is a dozen
of torch's operations on a chunk at a time. Both say the same. Keys that are no weight's bits in a
row of memory, random ones say, are made by torch a chunk at a time in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .keys import Keys, chunk_size

try:
    from . import _kernels as kernel

    kernel.flag_codes  # noqa: B018 - an older build lacks it
except (ImportError, AttributeError):  # installed without a C compiler that knows OpenMP
    kernel = None  # type: ignore[assignment]

LOWEST = 1
"""The code of all below the grid."""


def encode(source: Keys, codes: Tensor, shift: int, lowest: int, most: int) -> Tensor:
    """Write each key's code: ``key >> shift``, cut off to ``lowest`` and ``most``, less ``lowest``,
    and `LOWEST`. The largest key of all, a 0-dimensional tensor."""
    signed = source.signed
    if not _in_memory(codes) or (signed is not None and not _in_memory(signed)):
        return encode_plain(source, codes, shift, lowest, most)
    largest = 0
    whole = [(0, source.numel, signed)] if signed is not None else source.chunks()
    for start, stop, keys in whole:
        places = keys.data_ptr(), codes.data_ptr() + start
        width = keys.element_size()
        found = kernel.encode(*places, stop - start, width, shift, lowest, most)
        largest = max(largest, found)
    return torch.tensor(largest, dtype=source.dtype, device="cpu")


def encode_plain(source: Keys, codes: Tensor, shift: int, lowest: int, most: int) -> Tensor:
    """The same in torch's own operations, on any device."""
    largest = torch.zeros((), dtype=source.dtype, device=source.device)
    for start, stop, keys in source.chunks():
        torch.maximum(largest, keys.amax(), out=largest)
        keys.bitwise_right_shift_(shift).clamp_(lowest, most)
        codes[start:stop].copy_(keys).sub_((lowest - LOWEST) % 256)
    return largest


def count_upto(codes: Tensor, code: int) -> Tensor:
    """How many codes are at most this one."""
    if not _in_memory(codes):
        return count_plain(codes, torch.le, code)
    return torch.tensor(kernel.count_codes(codes.data_ptr(), codes.numel(), 0, code), device="cpu")


def count_equal(codes: Tensor, code: int) -> Tensor:
    """How many codes are this one."""
    if not _in_memory(codes):
        return count_plain(codes, torch.eq, code)
    return torch.tensor(
        kernel.count_codes(codes.data_ptr(), codes.numel(), code, code), device="cpu"
    )


def count_plain(codes: Tensor, compare: Callable[..., Tensor], code: int) -> Tensor:
    """How many codes compare so, in torch's own operations."""
    count = torch.zeros((), dtype=torch.int64, device=codes.device)
    for _, flags in _flags(codes, compare, code):
        # words of eight flags, 128 of them added without a carry: a fifth of the time of adding
        # bytes
        count += flags.view(torch.int64).view(128, -1).sum(0).view(torch.uint8).sum()
    return count


def positions(codes: Tensor, code: int) -> Tensor:
    """Indices of one code, in order."""
    if not _in_memory(codes):
        return positions_plain(codes, code)
    places = torch.empty(int(count_equal(codes, code)), dtype=torch.int64, device="cpu")
    address, room = places.data_ptr(), places.numel()
    kernel.find_code(codes.data_ptr(), codes.numel(), code, address, room)
    return places


def positions_plain(codes: Tensor, code: int) -> Tensor:
    """The same in torch's own operations."""
    places = [torch.empty(0, dtype=torch.int64, device=codes.device)]
    eight = torch.arange(8, device=codes.device)
    for start, flags in _flags(codes, torch.eq, code):
        words = flags.view(torch.int64).nonzero()  # few are not zero
        if words.numel():
            near = (words * 8 + eight).view(-1)
            places.append(near[flags[near].view(torch.bool)] + start)
    return torch.cat(places)


def flag_(codes: Tensor, code: int, ties: int) -> Tensor:
    """Turn codes into flags, in place: True above ``code``, and where they equal it after the first
    ``ties`` such."""
    if not _in_memory(codes):
        return flag_plain_(codes, code, ties)
    kernel.flag_codes(codes.data_ptr(), codes.numel(), code, ties)
    return codes.view(torch.bool)


def flag_plain_(codes: Tensor, code: int, ties: int) -> Tensor:
    """The same in torch's own operations."""
    size = chunk_size(codes.device)
    for start in range(0, codes.numel(), size):
        if ties >= codes.numel() - start:  # all that are left: nothing to count
            codes[start:].gt_(code)
            break
        part = codes[start : start + size]
        equal = int(count_plain(part, torch.eq, code)) if ties else 0
        spared = positions_plain(part, code)[ties:] if 0 < ties < equal else None
        part.gt_(code) if ties else part.ge_(code)
        if spared is not None:
            part[spared] = 1
        ties = max(ties - equal, 0)
    return codes.view(torch.bool)


def _in_memory(tensor: Tensor) -> bool:
    """Whether the kernel may look at a tensor: not at what `torch.func` wraps, at zeros that were
    never written down, nor at a lazy clone, which looking at would copy."""
    if kernel is None or not tensor.is_cpu:
        return False
    try:
        if torch._C._is_cow_tensor(tensor):  # type: ignore[attr-defined]
            return False
        return bool(tensor.data_ptr()) or not tensor.numel()
    except RuntimeError:
        return False


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
