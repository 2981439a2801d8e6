"""A plan is plain data: what it refuses, where it stands at a step, what it says of itself."""

import dataclasses
import functools
import json
import math
import tomllib
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from redense import Phase, PhaseScheduler, Plan, acdc, dsd, random_mask, relearn, spdf

PAPER = dsd(dense=30, sparse=20, redense=20, sparsity=0.3)


def everything_kept(weight, sparsity):
    return torch.ones_like(weight, dtype=torch.bool)


class Chooser:
    def __call__(self, weight, sparsity):
        return everything_kept(weight, sparsity)

    def __deepcopy__(self, memo):
        raise RuntimeError("copied")


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"name": ""}, ValueError, ["needs a name", "''", "'dense'"]),
        ({"name": 3}, ValueError, ["needs a name", "3"]),
        ({"length": 0}, ValueError, ["'sparse'", "would never run", "at least 1", "got 0"]),
        ({"length": -4}, ValueError, ["'sparse'", "at least 1", "got -4"]),
        ({"length": 2.5}, TypeError, ["'sparse'", "whole number", "2.5"]),
        ({"length": True}, TypeError, ["'sparse'", "whole number", "True"]),
        (
            {"sparsity": 1.0},
            ValueError,
            ["'sparse'", "sparsity", "[0, 1)", "got 1.0", "0.3 removes"],
        ),
        ({"sparsity": -0.1}, ValueError, ["sparsity", "[0, 1)", "got -0.1"]),
        ({"sparsity": math.nan}, ValueError, ["sparsity", "[0, 1)", "nan"]),
        ({"sparsity": "0.3"}, TypeError, ["sparsity", "number", "'0.3'"]),
        ({"sparsity": True}, TypeError, ["sparsity", "number", "True"]),
        ({"lr": 0.0}, ValueError, ["'sparse'", "lr", "above 0", "got 0.0", "0.1 is a tenth"]),
        ({"lr": -1.0}, ValueError, ["lr", "above 0", "got -1.0"]),
        ({"lr": math.inf}, ValueError, ["lr", "finite", "inf"]),
        ({"lr": math.nan}, ValueError, ["lr", "finite", "nan"]),
        ({"lr": "0.1"}, TypeError, ["'sparse'", "lr", "number", "'0.1'"]),
        (
            {"decay": "exponential"},
            ValueError,
            ["decay", "constant, linear, cosine, step", "'exponential'"],
        ),
        (
            {"decay": [1]},
            ValueError,
            ["'sparse'", "decay", "constant, linear, cosine, step", "got [1]"],
        ),
        ({"mask": 3}, TypeError, ["'sparse'", "mask", "name or a function", "3"]),
    ],
    ids=str,
)
def test_a_wrong_phase_is_refused_by_name_value_and_remedy(wrong, error, words):
    with pytest.raises(error) as raised:
        Phase(**{"name": "sparse", "length": 20, "sparsity": 0.3} | wrong)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: Plan((Phase("a", 1), "b")), TypeError, ["Phase objects", "'b'"]),
        (lambda: Plan((Phase("a", 1), Phase("a", 2))), ValueError, ["'a'", "'a 1'", "'a 2'"]),
        (lambda: dsd(30, 0, 20), ValueError, ["'sparse'", "would never run", "got 0"]),
        (
            lambda: dsd(-1, 20, 20),
            ValueError,
            ["dense", "0 (start from a trained model)", "got -1"],
        ),
        (lambda: dsd(30, 20, 20, passes=0), ValueError, ["passes", "at least 1", "got 0"]),
        (
            lambda: dsd(30, 20, 20, (0.5, 0.25)),
            ValueError,
            ["sparsity", "one value or 1", "got 2", "[0.5, 0.25]"],
        ),
        (
            lambda: dsd(30, (9, 9, 9), 20, passes=2),
            ValueError,
            ["sparse", "one value or 2", "got 3", "[9, 9, 9]"],
        ),
        (lambda: dsd(30, 20, 20, sparsity=1.0), ValueError, ["'sparse'", "[0, 1)", "got 1.0"]),
        (
            lambda: Plan.from_records([{"name": "a", "lenght": 3}]),
            ValueError,
            ["'lenght'", "length", "sparsity"],
        ),
        (lambda: Plan.from_records([{"name": "a"}]), ValueError, ["needs a length", "'a'"]),
        (lambda: Plan.from_records([{"length": 3}]), ValueError, ["needs a name"]),
    ],
)
def test_a_wrong_plan_is_refused_by_name_value_and_remedy(build, error, words):
    with pytest.raises(error) as raised:
        build()
    for word in words:
        assert word in str(raised.value)


