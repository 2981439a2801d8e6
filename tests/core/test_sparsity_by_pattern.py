"""A sparsity for each pattern of names: what is held then, exactly how many, and what is refused
before any training."""

import copy
import json
import pickle
import tomllib

import pytest
import torch
from torch import nn

import redense
from redense import Phase, PhaseScheduler, Plan, acdc, dsd, spdf
from redense.plan import in_percent, share_of
from redense.walk import Walk

SHARES = {"body.0.weight": 0.25, "body.4.weight": 0, "body.*": 0.6}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv1d(2, 4, 3)
        layers = [[nn.Linear(8, 8), nn.Tanh()] for _ in range(3)]
        self.body = nn.Sequential(*(module for layer in layers for module in layer))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x).flatten(1)))


def zeros(weight):
    return weight.numel() - int(weight.count_nonzero())


def counts(model):
    return {name: zeros(weight) for name, weight in model.named_parameters() if weight.ndim > 1}


def train(model, optimizer, plan, **settings):
    """The zeros of every matrix after each step."""
    phases = PhaseScheduler(model, optimizer, plan, **settings)
    seen = []
    for _ in range(len(plan)):
        optimizer.zero_grad()
        model(torch.randn(16, 2, 4)).square().sum().backward()
        optimizer.step()
        seen.append(counts(model))
        phases.step()
    return seen


@pytest.mark.parametrize("mask", ["magnitude", "random", redense.magnitude_mask])
def test_each_tensor_has_the_exact_zeros_of_the_first_pattern_that_matches(mask):
    model = Net()
    plan = dsd(1, 2, 1, SHARES, mask=mask)
    dense, *sparse, redensed = train(model, torch.optim.AdamW(model.parameters()), plan)
    expected = {"stem.weight": 0, "body.0.weight": 16, "body.2.weight": 38, "body.4.weight": 0}
    assert sparse == [expected | {"head.weight": 0}] * 2
    assert set(dense.values()) == set(redensed.values()) == {0}


def test_a_star_at_the_end_is_whatever_else_may_be_held():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with redense.sparse(model, optimizer, {"head.weight": 0.5, "*": 0.25}) as held:
        assert list(held.masks) == [*(f"body.{n}.weight" for n in (0, 2, 4)), "head.weight"]
        assert counts(model) == {"stem.weight": 0, "head.weight": 12} | {
            f"body.{n}.weight": 16 for n in (0, 2, 4)
        }


def test_a_global_mask_ranks_the_weights_of_each_pattern_among_themselves():
    weights = redense.prunable(Net())
    masks = redense.build_masks(weights, {"body.*": 0.5, "head.weight": 0.25}, "global")
    body = [f"body.{n}.weight" for n in (0, 2, 4)]
    alone = redense.global_magnitude_masks({name: weights[name] for name in body}, 0.5)
    assert all(torch.equal(masks[name], alone[name]) for name in body)
    assert sum(int((~masks[name]).sum()) for name in body) == 96
    assert int((~masks["head.weight"]).sum()) == 6


def test_every_expert_has_the_exact_zeros_of_its_pattern():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(3, 5, 7))
            self.down = nn.Parameter(torch.randn(3, 7, 5))

    masks = redense.build_masks(redense.prunable(Experts()), {"up": 0.2, "down": 0.6})
    assert (~masks["up"]).sum((1, 2)).tolist() == [7, 7, 7]
    assert (~masks["down"]).sum((1, 2)).tolist() == [21, 21, 21]


def test_weights_of_a_plain_dictionary_are_chosen_by_pattern_too():
    weights = {"a": torch.randn(10), "b": torch.randn(10), "c": torch.randn(10)}
    masks = redense.build_masks(weights, {"c": 0.2, "[ab]": 0.5})
    assert {name: int((~mask).sum()) for name, mask in masks.items()} == {"a": 5, "b": 5, "c": 2}


def test_names_are_compared_without_what_a_wrapper_puts_before_them():
    model = torch.compile(Net())
    masks = redense.build_masks(redense.prunable(model), {"body.0.weight": 0.5})
    assert list(masks) == ["_orig_mod.body.0.weight"]


