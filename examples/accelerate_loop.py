"""Dense-Sparse-Dense training with Accelerate: alone by ``python``, or on two processes, CPUs
included, by ``accelerate launch --multi_gpu --num_processes 2``. A small network learns three
spirals in some seconds.

You should see the plan, how many processes train, and one line per phase: half of the later layers'
weights are zero in the sparse phase and none after it. The schedule of rates is not prepared:
Accelerate would step it once per process, and the plan counts epochs.
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import redense


def spirals(rows, seed):
    """Points (rows, 2) on three noisy spirals, and which spiral each is on (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (rows,), generator=generator)
    radius = torch.rand(rows, generator=generator)
    angle = 4 * radius + arm * 2 * torch.pi / 3 + 0.25 * torch.randn(rows, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
loader = DataLoader(TensorDataset(*spirals(600, seed=0)), batch_size=50, shuffle=True)
wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
x_valid, y_valid = spirals(2000, seed=1)

plan = redense.dsd(dense=30, sparse=15, redense=15, sparsity=0.5)
phases = redense.PhaseScheduler(model, optimizer, plan, exclude="0.*")
rates = torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, plan.lr_factor)
accelerator.print(f"{plan}\n\nprocesses: {accelerator.num_processes}")

for epoch in range(len(plan)):
    for x, y in loader:
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(wrapped(x), y))
        optimizer.step()
    if epoch + 1 in (*plan.starts, len(plan)):
        accuracy = (model(x_valid).argmax(1) == y_valid).float().mean()
        later = torch.cat([model[layer].weight.flatten() for layer in (2, 4)])
        zeros = (later == 0).float().mean()
        accelerator.print(f"{phases.phase.name:8} {zeros:4.0%} zeros, accuracy {accuracy:.1%}")
    phases.step()
    rates.step()