def test_the_paper_s_plan_has_three_phases_and_a_tenth_of_the_rate_at_the_end():
    assert PAPER.phases == (
        Phase("dense", 30),
        Phase("sparse", 20, sparsity=0.3),
        Phase("redense", 20, lr=0.1),
    )
    assert len(PAPER) == 70
    assert PAPER.starts == (0, 30, 50)
    assert list(PAPER) == list(PAPER.phases)


def test_a_plan_is_frozen_hashable_and_equal_by_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.phases = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.phases[0].length = 3
    assert dsd(30, 20, 20) == PAPER
    assert hash(PAPER) == hash(dsd(30, 20, 20))
    assert dsd(30, 20, 20, sparsity=0.31) != PAPER
    assert Plan([Phase("a", 1)]) == Plan((Phase("a", 1),))


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(LENGTHS)
def test_every_step_falls_into_the_phase_that_covers_it(lengths):
    plan = Plan(tuple(Phase(f"{number}", length) for number, length in enumerate(lengths)))
    expected = [f"{number}" for number, length in enumerate(lengths) for _ in range(length)]
    assert [plan.at(step).name for step in range(len(plan))] == expected
    assert [plan.index(step + 0.75) for step in range(len(plan))] == [
        int(name) for name in expected
    ]
    assert all(plan.at(start) is phase for start, phase in zip(plan.starts, plan, strict=True))


@pytest.mark.parametrize("step", [-1, -0.001, 70, 70.5, math.nan])
def test_a_step_outside_the_plan_is_refused_with_the_range(step):
    for question in (PAPER.at, PAPER.index):
        with pytest.raises(IndexError, match=r"outside the plan; it covers 0 to 69"):
            question(step)