@pytest.mark.parametrize("position", range(5))
def test_a_resume_inside_any_phase_goes_on_with_the_same_bits(position):
    plan = dsd(1, 2, 2, SHARES)

    def trained(stop):
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        phases = PhaseScheduler(model, optimizer, plan)
        for step in range(len(plan)):
            if step == stop:
                saved = copy.deepcopy(
                    [model.state_dict(), optimizer.state_dict(), phases.state_dict()]
                )
                phases.detach()
                model = Net()
                optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
                phases = PhaseScheduler(model, optimizer, plan)
                for part, state in zip((model, optimizer, phases), saved, strict=True):
                    part.load_state_dict(state)
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(16, 2, 4)).square().sum().backward()
            optimizer.step()
            phases.step()
        return model.state_dict()

    whole = trained(None)
    assert all(torch.equal(whole[name], tensor) for name, tensor in trained(position).items())


def test_a_state_of_a_plan_with_the_same_patterns_in_another_order_is_refused():
    shares = {"body.[02].*": 0.5, "body.[24].*": 0.2}
    turned = dict(reversed(shares.items()))
    model = Net()
    optimizer = torch.optim.SGD(model.parameters())
    state = PhaseScheduler(model, optimizer, dsd(1, 1, 1, shares)).state_dict()
    with pytest.raises(ValueError, match="saved under another plan"):
        PhaseScheduler(model, optimizer, dsd(1, 1, 1, turned)).load_state_dict(state)


@pytest.mark.parametrize(
    ("sparsity", "words"),
    [
        ({"layr.*": 0.5}, ["'layr.*' matches no weight", "near names"]),
        (
            {"body.0.wieght": 0.5},
            ["'body.0.wieght' matches no weight", "near names: body.0.weight"],
        ),
        ({"a*": 0.5, "b.*": 0.5}, ["'a*' matches no weight", "'b.*' matches no weight"]),
        (
            {"stem.weight": 0.2},
            ["'stem.weight' matches stem.weight", "the first convolution", "include="],
        ),
        ({"*.bias": 0.2}, ["'*.bias' matches stem.bias", "a bias"]),
        (
            {"body.*": 0.2, "body.0.weight": 0.5},
            ["'body.*' stands before 'body.0.weight' and matches the same weights"],
        ),
    ],
    ids=str,
)
def test_a_pattern_without_effect_is_refused_before_any_training(sparsity, words):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="pattern without effect") as raised:
        PhaseScheduler(model, torch.optim.SGD(model.parameters()), dsd(9, 1, 1, sparsity))
    for word in words:
        assert word in str(raised.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("sparsity", "error", "words"),
    [
        ({}, ValueError, ["'sparse'", "holds nothing", "sparsity={}"]),
        ({"a": 0, "b": 0.0}, ValueError, ["'sparse'", "holds nothing", "sparsity=0"]),
        ({"a": 1.0}, ValueError, ["'sparse': a: ", "[0, 1)", "got 1.0"]),
        ({"a": "0.5"}, TypeError, ["'sparse': a: ", "number", "'0.5'"]),
        ({"a": {"b": 0.5}}, TypeError, ["'sparse': a: ", "number"]),
        ({3: 0.5}, TypeError, ["'sparse'", "names or patterns", "3"]),
        ({"": 0.5}, TypeError, ["'sparse'", "names or patterns", "''"]),
        ({nn.Linear: 0.5}, TypeError, ["'sparse'", "names or patterns", "Linear"]),
        ({"*": 0.2, "fc.*": 0.5}, ValueError, ["'sparse'", "behind '*' 'fc.*'", "put '*' last"]),
    ],
    ids=str,
)
def test_a_wrong_mapping_is_refused_by_phase_pattern_and_value(sparsity, error, words):
    with pytest.raises(error) as raised:
        Phase("sparse", 3, sparsity)
    for word in words:
        assert word in str(raised.value)


