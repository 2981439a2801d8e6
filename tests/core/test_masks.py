"""Masks by name and by function: exact counts, ties, randomness that touches no generator, and one
bit a weight."""

import math
import re
import subprocess
import sys

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import redense
from redense import masks
from redense.masks import (
    build_masks,
    global_magnitude_masks,
    magnitude_mask,
    random_mask,
)
from redense.tensors.keys import CHUNK, scramble
from redense.tensors.packing import pack, unpack

ODD_SIZES = ((1,), (7,), (3, 5), (64, 33), (129, 1025), (4, 3, 3, 3), (300, 1000))


def weight_of(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", ODD_SIZES, ids=str)
@pytest.mark.parametrize("choose", [magnitude_mask, random_mask])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.3, 0.5, 0.97])
def test_a_mask_has_exactly_the_zeros_asked_for(choose, shape, sparsity):
    weight = weight_of(*shape)
    mask = choose(weight, sparsity)
    assert mask.dtype == torch.bool
    assert mask.shape == weight.shape
    assert int((~mask).sum()) == round(sparsity * weight.numel())


def test_among_equal_magnitudes_the_lower_index_is_pruned():
    assert magnitude_mask(torch.tensor([2.0, -1.0, 1.0, -0.0, 1.0]), 0.4).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert magnitude_mask(torch.zeros(4), 0.5).tolist() == [False, False, True, True]


def test_an_already_sparse_weight_loses_its_zeros_first():
    weight = weight_of(50, 50) * magnitude_mask(weight_of(50, 50), 0.4)
    mask = magnitude_mask(weight, 0.6)
    assert not mask[weight == 0].any()
    assert torch.equal(magnitude_mask(weight * mask, 0.6), mask)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, math.nan])
def test_a_sparsity_outside_0_to_1_is_refused_by_value(sparsity):
    for choose in (magnitude_mask, random_mask, lambda w, s: global_magnitude_masks({"w": w}, s)):
        with pytest.raises(ValueError, match=re.escape(f"got {sparsity}")):
            choose(weight_of(4), sparsity)


def test_a_mask_takes_parameters_and_leaves_them_as_they_are():
    weight = torch.nn.Parameter(weight_of(20, 20))
    before = weight.detach().clone()
    for choose in (magnitude_mask, random_mask):
        assert not choose(weight, 0.3).requires_grad
    assert torch.equal(weight, before)
    assert weight._version == 0


# random


def test_a_random_mask_is_the_same_every_time_and_differs_by_seed_layer_and_content():
    weight = weight_of(200, 200)
    mask = random_mask(weight, 0.5)
    assert torch.equal(mask, random_mask(weight.clone(), 0.5))
    nudged = weight.clone()
    nudged[7, 7] = torch.nextafter(nudged[7, 7], torch.tensor(9.0))
    for other in (
        random_mask(weight, 0.5, seed=1),
        random_mask(weight_of(200, 200, seed=1), 0.5),
        random_mask(nudged, 0.5),
    ):
        assert 0.48 < (mask == other).float().mean() < 0.52