def test_rates_are_the_phase_s_factor_times_its_decay():
    plan = Plan(
        (Phase("a", 4, decay="linear"), Phase("b", 6, lr=0.5, decay="step"), Phase("c", 2, lr=0.1))
    )
    assert [plan.lr_factor(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [plan.lr_factor(step) for step in range(4, 10)] == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    )
    assert [plan.lr_factor(step) for step in (10, 11)] == [0.1, 0.1]


def test_a_cosine_starts_high_passes_half_way_at_half_and_restarts_with_the_next_phase():
    plan = Plan((Phase("a", 8, decay="cosine"), Phase("b", 8, lr=0.1, decay="cosine")))
    assert plan.lr_factor(0) == 1.0
    assert plan.lr_factor(4) == pytest.approx(0.5)
    assert plan.lr_factor(8) == 0.1
    assert plan.lr_factor(12) == pytest.approx(0.05)
    rates = [plan.lr_factor(step) for step in range(8)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine", "step"])
def test_no_whole_step_has_a_rate_of_zero_and_no_phase_starts_below_its_factor(decay):
    plan = dsd(7, 5, 3, decay=decay)
    assert all(plan.lr_factor(step) > 0 for step in range(len(plan)))
    assert [plan.lr_factor(start) for start in plan.starts] == [1.0, 1.0, 0.1]


@pytest.mark.parametrize("length", range(1, 40))
def test_a_step_decay_divides_by_ten_exactly_at_each_third(length):
    plan = Plan((Phase("a", length, decay="step"),))
    thirds = [int(3 * step >= length) + int(3 * step >= 2 * length) for step in range(length)]
    assert [plan.lr_factor(step) for step in range(length)] == pytest.approx(
        [0.1**third for third in thirds]
    )


def test_a_fraction_of_an_epoch_is_a_rate_of_its_own_up_to_the_very_end():
    plan = Plan((Phase("a", 2, decay="linear"), Phase("b", 2, lr=0.4, decay="linear")))
    assert plan.lr_factor(0.5) == 0.75
    assert plan.lr_factor(1.5) == 0.25
    assert plan.lr_factor(2.5) == pytest.approx(0.3)
    assert plan.lr_factor(3.5) == pytest.approx(0.1)
    assert plan.lr_factor(3.75) == pytest.approx(0.05)


@pytest.mark.parametrize("step", [4, 4.5, 5, 1000])
def test_past_the_end_the_last_whole_step_s_rate_stays(step):
    plan = Plan((Phase("a", 2), Phase("b", 2, lr=0.4, decay="linear")))
    assert plan.lr_factor(step) == plan.lr_factor(3) == 0.2


@pytest.mark.parametrize("step", [-1, math.nan])
def test_a_rate_before_the_plan_is_refused(step):
    with pytest.raises(IndexError, match="outside the plan"):
        PAPER.lr_factor(step)


def test_lambda_lr_walks_the_plan_s_rates_to_its_end():
    plan = dsd(4, 3, 5, decay="cosine")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.2)
    rates = LambdaLR(optimizer, plan.lr_factor)
    seen = []
    for _ in range(len(plan)):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
    assert seen == [0.2 * plan.lr_factor(step) for step in range(len(plan))]


def test_dsd_takes_one_value_or_one_a_pass():
    plan = dsd(
        3,
        (4, 5),
        [6, 7],
        (0.5, 0.25),
        passes=2,
        sparse_lr=0.9,
        redense_lr=(0.1, 0.01),
        decay="cosine",
    )
    assert plan.phases == (
        Phase("dense", 3, decay="cosine"),
        Phase("sparse 1", 4, 0.5, 0.9, "cosine"),
        Phase("redense 1", 6, 0.0, 0.1, "cosine"),
        Phase("sparse 2", 5, 0.25, 0.9, "cosine"),
        Phase("redense 2", 7, 0.0, 0.01, "cosine"),
    )


def test_dsd_without_a_dense_phase_starts_sparse():
    assert [phase.name for phase in dsd(0, 2, 2)] == ["sparse", "redense"]


def test_acdc_alternates_at_the_full_rate_and_ends_dense_at_a_tenth():
    plan = acdc(dense=10, cycles=3, sparse=2, redense=3, final=5, sparsity=0.8)
    assert len(plan) == 10 + 3 * 5 + 5
    assert [phase.sparsity for phase in plan] == [0.0, 0.8, 0.0, 0.8, 0.0, 0.8, 0.0, 0.0]
    assert [phase.lr for phase in plan] == [1.0] * 7 + [0.1]
    assert plan.phases[-1].name == "final"


def test_spdf_is_random_sparse_pre_training_and_then_dense():
    plan = spdf(sparse=8, dense=2)
    assert plan.phases == (Phase("sparse", 8, 0.75, mask="random"), Phase("dense", 2, lr=0.1))


def test_relearn_cycles_random_masks_at_the_full_rate_and_comes_to_rest():
    plan = relearn(10, cycles=3, length=20, sparsity=0.7)
    lengths = [phase.length for phase in plan]
    assert lengths == [10, 3, 4, 3, 4, 3, 3]  # cycles of 7, 7 and 6
    assert [phase.sparsity for phase in plan] == [0.0, *(0.7, 0.0) * 3]
    assert {phase.lr for phase in plan} == {1.0}
    assert [phase.decay for phase in plan] == ["constant"] * 6 + ["cosine"]
    assert {phase.mask for phase in plan if phase.sparsity} == {"random"}
    assert relearn(0, length=6).phases[0].name == "sparse 1"


def test_relearn_draws_its_mask_anew_in_every_cycle():
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 40)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    phases = PhaseScheduler(model, optimizer, relearn(0, cycles=3, length=6))
    held = []
    for _ in range(6):
        if phases.phase.sparsity:
            held.append(model.weight == 0)
        model(torch.randn(8, 40)).square().sum().backward()
        optimizer.step()
        phases.step()
    assert [int(zeros.sum()) for zeros in held] == [800] * 3
    both = [int((one & two).sum()) for one, two in pairwise(held)]
    assert all(300 < shared < 500 for shared in both)  # 400 expected of masks that know nothing


