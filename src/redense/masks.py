"""Which weights of a tensor are kept: pure functions from weights and a sparsity to bool masks,
True = kept.

Every mask has exactly ``round(sparsity * n)`` False elements. Among equal magnitudes the lower
index is pruned first, as a stable sort would have it. Sharded tensors (FSDP2) give masks sharded
alike; only counts cross the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate

from .plan import check_sparsity
from .tensors.keys import GOLDEN, gather, magnitude_keys, random_keys, scramble, shard_of
from .tensors.selection import keep_largest

MaskFunction = Callable[[Tensor, float], Tensor]


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Keep the weights of largest magnitude: the paper's criterion, one tensor at a time.

    Args:
        weight: of any shape; float16, bfloat16, float32 or float64.
        sparsity: share to prune, in [0, 1).

    Returns:
        A bool tensor of ``weight``'s shape and layout, False for exactly ``round(sparsity *
        weight.numel())`` elements.

    >>> magnitude_mask(torch.tensor([0.1, -3.0, 2.0, -0.2]), 0.5)
    tensor([False,  True,  True, False])
    """
    pruned = round(check_sparsity(sparsity) * weight.numel())
    return _like(weight, keep_largest([magnitude_keys(weight)], pruned, weight.numel())[0])


def random_mask(weight: Tensor, sparsity: float, *, seed: int = 0) -> Tensor:
    """Keep weights at random: the control that shows what magnitude itself contributes.

    The choice is a hash of ``seed``, the index and the weights' own bits, so that it is the same on
    every rank, differs from layer to layer and run to run, and touches no random generator.
    """
    pruned = round(check_sparsity(sparsity) * weight.numel())
    return _like(weight, keep_largest([random_keys(weight, seed)], pruned, weight.numel())[0])


