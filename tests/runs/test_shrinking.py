"""Shrink-and-perturb: what becomes of the weights, and how studies and searches use it."""

import pytest
import torch
from torch import nn

import redense
from redense.recipes.schedule import read_settings
from redense.runs.shrinking import shrink_and_perturb
from redense.search.found import as_toml
from redense.study.methods import build_methods, shared_epochs


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def test_each_weight_is_that_much_of_itself_and_the_rest_a_fresh_one():
    model, initial = network(), network(seed=7)
    model[1].running_mean.fill_(3.0)
    model[1].weight.data.fill_(2.0)
    before = [weight.clone() for weight in model.parameters()]
    drawn = torch.get_rng_state()
    shrink_and_perturb(model, 0.4, seed=7)
    assert torch.equal(torch.get_rng_state(), drawn)
    for weight, old, fresh in zip(model.parameters(), before, initial.parameters(), strict=True):
        torch.testing.assert_close(weight, 0.4 * old + 0.6 * fresh)
    assert (model[1].running_mean == 3).all()


def test_a_module_that_cannot_begin_anew_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(ValueError, match=r"fresh initial values, and 1 \(Scaled\) has no reset"):
        shrink_and_perturb(nn.Sequential(nn.Linear(3, 3), Scaled()), 0.5, seed=0)


def test_a_study_from_a_trained_network_has_it_as_a_control(tmp_path):
    def train(run):
        model = network(seed=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
        for _ in run.epochs(model, optimizer):
            pass
        return float(model[0].weight.detach().double().sum())

    plan = redense.dsd(0, 2, 2, 0.5)
    methods = ("dense", "lower_lr", "shrink_perturb", "dsd")
    study = redense.prove(train, plan, seeds=2, methods=methods, out=tmp_path / "study")
    assert not study.failed
    scores = {(row["method"], row["seed"]): row["score"] for row in study.scores}
    assert scores["shrink_perturb", 0] != scores["shrink_perturb", 1]  # each seed has fresh weights
    expected = network(seed=1)
    shrink_and_perturb(expected, 0.4, seed=1)
    assert scores["shrink_perturb", 1] == pytest.approx(
        float(expected[0].weight.detach().double().sum()), abs=1e-5
    )
    with pytest.raises(ValueError, match="starts from a trained network; leave out the first"):
        build_methods(["shrink_perturb"], {"": redense.dsd(1, 2, 2)})


def test_what_starts_otherwise_shares_no_epoch_and_its_plan_file_says_so(tmp_path):
    built = build_methods(["shrink_perturb", "longer"], {"": redense.dsd(0, 2, 2)})
    assert built["shrink_perturb"].plan == built["longer"].plan
    assert not shared_epochs(built["shrink_perturb"], built["longer"])
    file = tmp_path / "plan.toml"
    file.write_text(as_toml(built["shrink_perturb"]))
    assert read_settings(file) == {"shrink": 0.4}
