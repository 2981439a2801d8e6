"""Dense-Sparse-Dense fine-tuning of a timm model: a tiny vision transformer tells stripes apart.

You should see what may be held, the plan and one line per phase: 30 % of the blocks' weights are
zero in the sparse phase and none after it. ``pretrained=True`` and your pictures make it real; a
fine-tuning starts from a trained model, so the plan has no dense phase.
"""

import timm
import torch
from torch import nn

import redense


def stripes(rows, seed):
    """Noisy pictures (rows, 3, 16, 16) with stripes, and which way they run (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    way = torch.randint(2, (rows,), generator=generator)
    wave = torch.sin(torch.arange(16) * torch.pi / 2).expand(rows, 3, 16, 16)
    pictures = torch.where(way.view(-1, 1, 1, 1) == 1, wave, wave.transpose(2, 3))
    return pictures + torch.randn(rows, 3, 16, 16, generator=generator), way


torch.manual_seed(0)
model = timm.create_model(
    "vit_tiny_patch16_224",
    pretrained=False,
    num_classes=2,
    img_size=16,
    patch_size=4,
    embed_dim=24,
    depth=2,
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
x, y = stripes(400, seed=0)
x_valid, y_valid = stripes(400, seed=1)

plan = redense.dsd(dense=0, sparse=4, redense=4, sparsity=0.3)
phases = redense.PhaseScheduler(model, optimizer, plan, include="blocks.*")
rates = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor)
held = redense.prunable(model, include="blocks.*")
print(plan, f"\n\n{held}\n")

for epoch in range(len(plan)):
    for rows in torch.randperm(len(x)).split(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    if epoch + 1 in (*plan.starts[1:], len(plan)):
        with torch.no_grad():
            accuracy = (model.eval()(x_valid).argmax(1) == y_valid).float().mean()
        model.train()
        blocks = torch.cat([weight.flatten() for weight in held.values()])
        zeros = (blocks == 0).float().mean()
        print(f"{phases.phase.name:8} {zeros:4.0%} zeros, accuracy {accuracy:.1%}")
    phases.step()
    rates.step()
