"""FSDP2 under Lightning: each rank keeps a shard of every tensor; whole ones exist while they are
computed with."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

_UNIT = 1 << 20  # weights that are worth a message of their own


class Sharded(ModelParallelStrategy):
    """Lightning's FSDP2 over all ranks, with checkpoints of whole tensors in one file, as any
    number of ranks reads."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Shard over every rank, not over machines only."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def on_validation_start(self) -> None:
        """Batch-norm's running statistics are rank 0's, as DDP has it: all validate the network
        that is saved."""
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            dist.broadcast(buffer, 0)


def shard(network: nn.Module, mesh: Any) -> None:
    """Spread the parameters over ``mesh``: large elements of lists and sequences each by itself,
    then the rest.

    A second call changes nothing; Lightning makes one for each of its loops.
    """
    if isinstance(network, FSDPModule):
        return
    network.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
    lists = [
        module for module in network.modules() if isinstance(module, nn.Sequential | nn.ModuleList)
    ]
    for module in (element for several in reversed(lists) for element in several):
        own = [weight for weight in module.parameters() if not hasattr(weight, "device_mesh")]
        if sum(weight.numel() for weight in own) >= _UNIT:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    fully_shard(
        network, mesh=mesh, reshard_after_forward=True
    )  # the optimizer's tensors are the shards
