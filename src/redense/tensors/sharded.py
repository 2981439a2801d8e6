"""Everything that knows sharded tensors (FSDP2's ``DTensor``): parts, layouts and groups of ranks.

``torch.distributed.tensor`` takes most of a second to import, so it is imported only where a
program that shards its tensors has done so already.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def is_sharded(tensor: Any) -> bool:
    """Whether ``tensor`` is a DTensor, spread over ranks or replicated on them."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_flattened(tensor: Tensor) -> bool:
    """Whether FSDP1 (``FullyShardedDataParallel``) owns ``tensor``: its flat shard of many weights,
    or a view of one."""
    module = sys.modules.get("torch.distributed.fsdp._common_utils")
    return module is not None and bool(module._is_fsdp_flattened(tensor))


def shard_of(tensor: Any) -> tuple[Tensor, Any]:
    """This rank's part of ``tensor`` and the group it is sharded over, None for a plain or
    replicated tensor.

    Shards of the first dimension (FSDP2) are supported, since rank order is index order there.
    """
    if not is_sharded(tensor):
        return tensor.detach(), None
    from torch.distributed.tensor import Shard

    group = None
    for dimension, placement in enumerate(placements(tensor)):
        if placement.is_replicate():
            continue
        if type(placement) is not Shard or placement.dim != 0 or group is not None:
            raise NotImplementedError(
                f"masks need a tensor that is replicated or sharded once, over its first "
                "dimension, "
                f"got placements {placements(tensor)}; exclude this tensor or shard it with "
                "fully_shard"
            )
        group = tensor.device_mesh.get_group(dimension)
    local: Tensor = tensor.detach().to_local()
    return local, group


def placements(tensor: Any) -> Any:
    """How a sharded tensor lies on its mesh; None for a plain one."""
    return tensor.placements if is_sharded(tensor) else None


def replicas(tensor: Any, group: Any) -> list[Any]:
    """The groups whose ranks hold the same part of ``tensor``; ``group`` for a plain one."""
    if not is_sharded(tensor):
        return [group]
    return [
        tensor.device_mesh.get_group(dimension)
        for dimension, placement in enumerate(tensor.placements)
        if placement.is_replicate()
    ]


def lay_out(flat: Tensor, like: Any) -> Tensor:
    """``flat``, in index order, as a tensor of the shape, memory layout and sharding of
    ``like``."""
    local = shard_of(like)[0]
    laid = flat.view(local.shape)
    if not local.is_contiguous():
        laid = torch.empty_like(local, dtype=flat.dtype).copy_(laid)
    if not is_sharded(like):
        return laid
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        laid,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def gather(row: Tensor, group: Any) -> Tensor:
    """(ranks, len(row)): every rank's row in rank order."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, row, group=group)
    return torch.stack(rows)


def numels(local: Tensor, group: Any) -> list[int]:
    """How many elements each rank of ``group`` holds."""
    own = torch.tensor([local.numel()], device=local.device)
    counts: list[int] = gather(own, group).view(-1).tolist()
    return counts
