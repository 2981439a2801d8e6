"""Bytes that choosing masks of sharded weights sends, by size of the weights: two processes on this
machine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

import redense

from .measure import machine, seconds


def traffic(sizes: list[int], ranks: int = 2) -> dict[str, Any]:
    """Collectives, and bytes that one rank hands to them, to choose a mask of each size and
    kind."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(_rank, (ranks, Path(folder), sizes), ranks)
        rows = json.loads((Path(folder) / "rows.json").read_text())
    return {"ranks": ranks, "rows": rows, "machine": machine()}


def _rank(rank: int, ranks: int, folder: Path, sizes: list[int]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks
    )
    mesh = init_device_mesh("cpu", (ranks,))
    sent: list[int] = []
    reduce, gather = dist.all_reduce, dist.all_gather

    def counted_reduce(tensor: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        sent.append(tensor.nbytes)
        return reduce(tensor, *arguments, **named)

    def counted_gather(
        tensors: list[torch.Tensor], tensor: torch.Tensor, *arguments: Any, **named: Any
    ) -> Any:
        sent.append(tensor.nbytes)
        return gather(tensors, tensor, *arguments, **named)

    dist.all_reduce, dist.all_gather = counted_reduce, counted_gather
    rows = []
    for size in sizes:
        torch.manual_seed(0)
        weight = distribute_tensor(torch.randn(size // 256, 256), mesh, [Shard(0)])
        for kind in ("magnitude", "random", "global"):
            sent.clear()
            taken = seconds(
                lambda weight=weight, kind=kind: redense.build_masks({"weight": weight}, 0.3, kind)
            )
            rows.append(
                {
                    "kind": kind,
                    "weight_bytes": 4 * size,
                    "sent_bytes": sum(sent),
                    "collectives": len(sent),
                    "seconds": taken,
                }
            )
    if rank == 0:
        (folder / "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=lambda text: [int(float(size)) for size in text.split(",")], required=True
    )
    print(json.dumps(traffic(parser.parse_args().sizes)))
