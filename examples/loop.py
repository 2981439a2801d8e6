"""Dense-Sparse-Dense training in a loop of your own: a small network learns three spirals in some
seconds.

You should see the plan and one line a phase: in the sparse phase half of the weights of the two
later layers are exactly zero, after re-dense none is, and the accuracy stays near 98 %. Whether it
helped is a question for many seeds.
"""

import torch
from torch import nn

import redense


def spirals(rows, seed):
    """Points (rows, 2) on three noisy spirals, and which spiral each is on (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (rows,), generator=generator)
    radius = torch.rand(rows, generator=generator)
    angle = 4 * radius + arm * 2 * torch.pi / 3 + 0.25 * torch.randn(rows, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
x, y = spirals(600, seed=0)
x_valid, y_valid = spirals(2000, seed=1)

plan = redense.dsd(
    dense=60, sparse=40, redense=40, sparsity=0.5
)  # in epochs; re-dense trains at a tenth of the rate
phases = redense.PhaseScheduler(
    model, optimizer, plan, exclude="0.*"
)  # two input weights a unit are few enough
rates = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor)
print(plan, "\n")

for epoch in range(len(plan)):
    for rows in torch.randperm(len(x)).split(50):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()

    if epoch + 1 in (
        *plan.starts,
        len(plan),
    ):  # a phase ends; look before step() opens the next one
        accuracy = (model(x_valid).argmax(1) == y_valid).float().mean()
        later = torch.cat([model[layer].weight.flatten() for layer in (2, 4)])
        zeros = (later == 0).float().mean()
        print(
            f"{phases.phase.name:8} until epoch {epoch + 1:3}: {zeros:4.0%} zeros, validation "
            f"accuracy {accuracy:.1%}"
        )

    phases.step()
    rates.step()
