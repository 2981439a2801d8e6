"""Dense-Sparse-Dense training on two processes: ``torchrun --nproc-per-node 2 torchrun_ddp.py``. A
small network learns three spirals in some seconds; each process trains on its half of the rows.

You should see the plan and one line per phase: half of the later layers' weights are zero in the
sparse phase and none after it. Every process chooses the same masks, since all hold equal weights.
"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import redense


def spirals(rows, seed):
    """Points (rows, 2) on three noisy spirals, and which spiral each is on (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (rows,), generator=generator)
    radius = torch.rand(rows, generator=generator)
    angle = 4 * radius + arm * 2 * torch.pi / 3 + 0.25 * torch.randn(rows, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


distributed.init_process_group("gloo")
rank, processes = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
wrapped = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
x, y = spirals(600, seed=0)
x_valid, y_valid = spirals(2000, seed=1)

plan = redense.dsd(dense=30, sparse=15, redense=15, sparsity=0.5)
phases = redense.PhaseScheduler(model, optimizer, plan, exclude="0.*")
rates = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor)
if rank == 0:
    print(plan, "\n")

for epoch in range(len(plan)):
    for rows in torch.randperm(len(x)).split(50):  # the same order everywhere: one seed
        mine = rows[rank::processes]
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(x[mine]), y[mine]).backward()
        optimizer.step()
    if rank == 0 and epoch + 1 in (*plan.starts, len(plan)):
        accuracy = (model(x_valid).argmax(1) == y_valid).float().mean()
        later = torch.cat([model[layer].weight.flatten() for layer in (2, 4)])
        zeros = (later == 0).float().mean()
        print(f"{phases.phase.name:8} {zeros:4.0%} zeros, accuracy {accuracy:.1%}")
    phases.step()
    rates.step()
distributed.destroy_process_group()
