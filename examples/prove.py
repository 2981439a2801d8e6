"""Does dense-sparse-dense help a loop of your own? A study of 3 methods and 8 seeds, in a minute.

You should see a table with a row per method, then the verdict in words.
"""

import torch
from torch import nn
from torch.nn import functional as F

import redense


def spirals(many, seed):
    """Three noisy spirals: points (N, 2) and their labels (N,)."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (many,), generator=noise)
    radius = torch.rand(many, generator=noise)
    angle = 4 * radius + 2.1 * labels + 0.3 * torch.randn(many, generator=noise)
    return radius.unsqueeze(1) * torch.stack([angle.sin(), angle.cos()], 1), labels


def accuracy(model, points, labels):
    return 100 * (model(points).argmax(1) == labels).float().mean().item()


def train(run):
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    points, labels = spirals(300, seed=1)
    for _ in run.epochs(model, optimizer):
        for batch in torch.randperm(300).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(points[batch]), labels[batch]).backward()
            optimizer.step()
        run.log(top1=accuracy(model, *spirals(300, seed=2)))
    valid = {"top1": accuracy(model, *spirals(300, seed=2))}
    return {"valid": valid, "test": lambda: {"top1": accuracy(model, *spirals(1000, seed=3))}}


if __name__ == "__main__":
    plan = redense.dsd(dense=10, sparse=5, redense=5, sparsity=0.5)
    methods = ("dense", "lower_lr", "dsd")
    print(redense.prove(train, plan, seeds=8, methods=methods, out="runs/spirals"))
