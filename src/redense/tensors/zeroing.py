"""Zero the pruned elements of a tensor: what a sparse phase does to each gradient at each step, so
it must be fast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

try:
    from ._kernels import zero_pruned as kernel
except ImportError:  # installed without a C compiler that knows OpenMP
    kernel = None  # type: ignore[assignment]

_LARGE = 1 << 24  # elements: from here on a launch of its own costs nothing beside its work
_CHUNK = 1 << 20  # elements: of 2^15 to 2^23 the fastest, on one thread and on two
_PLAIN = (Tensor, nn.Parameter)
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_pruned_(tensor: Tensor, mask: Tensor) -> Tensor:
    """Set ``tensor`` to exactly +0.0 where ``mask`` is False, in place; NaN and infinities too.

    Autograd does not record it. On a CPU a compiled kernel does it, if redense was installed where
    there is a C compiler with OpenMP (GCC): one pass, where torch's operations take two.

    Raises:
        RuntimeError: ``mask`` is of another shape or on another device.
    """
    if kernel is None or not _in_own_memory(tensor, mask) or not _same_order(tensor, mask):
        return zero_pruned_plain_(tensor, mask)
    threads = torch.get_num_threads()
    kernel(tensor.data_ptr(), mask.data_ptr(), tensor.numel(), tensor.element_size(), threads)
    increment_version(tensor)
    return tensor


@torch.no_grad()
def zero_pruned_plain_(tensor: Tensor, mask: Tensor) -> Tensor:
    """The same in torch's own operations, on any device: the reference, and what runs where nothing
    was compiled.

    Multiplies the bits, as integers, by 0 or 1. On a CPU torch first widens the whole mask to the
    tensor's type; a chunk of it at a time stays in the cache, which is six to ten times faster.
    """
    integer = _INTEGER[tensor.element_size()]
    if not tensor.is_cpu or tensor.numel() <= _CHUNK:
        tensor.view(integer).mul_(mask)
    elif tensor.shape != mask.shape or not _same_order(tensor, mask):
        tensor.masked_fill_(~mask, 0)
    else:
        flat = (part.as_strided((part.numel(),), (1,)) for part in (tensor.view(integer), mask))
        for bits, kept in zip(*(torch.split(part, _CHUNK) for part in flat), strict=True):
            bits.mul_(kept)
    return tensor


def zero_all_pruned_(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """`zero_pruned_` of many (tensor, mask): on an accelerator of all at once, two calls for 300
    small tensors as for three, which CUDA launches in parts of 64.

    Nothing waits for the device: a CUDA graph may hold it.
    """
    alike: dict[tuple[torch.device, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for tensor, mask in pairs:
        small = tensor.numel() < _LARGE and tensor.stride() == mask.stride()
        if tensor.is_cpu or not small or type(tensor) not in _PLAIN:
            zero_pruned_(tensor, mask)
        else:
            alike[tensor.device, tensor.element_size()].append((tensor, mask))
    for several in alike.values():
        zero_foreach_(several)


@torch.no_grad()
def zero_foreach_(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """The same for tensors of one device and element size, each laid out as its mask.

    Masks are widened to the tensors' size first, for torch multiplies lists of one type at once,
    and those of several types one by one; never more than ``_LARGE`` elements of them at a time.
    """
    for some in _parts(pairs):
        bits = [tensor.view(_INTEGER[tensor.element_size()]) for tensor, _ in some]
        kept = [torch.empty_like(one) for one in bits]
        torch._foreach_copy_(kept, [mask for _, mask in some])
        torch._foreach_mul_(bits, kept)


def _parts(pairs: list[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    part: list[tuple[Tensor, Tensor]] = []
    room = _LARGE
    for tensor, mask in pairs:
        if part and tensor.numel() > room:
            yield part
            part, room = [], _LARGE
        part.append((tensor, mask))
        room -= tensor.numel()
    if part:
        yield part


def _in_own_memory(tensor: Tensor, mask: Tensor) -> bool:
    """Whether both are this process's own bytes, as many of one as of the other: what the kernel
    must not get wrong."""
    ordinary = type(tensor) in _PLAIN and type(mask) is Tensor  # a subclass may have no memory
    return ordinary and tensor.is_cpu and mask.is_cpu and tensor.shape == mask.shape


def _same_order(tensor: Tensor, mask: Tensor) -> bool:
    """Whether both lie in memory in the same order and without gaps, as any two dense tensors of
    one layout do."""
    if tensor.is_contiguous() and mask.is_contiguous():
        return True
    return (
        tensor.stride() == mask.stride() == torch.empty_like(tensor, device="meta").stride()
    )  # channels_last
