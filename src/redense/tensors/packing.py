"""Masks as one bit per weight, for checkpoints and the network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from .keys import chunk_size
from .sharded import gather, lay_out, numels, shard_of

try:
    from ._kernels import pack_bits as kernel
except ImportError:  # installed without a C compiler that knows OpenMP
    kernel = None  # type: ignore[assignment]


def pack(mask: Tensor) -> Tensor:
    """The mask as one bit per weight: uint8, ``ceil(n / 8)`` long, the first weight in the lowest
    bit.

    Of a sharded mask every rank gets the whole, so all of them must call this; only bits cross the
    network.
    """
    local, group = shard_of(mask)
    if group is None:
        return pack_bits(local)
    counts = numels(local, group)
    own = pack_bits(local)
    parts = gather(torch.nn.functional.pad(own, (0, -(-max(counts) // 8) - own.numel())), group)
    return pack_bits(
        torch.cat([_flags(part)[:count] for part, count in zip(parts, counts, strict=True)])
    )


def unpack(packed: Tensor, like: Tensor) -> Tensor:
    """The mask that `pack` stored, laid out as ``like``; of a sharded ``like`` each rank takes its
    part."""
    local, group = shard_of(like)
    start = 0 if group is None else sum(numels(local, group)[: dist.get_rank(group)])
    stop = start + local.numel()
    bits = packed[start // 8 : -(-stop // 8)].to(like.device)
    return lay_out(_flags(bits)[start % 8 :][: local.numel()], like)


def pack_bits(mask: Tensor) -> Tensor:
    """`pack` of what this rank has. Any byte but zero is a True."""
    flat = mask.reshape(-1).view(torch.uint8)
    if kernel is None or not flat.is_cpu or type(flat) is not Tensor:
        return pack_bits_plain(flat)
    packed = torch.empty(-(-flat.numel() // 8), dtype=torch.uint8)
    kernel(flat.data_ptr(), packed.data_ptr(), flat.numel())
    return packed


def pack_bits_plain(flat: Tensor) -> Tensor:
    """The same in torch's own operations, of bytes (N,) on any device; a chunk at a time, for eight
    bytes a weight would be too many for all."""
    packed = torch.empty(-(-flat.numel() // 8), dtype=torch.uint8, device=flat.device)
    size = chunk_size(flat.device)  # a multiple of eight
    for start in range(0, flat.numel(), size):
        part = flat[start : start + size].ne(0).view(torch.uint8)
        eights = torch.nn.functional.pad(part, (0, -part.numel() % 8)).view(torch.int64)
        lowest = (eights * 0x0102_0408_1020_4080) >> 56  # of eight bytes, as the top byte
        packed[start // 8 :][: lowest.numel()] = lowest.to(torch.uint8)
    return packed


def _flags(packed: Tensor) -> Tensor:
    """Eight bools a byte."""
    flags = torch.empty(len(packed), 8, dtype=torch.bool, device=packed.device)
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    size = chunk_size(packed.device) // 8
    for start in range(0, len(packed), size):
        part = packed[start : start + size]
        flags[start : start + size] = (part.unsqueeze(1) >> places).bitwise_and_(1)
    return flags.view(-1)