def global_magnitude_masks(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Keep the largest magnitudes of all tensors taken together; layers end with different
    sparsity.

    The count is exact over the whole: ``round(sparsity * total)``; ties go to the earlier tensor,
    then the lower index.
    """
    total = sum(weight.numel() for weight in weights.values())
    pruned = round(check_sparsity(sparsity) * total)
    kinds = {weight.dtype for weight in weights.values()}
    if len(kinds) > 1:
        raise TypeError(
            f"global magnitudes need weights of one dtype, got {', '.join(sorted(map(str, kinds)))}"
        )
    keys = {name: _named(name, magnitude_keys, weight) for name, weight in weights.items()}
    try:
        kept = keep_largest(list(keys.values()), pruned, total)
    except ValueError:
        for name, source in keys.items():  # say which tensor it was
            _named(
                name, keep_largest, [source], min(1, weights[name].numel()), weights[name].numel()
            )
        raise
    return {name: _like(weights[name], flat) for name, flat in zip(keys, kept, strict=True)}


def build_masks(
    weights: Mapping[str, Tensor], sparsity: float, mask: str | MaskFunction = "magnitude"
) -> dict[str, Tensor]:
    """A mask a weight: by a name of `MASKS`, by ``global`` or by any function ``(weight, sparsity)
    -> mask``."""
    if mask == "global":
        return global_magnitude_masks(weights, sparsity)
    if isinstance(mask, str) and mask not in MASKS:
        raise ValueError(
            f"mask must be one of {', '.join([*MASKS, 'global'])} or a function, got {mask!r}"
        )
    choose = MASKS[mask] if isinstance(mask, str) else mask
    masks = {name: _named(name, choose, weight, sparsity) for name, weight in weights.items()}
    for name, made in masks.items():
        if (
            not isinstance(made, Tensor)
            or made.dtype != torch.bool
            or made.shape != weights[name].shape
        ):
            found = (
                f"{made.dtype} {tuple(made.shape)}"
                if isinstance(made, Tensor)
                else type(made).__name__
            )
            raise TypeError(
                f"{name}: a mask must be a bool tensor of the weight's shape "
                f"{tuple(weights[name].shape)}, got {found}"
            )
        if _placements(made) != _placements(weights[name]):
            raise TypeError(
                f"{name}: a mask must be sharded as its weight is, {_placements(weights[name])}, "
                f"got {_placements(made)}"
            )
    return masks


MASKS: dict[str, MaskFunction] = {"magnitude": magnitude_mask, "random": random_mask}


def pack(mask: Tensor) -> Tensor:
    """The mask as one bit a weight: uint8, ``ceil(n / 8)`` long, the first weight in the lowest
    bit.

    Of a sharded mask every rank gets the whole, so all of them must call this; only bits cross the
    network.
    """
    local, group = shard_of(mask)
    if group is None:
        return _pack(local)
    numels = _numels(local, group)
    own = _pack(local)
    parts = gather(torch.nn.functional.pad(own, (0, -(-max(numels) // 8) - own.numel())), group)
    return _pack(
        torch.cat([_flags(part)[:numel] for part, numel in zip(parts, numels, strict=True)])
    )


def unpack(packed: Tensor, like: Tensor) -> Tensor:
    """The mask that `pack` stored, laid out as ``like``; of a sharded ``like`` each rank takes its
    part."""
    local, group = shard_of(like)
    start = 0 if group is None else sum(_numels(local, group)[: dist.get_rank(group)])
    stop = start + local.numel()
    bits = packed[start // 8 : -(-stop // 8)].to(like.device)
    return _like(like, _flags(bits)[start % 8 :][: local.numel()])


def check_agreement(masks: Mapping[str, Tensor], group: Any = None) -> None:
    """Raise RuntimeError, on every rank of ``group``, if ranks that hold the same weights hold
    different masks.

    One 64-bit hash a tensor crosses the network: over ``group`` for plain tensors (DDP), over the
    replicated dimensions of its mesh for a sharded one.
    """
    if not dist.is_initialized() or dist.get_world_size(group) == 1 or not masks:
        return
    hashed: dict[Any, dict[str, Tensor]] = {}
    for name, mask in masks.items():
        for replicas in _replicas(mask, group):
            hashed.setdefault(replicas, {})[name] = _hash(mask)
    differ = torch.zeros(
        len(masks), dtype=torch.int64, device=shard_of(next(iter(masks.values())))[0].device
    )
    names = list(masks)
    for replicas, hashes in hashed.items():
        lowest = torch.stack(list(hashes.values()))
        highest = lowest.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN, group=replicas)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=replicas)
        differ[[names.index(name) for name in hashes]] += (lowest != highest).long()
    dist.all_reduce(differ, group=group)
    if different := [name for name, found in zip(names, differ.tolist(), strict=True) if found]:
        raise RuntimeError(
            f"ranks disagree on the mask of {different[0]!r} and of {len(different) - 1} more: "
            "their weights differ; "
            f"broadcast the model from rank 0 before the sparse phase"
        )


def _replicas(mask: Tensor, group: Any) -> list[Any]:
    """The groups whose ranks hold the same part of ``mask``."""
    if not isinstance(mask, DTensor):
        return [group]
    placed = enumerate(mask.placements)
    return [
        mask.device_mesh.get_group(dimension)
        for dimension, place in placed
        if isinstance(place, Replicate)
    ]


def _hash(mask: Tensor) -> Tensor:
    packed = _pack(shard_of(mask)[0])
    words = torch.nn.functional.pad(packed, (0, -packed.numel() % 8)).view(torch.int64)
    return scramble(
        words.add_(torch.arange(1, words.numel() + 1, device=words.device).mul_(GOLDEN))
    ).sum()


def _pack(mask: Tensor) -> Tensor:
    flat = mask.reshape(-1).view(torch.uint8)
    eights = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(torch.int64)
    return ((eights * 0x0102_0408_1020_4080) >> 56).to(
        torch.uint8
    )  # the top byte gathers eight bytes' lowest bits


def _flags(packed: Tensor) -> Tensor:
    bits = packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)
    return bits.bitwise_and_(1).view(-1).bool()


def _numels(local: Tensor, group: Any) -> list[int]:
    """How many elements each rank of ``group`` holds."""
    numels: list[int] = (
        gather(torch.tensor([local.numel()], device=local.device), group).view(-1).tolist()
    )
    return numels


def _placements(tensor: Tensor) -> Any:
    return tensor.placements if isinstance(tensor, DTensor) else None


def _named(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(f"{name}: {error}") from error


def _like(weight: Tensor, flat: Tensor) -> Tensor:
    """``flat``, in index order, as a tensor of ``weight``'s shape, memory layout and sharding."""
    local = shard_of(weight)[0]
    mask = flat.view(local.shape)
    if not local.is_contiguous():
        mask = torch.empty_like(local, dtype=torch.bool).copy_(mask)
    if isinstance(weight, DTensor):
        return DTensor.from_local(
            mask,
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )
    return mask
