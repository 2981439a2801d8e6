"""Long trainings and large studies take no more memory in the end than at their beginning."""

import resource
from pathlib import Path

import torch
from torch import nn

import redense
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder


def resident():
    """MB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def two_layers(width):
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(4, 5)).square().sum().backward()
    optimizer.step()


def test_a_training_of_1000_short_epochs_does_not_grow(tmp_path):
    plan = redense.dsd(dense=400, sparse=300, redense=300, sparsity=0.5)
    config = RunConfig(function="train", plan=plan.to_records(), seed=0)
    run = redense.Run(RunFolder.create(tmp_path / "run", config), quiet=True)
    model, optimizer = two_layers(width=2000)  # 0.13 MB a checkpoint: kept, they would be 115
    for epoch in run.epochs(model, optimizer):
        step(model, optimizer)
        run.log(loss=1.0)
        if epoch == 100:
            before = resident()
    assert epoch == 999
    assert resident() - before < 20


def test_a_study_of_100_runs_does_not_grow(tmp_path):
    def train(run):
        with (tmp_path / "sizes").open("a") as file:
            print(resident(), file=file)
        model, optimizer = two_layers(width=10_000)  # 0.6 MB a checkpoint: kept, they would be 100
        for _ in run.epochs(model, optimizer):
            step(model, optimizer)
        return 1.0 + run.seed

    plan = redense.dsd(dense=1, sparse=1, redense=1, sparsity=0.5)
    methods = ("dense", "lower_lr", "pruned", "dsd")
    study = redense.prove(train, plan, seeds=25, methods=methods, out=tmp_path / "study", jobs=1)
    sizes = [float(line) for line in (tmp_path / "sizes").read_text().splitlines()]
    assert len(study.records) == len(sizes) == 100
    assert sizes[-1] - sizes[20] < 20