def test_a_random_mask_touches_no_generator():
    state = torch.random.get_rng_state()
    random_mask(weight_of(100_000), 0.3)
    magnitude_mask(weight_of(100_000), 0.3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_random_mask_looks_uniform():
    mask = random_mask(weight_of(512, 1024), 0.5).double()
    deviation = 0.5 / math.sqrt(mask.numel())
    for sums in (mask.mean(0), mask.mean(1), mask.view(64, -1).mean(1), mask.view(-1, 64).mean(0)):
        spread = sums.std() * math.sqrt(mask.numel() / sums.numel()) / 0.5
        assert 0.85 < spread < 1.15
        assert (sums - 0.5).abs().max() < 5 * deviation * math.sqrt(sums.numel())
    flat = mask.view(-1) - 0.5
    for lag in (1, 2, 3, 8, 64, 1024):
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 * 0.25 / math.sqrt(mask.numel())


def test_a_random_mask_does_not_follow_magnitude():
    weight = weight_of(300, 300)
    mask = random_mask(weight, 0.5)
    assert abs(weight[mask].abs().mean() / weight[~mask].abs().mean() - 1) < 0.02


def test_scramble_is_splitmix64():
    # the first outputs of the reference implementation for the seed 1234567
    golden = 0x9E3779B97F4A7C15
    state = [(1234567 + golden * n) % 2**64 for n in (1, 2, 3)]
    numbers = torch.tensor([number - 2**64 if number >= 2**63 else number for number in state])
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [number % 2**64 for number in scramble(numbers).tolist()] == expected


# global


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.floats(0, 0.99),
    st.booleans(),
)
def test_global_masks_equal_a_stable_sort_of_all_weights_together(shapes, sparsity, tied):
    weights = {f"layer{i}": weight_of(*shape, seed=i) * (i + 1) for i, shape in enumerate(shapes)}
    if tied:
        weights = {name: weight.round() for name, weight in weights.items()}
    whole = torch.cat([weight.view(-1) for weight in weights.values()])
    expected = torch.ones(whole.numel(), dtype=torch.bool)
    expected[whole.abs().sort(stable=True).indices[: round(sparsity * whole.numel())]] = False
    masks = global_magnitude_masks(weights, sparsity)
    assert list(masks) == list(weights)
    assert torch.equal(torch.cat([mask.view(-1) for mask in masks.values()]), expected)


def test_global_masks_of_large_layers_equal_a_stable_sort():
    weights = {
        str(i): weight_of(size, seed=i) * scale
        for i, (size, scale) in enumerate(((300_000, 1), (9, 5), (0, 1)))
    }
    weights["round"] = weight_of(400, 500, seed=5).round()
    whole = torch.cat([weight.view(-1) for weight in weights.values()])
    expected = torch.ones(whole.numel(), dtype=torch.bool)
    expected[whole.abs().sort(stable=True).indices[: round(0.4 * whole.numel())]] = False
    masks = build_masks(weights, 0.4, "global")
    assert torch.equal(torch.cat([mask.view(-1) for mask in masks.values()]), expected)


def test_global_masks_need_one_dtype():
    with pytest.raises(TypeError, match=r"one dtype, got torch\.float16, torch\.float32"):
        global_magnitude_masks({"a": weight_of(3), "b": weight_of(3).half()}, 0.5)


# by name


@pytest.mark.parametrize("mask", ["magnitude", "random", "global"])
@pytest.mark.parametrize("size", [5, 300_000])
def test_a_nan_is_refused_by_name(mask, size):
    weights = {"fine": weight_of(size), "empty": weight_of(0), "layer2.weight": weight_of(size)}
    weights["layer2.weight"][3] = math.nan
    with pytest.raises(ValueError, match=r"layer2\.weight: it holds a NaN"):
        build_masks(weights, 0.3, mask)


def test_integer_weights_are_refused_by_name():
    for mask in ("magnitude", "random", "global"):
        with pytest.raises(TypeError, match=r"codes: magnitudes need a float16"):
            build_masks({"codes": torch.arange(9)}, 0.3, mask)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="magnitude, random, global or a function, got 'magnitud'"):
        build_masks({"w": weight_of(4)}, 0.3, "magnitud")


def two_of_four(weight, sparsity):
    """2:4 sparsity, as a user would write it."""
    groups = weight.detach().abs().view(-1, 4)
    return (
        torch.ones_like(groups, dtype=torch.bool)
        .scatter_(1, groups.argsort(1)[:, :2], False)
        .view(weight.shape)
    )


def test_a_function_of_the_users_own_chooses():
    weights = {"a": weight_of(8, 8), "b": weight_of(2, 2, 4)}
    masks = build_masks(weights, 0.5, two_of_four)
    assert all((mask.view(-1, 4).sum(1) == 2).all() for mask in masks.values())


