"""Zero the pruned elements of a tensor: what a sparse phase does to each gradient at each step, so
it must be fast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from .packing import pack_bits

try:
    from ._kernels import zero_by_bits as kernel
except ImportError:  # installed without a C compiler that knows OpenMP
    kernel = None  # type: ignore[assignment]

_LARGE = 1 << 24  # elements: from here on a launch of its own costs nothing beside its work
_CHUNK = 1 << 20  # elements: of 2^15 to 2^23 the fastest, on one thread and on two
_PLAIN = (Tensor, nn.Parameter)
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Kept:
    """A mask, ready for many tensors of its shape: what a sparse phase has of each weight.

    >>> kept = Kept(torch.tensor([True, False]))
    >>> kept.zero_(torch.tensor([1.0, float("nan")]))
    tensor([1., 0.])

    For the compiled kernel it is kept as one bit an element too, in the order of its memory; of a
    mask that is written to in place later, those are made anew.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.packed: tuple[int, int, Tensor] | None = None
        ordinary = type(mask) is Tensor and mask.is_cpu and not mask.is_inference()
        self.shape, self.count = mask.shape, mask.numel()
        self.stride = mask.stride() if ordinary and _gapless(mask) else None
        self.contiguous = ordinary and mask.is_contiguous()

    def zero_(self, tensor: Tensor) -> Tensor:
        """Set ``tensor`` to exactly +0.0 where the mask is False, in place; NaN and infinities too.

        Autograd does not record it. On a CPU a compiled kernel does it, if redense was installed
        where there is a C compiler with OpenMP (GCC): one pass, where torch's operations take two.

        Raises:
            RuntimeError: the mask is of another shape or on another device.
        """
        if not self._fits(tensor):
            return zero_pruned_plain_(tensor, self.mask)
        packed = self.packed
        if packed is None or packed[0] != self.mask._version:
            packed = self._pack()
        kernel(
            tensor.data_ptr(),
            packed[1],
            self.count,
            tensor.element_size(),
            torch.get_num_threads(),
        )
        increment_version(tensor)
        return tensor

    def _fits(self, tensor: Tensor) -> bool:
        """Whether the tensor is this process's own bytes, without gaps and in the mask's order:
        what the kernel must not get wrong."""
        if type(tensor) not in _PLAIN or kernel is None:
            return False  # a subclass may have no memory
        if not tensor.is_cpu or tensor.shape != self.shape:
            return False
        return tensor.stride() == self.stride or (self.contiguous and tensor.is_contiguous())

    def _pack(self) -> tuple[int, int, Tensor]:
        """The mask as it is now, a bit an element: its version, their address and themselves, which
        change together, for another thread may ask in the same moment."""
        version = self.mask._version
        bits = pack_bits(self.mask.as_strided((self.count,), (1,)))
        self.packed = packed = (version, bits.data_ptr(), bits)
        return packed


def zero_pruned_(tensor: Tensor, mask: Tensor) -> Tensor:
    """`Kept.zero_` with a mask that is used once."""
    if _in_one_storage(tensor, mask):  # torch says which of them cannot be
        return zero_pruned_plain_(tensor, mask)
    return Kept(mask).zero_(tensor)


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


def zero_all_pruned_(pairs: Iterable[tuple[Tensor, Kept]]) -> None:
    """`Kept.zero_` of many (tensor, kept): on an accelerator of all at once, two calls for 300
    small tensors as for three, which CUDA launches in parts of 64.

    Nothing waits for the device: a CUDA graph may hold it.
    """
    alike: dict[tuple[torch.device, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for tensor, kept in pairs:
        small = tensor.numel() < _LARGE and tensor.stride() == kept.mask.stride()
        if tensor.is_cpu or not small or type(tensor) not in _PLAIN:
            kept.zero_(tensor)
        else:
            alike[tensor.device, tensor.element_size()].append((tensor, kept.mask))
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


def _in_one_storage(tensor: Tensor, mask: Tensor) -> bool:
    ordinary = type(tensor) in _PLAIN and type(mask) is Tensor and tensor.is_cpu and mask.is_cpu
    if not ordinary:
        return False
    return tensor.untyped_storage().data_ptr() == mask.untyped_storage().data_ptr()


def _same_order(tensor: Tensor, mask: Tensor) -> bool:
    """Whether both lie in memory in the same order and without gaps, as any two dense tensors of
    one layout do."""
    if tensor.is_contiguous() and mask.is_contiguous():
        return True
    return tensor.stride() == mask.stride() and _gapless(tensor)


def _gapless(tensor: Tensor) -> bool:
    """Whether its elements fill a piece of memory, each once: channels_last does."""
    return tensor.stride() == torch.empty_like(tensor, device="meta").stride()