@pytest.mark.parametrize(("length", "cycles"), [(5, 3), (2, 0)])
def test_relearn_refuses_cycles_without_room(length, cycles):
    with pytest.raises(ValueError, match=r"(length|cycles) must be at least"):
        relearn(1, length, cycles)


@pytest.mark.parametrize(
    "plan",
    [
        PAPER,
        dsd(0, (1, 2), 3, passes=2, decay="step"),
        acdc(1, 2, 3, 4, 5),
        spdf(3, 4),
        relearn(2, 9),
    ],
)
def test_records_come_back_as_the_same_plan_through_json(plan):
    assert Plan.from_records(json.loads(json.dumps(plan.to_records()))) == plan


def test_a_plan_can_be_written_by_hand_in_toml():
    text = """
    [[phase]]
    name = "dense"
    length = 30
    [[phase]]
    name = "sparse"
    length = 20
    sparsity = 0.3
    [[phase]]
    name = "redense"
    length = 20
    lr = 0.1
    """
    assert Plan.from_records(tomllib.loads(text)["phase"]) == PAPER


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        ("global", "global"),
        (everything_kept, "everything_kept"),
        (functools.partial(random_mask, seed=1), "random_mask(seed=1)"),
        (
            functools.partial(functools.partial(random_mask, 1), 2, seed=3),
            "random_mask(1, 2, seed=3)",
        ),
        (Chooser(), "Chooser"),
    ],
    ids=["global", "function", "partial", "nested partial", "object"],
)
def test_a_mask_function_is_recorded_by_a_name_without_an_address(mask, name):
    plan = dsd(1, 1, 1, mask=mask)
    assert plan.to_records()[1]["mask"] == name
    assert f"  {name}" in str(plan)


def test_a_plan_prints_as_a_table():
    lines = str(dsd(30, 20, 1, sparsity=0.3, decay="cosine")).splitlines()
    assert lines == [
        "phase    steps  length  sparsity  rate   decay   mask",
        "dense    0-29   30      0         x 1    cosine  -",
        "sparse   30-49  20      0.3       x 1    cosine  magnitude",
        "redense  50     1       0         x 0.1  cosine  -",
    ]


def test_the_empty_plan_trains_nothing_and_says_so():
    empty = Plan(())
    assert len(empty) == 0
    assert empty.starts == ()
    assert empty.lr_factor(0) == 1.0
    assert "empty plan" in str(empty)
    assert Plan.from_records(empty.to_records()) == empty


def test_numbers_from_numpy_become_pythons_own():
    numpy = pytest.importorskip("numpy")
    plan = dsd(
        numpy.int64(3), 1, 1, numpy.array([0.5, 0.25]), passes=2, redense_lr=numpy.float32(1)
    )
    values = [value for record in plan.to_records() for value in record.values()]
    assert {type(value) for value in values} == {str, int, float}
    with pytest.raises(TypeError, match="whole number"):
        Phase("dense", numpy.bool_(True))
