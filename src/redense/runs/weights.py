"""A network's weights as a run sees them: whole, counted and hashed, sharded ones included."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from redense.tensors.sharded import shard_of


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole, contiguous tensors; of a sharded network every rank must ask and
    rank 0 gets it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # a sharded network has imported it
    if fsdp is not None and isinstance(network, fsdp.FSDPModule):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole = get_model_state_dict(network, options=options)
        return cast("dict[str, Tensor]", whole)
    state = network.state_dict().items()
    return {name: value.contiguous() for name, value in state if isinstance(value, Tensor)}


@torch.no_grad()
def count_zeros(weight: Tensor) -> int:
    """How many elements are exactly zero; of a sharded tensor the ranks' counts are added up."""
    local, group = shard_of(weight)
    zeros = (local == 0).sum()
    if group is not None:
        dist.all_reduce(zeros, group=group)
    return int(zeros)


def share_of_zeros(weights: Iterable[Tensor]) -> float:
    """Zeros among all elements of some weights, 0 to 1."""
    listed = list(weights)
    return sum(map(count_zeros, listed)) / sum(weight.numel() for weight in listed)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A hash over names, shapes and bytes of every tensor of a state dict, in its order."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
