"""Weight decay by phase: a factor of the groups' own, in the steps and nowhere else."""

import pytest
import torch
from torch import nn

import redense
from redense.runs.configuration import RunConfig
from redense.runs.decay import WeightDecay
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out

PLAN = redense.dsd(dense=1, sparse=1, redense=1, sparsity=0.5)


def used(groups, factor):
    """The weight decays that a step trains with."""
    optimizer = torch.optim.SGD(groups, lr=0.1)
    decay = WeightDecay([optimizer])
    decay.factor = factor
    seen = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: seen.extend(group["weight_decay"] for group in opt.param_groups)
    )
    optimizer.step()
    decay.remove()
    return seen, [group["weight_decay"] for group in optimizer.param_groups]


def groups_of(*decays):
    return [{"params": [nn.Parameter(torch.ones(2))], "weight_decay": decay} for decay in decays]


def test_groups_are_multiplied_and_those_without_stay_without():
    assert used(groups_of(0.01, 0.0), 3.0) == ([pytest.approx(0.03), 0.0], [0.01, 0.0])


def test_where_no_group_has_any_the_factor_counts_in_1e_4():
    assert used(groups_of(0.0, 0.0), 5.0) == ([pytest.approx(5e-4)] * 2, [0.0, 0.0])
    assert used(groups_of(0.0), 1.0) == ([0.0], [0.0])


def test_an_optimizer_without_weight_decay_is_refused():
    with pytest.raises(ValueError, match="LBFGS knows no weight decay"):
        WeightDecay([torch.optim.LBFGS([nn.Parameter(torch.ones(2))])])


def test_a_run_decays_by_phase_and_its_weights_may_be_named(tmp_path):
    def train(run):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
        seen = []
        handles = []
        for _ in run.epochs(model, optimizer):
            if not handles:  # behind the loop's own hooks
                handles.append(
                    optimizer.register_step_pre_hook(
                        lambda opt, *_: seen.append(opt.param_groups[0]["weight_decay"])
                    )
                )
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            run.log(decay=seen[-1], zeros=float((model[0].weight == 0).sum()))
        assert optimizer.param_groups[0]["weight_decay"] == 0.01
        return 1.0

    config = RunConfig(
        function="train", plan=PLAN.to_records(), weight_decay=[1.0, 4.0, 0.5], include=["1.*"]
    )
    record = carry_out(train, redense.Run(RunFolder.create(tmp_path / "run", config), quiet=True))
    assert [row["decay"] for row in record["history"]] == pytest.approx([0.01, 0.04, 0.005])
    assert {row["zeros"] for row in record["history"]} == {0.0}
    assert record["history"][1]["sparsity"] == pytest.approx(0.5)
    assert list(record["prunable"]) == ["1.weight"]


def test_a_factor_for_each_phase_is_needed():
    with pytest.raises(ValueError, match="one factor for each of the 3 phases, got 2"):
        RunConfig(plan=PLAN.to_records(), weight_decay=[1.0, 2.0])