WRONG = {
    "float": (lambda w, s: w.abs().gt(0.1).float(), r"got torch\.float32 \(4, 6\)"),
    "shape": (lambda w, s: w.view(-1) > 0.1, r"got torch\.bool \(24,\)"),
    "list": (lambda w, s: w.tolist(), "got list"),
    "nothing": (lambda w, s: None, "got NoneType"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_function_that_returns_no_mask_is_refused_by_name(kind):
    function, message = WRONG[kind]
    with pytest.raises(
        TypeError, match=rf"layer\.weight: a mask must be a bool tensor .*\(4, 6\), {message}"
    ):
        build_masks({"layer.weight": weight_of(4, 6)}, 0.3, function)


def test_an_error_in_a_users_function_names_the_layer():
    def choose(weight, sparsity):
        raise ValueError("no saliency was recorded")

    with pytest.raises(ValueError, match=r"layer\.weight: no saliency was recorded"):
        build_masks({"layer.weight": weight_of(4, 6)}, 0.3, choose)


# one bit a weight


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=200))
def test_unpack_undoes_pack(flags):
    mask = torch.tensor(flags, dtype=torch.bool)
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == math.ceil(len(flags) / 8)
    assert packed.tolist() == [
        sum(flag << place for place, flag in enumerate(flags[start : start + 8]))
        for start in range(0, len(flags), 8)
    ]
    assert torch.equal(unpack(packed, torch.empty(len(flags))), mask)


@pytest.mark.parametrize("size", [CHUNK["cpu"] - 3, CHUNK["cpu"], 2 * CHUNK["cpu"] + 13])
def test_masks_of_several_chunks_are_packed_as_numpy_packs_them(size):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) > 0.3
    packed = pack(mask)
    assert packed.tolist() == numpy.packbits(mask.numpy(), bitorder="little").tolist()
    assert torch.equal(unpack(packed, torch.empty(size)), mask)


def test_unpack_takes_shape_and_layout_from_the_weight():
    weight = weight_of(6, 5, 3, 3).to(memory_format=torch.channels_last)
    mask = magnitude_mask(weight, 0.3)
    assert mask.is_contiguous(memory_format=torch.channels_last)
    again = unpack(pack(mask), weight)
    assert torch.equal(again, mask)
    assert again.stride() == mask.stride()
    assert torch.equal(pack(mask.contiguous()), pack(mask))


def test_agreement_asks_nothing_of_a_single_process():
    redense.check_agreement({"w": magnitude_mask(weight_of(9), 0.3)})


@pytest.mark.parametrize("mask", ["magnitude", "random", "global"])
def test_choosing_ignores_the_default_device(mask):
    weight = weight_of(300, 300)
    torch.set_default_device("meta")
    try:
        kept = build_masks({"w": weight}, 0.3, mask)["w"]
    finally:
        torch.set_default_device(None)
    assert kept.device.type == "cpu"
    assert int((~kept).sum()) == 27_000


def test_a_layer_pruned_away_whole_is_named():
    weights = {"body": weight_of(32, 32), "head": weight_of(2, 32) * 1e-4}
    with pytest.warns(UserWarning, match="nothing is left of head"):
        build_masks(weights, 0.5, "global")


def test_importing_the_core_leaves_sharded_tensors_alone():
    seen = "print('torch.distributed.tensor' in sys.modules)"
    script = f"import sys, redense; redense.PhaseScheduler; {seen}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