MAPPED = [
    dsd(2, 1, 1, {"b.*": 0.5, "a.*": 0.25}),
    dsd(2, 1, 1, ({"b.*": 0.5}, 0.3), passes=2),
    acdc(1, 2, 1, 1, 1, {'*.é"s': 0.5, "*": 0.1}),
    spdf(2, 1, {"fc": 0.75}),
]


@pytest.mark.parametrize("plan", MAPPED)
def test_a_mapping_comes_back_in_order_from_records_json_toml_and_pickle(plan):
    copies = [
        Plan.from_records(plan.to_records()),
        Plan.from_records(json.loads(json.dumps(plan.to_records()))),
        Plan.from_records(tomllib.loads(plan.to_toml())["phases"]),
        pickle.loads(pickle.dumps(plan)),
        copy.deepcopy(plan),
    ]
    for other in copies:
        assert other == plan
        assert hash(other) == hash(plan)
        assert str(other) == str(plan)


def test_a_phase_keeps_a_mapping_of_its_own_in_its_order():
    given = {"b": 0.5, "a": 0.25}
    phase = Phase("sparse", 1, given)
    given["c"] = 0.1
    assert phase.sparsity == {"b": 0.5, "a": 0.25}
    assert phase != Phase("sparse", 1, {"a": 0.25, "b": 0.5})
    with pytest.raises(TypeError):
        phase.sparsity["b"] = 0.1


def test_numbers_of_numpy_in_a_mapping_become_pythons_own():
    numpy = pytest.importorskip("numpy")
    plan = dsd(1, 1, 1, {numpy.str_("a"): numpy.float32(0.5)})
    ((pattern, share),) = plan.to_records()[1]["sparsity"].items()
    assert (type(pattern), type(share)) == (str, float)


def test_a_plan_prints_what_each_pattern_holds_below_its_table():
    shares = {"fc.*": 0.5, "encoder.*": 0.5, "head.weight": 0, "*": 0.2}
    assert str(dsd(3, 2, 1, shares)).splitlines() == [
        "phase    steps  length  sparsity    rate   decay     mask",
        "dense    0-2    3       0           x 1    constant  -",
        "sparse   3-4    2       by pattern  x 1    constant  magnitude",
        "redense  5      1       0           x 0.1  constant  -",
        "sparse holds 50 % of fc.*, encoder.*; 0 % of head.weight; 20 % of * (the first",
        "  match counts)",
    ]
    assert str(dsd(3, 2, 1, {"fc.*": 0.5})).splitlines()[-1] == "sparse holds 50 % of fc.*"


def test_the_preview_says_what_every_phase_holds_of_each_weight():
    shown = Walk(dsd(1, 1, 1, (SHARES, 0.3), passes=2)).preview(Net()).splitlines()
    columns = {line.split()[1]: line for line in shown if line.startswith(("held", "-", "  "))}
    assert shown[0].split("weights  ")[1].split("  ") == ["sparse 1", "sparse 2", "why not"]
    for name, share in (
        ("body.0.weight", "25 %"),
        ("body.2.weight", "60 %"),
        ("head.weight", "0 %"),
    ):
        assert f"  {share}" in columns[name]
        assert columns[name].endswith("  30 %")


def test_a_share_of_all_weights_together_is_said_of_none():
    plan = dsd(1, 1, 1, 0.3, mask="global")
    assert "sparse" not in Walk(plan).preview(Net()).splitlines()[0]


def test_a_sparsity_is_said_in_per_cent():
    assert in_percent(0.3) == "30 %"
    assert in_percent({"a": 0.5}) == "50 %"
    assert in_percent({"a": 0.5, "b": 0}) == "0-50 %"


def test_the_share_of_a_name_is_its_first_pattern_s():
    shares = {"a.*": 0.5, "a.b": 0.1, "*": 0.2}
    assert [share_of(name, shares) for name in ("a.b", "module.a.c", "d")] == [0.5, 0.5, 0.2]
    assert share_of("d", {"a": 0.5}) == 0
    assert share_of("d", 0.3) == 0.3