class Experts(torch.nn.Module):
    """Three fused experts, the first ten thousand times smaller than the last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        scale = torch.tensor([1e-4, 0.1, 1.0]).view(3, 1, 1)
        self.gate_up = torch.nn.Parameter(torch.randn(3, 4, 5) * scale)


@pytest.mark.parametrize("mask", ["magnitude", "random", redense.magnitude_mask])
def test_every_fused_expert_has_a_mask_of_its_own(mask):
    weights = redense.prunable(torch.nn.ModuleDict({"experts": Experts()}))
    (kept,) = redense.build_masks(weights, 0.3, mask).values()
    assert (~kept).flatten(1).sum(1).tolist() == [6, 6, 6]
    if mask != "random":
        for expert, own in zip(kept, weights["experts.gate_up"], strict=True):
            assert torch.equal(expert, redense.magnitude_mask(own, 0.3))


def test_global_magnitudes_rank_experts_together():
    weights = redense.prunable(torch.nn.ModuleDict({"experts": Experts()}))
    (kept,) = redense.build_masks(weights, 0.3, "global").values()
    assert (~kept).flatten(1).sum(1).tolist() == [18, 0, 0]


def test_convolutions_of_an_expert_are_matrices_and_no_stacks():
    model = torch.nn.ModuleDict(
        {"stem": torch.nn.Conv1d(2, 4, 3), "expert": torch.nn.Conv1d(4, 8, 3)}
    )
    weights = redense.prunable(model)
    kept = redense.build_masks(weights, 0.5)["expert.weight"]
    assert torch.equal(kept, redense.magnitude_mask(weights["expert.weight"], 0.5))


def test_equal_weights_whose_whole_rows_are_held_are_named():
    weights = {"head": torch.zeros(4, 6), "body": torch.arange(24.0).view(4, 6)}
    with pytest.warns(UserWarning, match=r"2 of head: .*the lower index.*dense phase"):
        masks = redense.build_masks(weights, 0.5)
    assert masks["head"].all(1).tolist() == [False, False, True, True]


def test_a_layer_that_is_equal_in_part_is_named_with_the_rows_that_go():
    head = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    head[1::2] = 0.0  # four new classes
    with pytest.warns(UserWarning, match=r"whole rows are held, 2 of head"):
        kept = redense.build_masks({"head": head}, 0.25)["head"]
    assert kept.any(1).tolist() == [True, False, True, False, *[True] * 4]


def test_rows_of_an_expert_that_starts_from_zero_are_counted_in_its_matrix():
    module = torch.nn.ModuleDict({"experts": Experts()})
    with torch.no_grad():
        module["experts"].gate_up[1] = 0.0
    with pytest.warns(UserWarning, match=r"2 of experts.gate_up"):
        redense.build_masks(redense.prunable(module), 0.5)


@pytest.mark.parametrize(
    "weight",
    [
        torch.cat([torch.zeros(4, 6), torch.ones(4, 6)]),  # the zeros go, and no other equals them
        torch.cat([torch.arange(1.0, 25.0).view(4, 6) / 100, torch.ones(4, 6)]),
        torch.ones(8, 1),
    ],
    ids=["no tie", "small", "rows of one"],
)
def test_rows_that_go_because_they_are_the_smallest_are_no_matter(weight):
    redense.build_masks({"head": weight}, 0.5)


def test_equal_weights_of_which_none_is_pruned_or_that_are_drawn_by_lot_are_no_matter():
    redense.build_masks({"head": torch.zeros(4, 6)}, 0.0)
    redense.build_masks({"head": torch.zeros(4, 6)}, 0.5, "random")


@pytest.mark.parametrize("choose", ["magnitude", "random", "global"])
def test_masks_are_chosen_with_one_thread_and_the_number_of_threads_is_left_alone(
    choose, monkeypatch
):
    used = []
    select = masks.keep_largest

    def watched(*arguments):
        used.append(torch.get_num_threads())
        return select(*arguments)

    monkeypatch.setattr(masks, "keep_largest", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        redense.build_masks({"weight": torch.randn(10, 10)}, 0.5, choose)
        with pytest.raises(ValueError, match="NaN"):
            redense.build_masks({"weight": torch.full((10, 10), torch.nan)}, 0.5, choose)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(used) == {1}
