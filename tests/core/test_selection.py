"""The fast selection against a stable sort, bit for bit, on every input that could mislead it."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redense.masks import magnitude_mask
from redense.tensors import codes, selection
from redense.tensors import keys as keys_module
from redense.tensors.keys import Keys, magnitude_keys
from redense.tensors.selection import keep_largest


@pytest.fixture(params=["compiled", "plain"], autouse=True, scope="module")
def passes(request):
    """Everything here is chosen by the compiled passes, and once more without them."""
    if request.param == "compiled":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes, "kernel", None)
        yield


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CHUNK, FEW, SAMPLE = keys_module.CHUNK["cpu"], selection._FEW, selection._SAMPLE


def stable_sort_mask(weight, sparsity):
    """The reference: sort the magnitudes, ties to the lower index, and prune the first round(s *
    n)."""
    order = (
        weight.detach()
        .reshape(-1)
        .view(INTEGER[weight.dtype])
        .bitwise_and(POSITIVE[weight.dtype])
        .sort(stable=True)
    )
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order.indices[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)


INTEGER = dict(zip(FLOATS, (torch.int16, torch.int16, torch.int32, torch.int64), strict=True))
POSITIVE = {dtype: torch.iinfo(integer).max for dtype, integer in INTEGER.items()}


def test_the_order_of_the_bits_is_the_order_of_the_magnitudes():
    for dtype in FLOATS:
        weight = torch.cat(
            [torch.randn(4096, dtype=torch.float64), torch.randn(4096, dtype=torch.float64) * 1e-7]
        )
        weight = torch.cat(
            [weight.to(dtype), torch.tensor([0.0, -0.0, math.inf, -math.inf], dtype=dtype)]
        )
        bits = weight.view(INTEGER[dtype]) & POSITIVE[dtype]
        assert torch.equal(bits.sort(stable=True).indices, weight.abs().sort(stable=True).indices)


TINY = (
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    6e-8,
    1e-40,
    -1e-40,
    5e-324,
    1.0,
    -1.0,
    1.5,
    math.inf,
    -math.inf,
    65504.0,
    3e38,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TINY), max_size=40), st.sampled_from(FLOATS), st.floats(0, 0.999))
def test_small_tensors_of_special_values_equal_a_stable_sort(values, dtype, sparsity):
    weight = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert torch.equal(magnitude_mask(weight, sparsity), stable_sort_mask(weight, sparsity))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=200), st.floats(0, 0.999)
)
def test_small_tensors_of_any_values_equal_a_stable_sort(values, sparsity):
    weight = torch.tensor(values)
    assert torch.equal(magnitude_mask(weight, sparsity), stable_sort_mask(weight, sparsity))


ORDERS = {
    "normal": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64) * 0.02,
    "sorted": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64).sort().values,
    "falling": lambda n, g: torch.arange(n, 0, -1, dtype=torch.float64),
    "constant": lambda n, g: torch.full((n,), -0.7, dtype=torch.float64),
    "zero": lambda n, g: torch.zeros(n, dtype=torch.float64),
    "one apart": lambda n, g: torch.ones(n, dtype=torch.float64).index_fill_(
        0, torch.tensor([n // 2]), 0.5
    ),
    "periodic": lambda n, g: (torch.arange(n) % 17).double(),
    "period of a chunk": lambda n, g: (torch.arange(n) % (CHUNK // 8)).double(),
    "half zero": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64).clamp_(min=0.0),
    "few levels": lambda n, g: (torch.randn(n, generator=g, dtype=torch.float64) * 2).round_(),
    "denormal": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64) * 1e-40,
    "many infinite": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64).div_(
        torch.arange(n) % 3
    ),
    "all octaves": lambda n, g: torch.exp2(
        torch.rand(n, generator=g, dtype=torch.float64) * 250 - 125
    ),
    "a far cluster": lambda n, g: torch.randn(n, generator=g, dtype=torch.float64) * 1e-6 + 3.0,
}
SIZES = [
    0,
    1,
    2,
    7,
    8,
    9,
    1023,
    1024,
    1025,
    SAMPLE,
    FEW - 1,
    FEW,
    FEW + 1,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    CHUNK + 1031,
]
SPARSITY = (0.0, 1e-5, 0.3, 0.5, 0.98, 0.99999)


def drawn(order, size, dtype, seed=0):
    weight = (
        ORDERS[order](size, torch.Generator().manual_seed(seed))
        if size
        else torch.empty(0, dtype=torch.float64)
    )
    weight[::2].neg_()
    return weight.nan_to_num_(0.0, math.inf, -math.inf).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(ORDERS)),
    st.one_of(st.sampled_from(SIZES), st.integers(0, 2 * FEW)),
    st.sampled_from(FLOATS),
    st.one_of(st.sampled_from(SPARSITY), st.floats(0, 0.999)),
    st.integers(0, 99),
)
@example("normal", 3 * CHUNK + 5, torch.float32, 0.3, 0)
@example("half zero", 2 * CHUNK + 5, torch.float32, 0.3, 0)  # the ties end inside a chunk
@example("constant", 2 * CHUNK + 5, torch.float32, 0.7, 0)
@example("many infinite", 2 * CHUNK + 5, torch.float32, 0.9, 0)
def test_large_tensors_equal_a_stable_sort(order, size, dtype, sparsity, seed):
    weight = drawn(order, size, dtype, seed)
    assert torch.equal(magnitude_mask(weight, sparsity), stable_sort_mask(weight, sparsity))


@pytest.mark.parametrize("order", sorted(ORDERS))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_order_in_every_precision_equals_a_stable_sort(order, dtype):
    weight = drawn(order, CHUNK + 77, dtype)
    assert torch.equal(magnitude_mask(weight, 0.3), stable_sort_mask(weight, 0.3))


def test_a_sample_that_misleads_costs_time_and_not_exactness(monkeypatch):
    passes = []
    encode = selection._encode
    monkeypatch.setattr(
        selection, "_encode", lambda *arguments: passes.append(1) or encode(*arguments)
    )
    weight = drawn("normal", CHUNK + 5, torch.float32)
    for wrong in (
        (0, 5, 10.0),
        (0x7F00_0000, 0x7F80_0000, 10.0),
        (0, 0x7F80_0000, 1.0),
        (0x3C00_0000, 0x3C00_0000, 9.0),
    ):
        monkeypatch.setattr(selection, "_bracket", lambda *arguments, wrong=wrong: wrong)
        for sparsity in (0.01, 0.3, 0.99):
            assert torch.equal(magnitude_mask(weight, sparsity), stable_sort_mask(weight, sparsity))
    assert len(passes) > 12


def test_keys_become_codes_once(monkeypatch):
    encode, reads = selection._encode, []
    monkeypatch.setattr(
        selection, "_encode", lambda *arguments: reads.append(1) or encode(*arguments)
    )
    magnitude_mask(drawn("normal", 4 * CHUNK, torch.float32), 0.3)
    assert reads == [1]


def test_the_weights_are_read_once(monkeypatch):
    weight = drawn("normal", 4 * CHUNK, torch.float32)
    keys = magnitude_keys(weight)
    read = []

    def counted(start, stop, out):
        read.append(stop - start)
        keys.read(start, stop, out)

    source = Keys(counted, keys.pick, keys.numel, keys.highest, keys.dtype, keys.device)
    kept = keep_largest([source], round(0.3 * keys.numel), keys.numel)[0]
    assert torch.equal(kept, stable_sort_mask(weight, 0.3))
    assert sum(read) == keys.numel


def test_denormals_count_where_the_processor_flushes_them():
    weight = drawn("denormal", FEW + 9, torch.float32)
    expected = stable_sort_mask(weight, 0.3)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        assert torch.equal(magnitude_mask(weight, 0.3), expected)
    finally:
        torch.set_flush_denormal(False)


LAYOUTS = {
    "channels_last": lambda w: w.to(memory_format=torch.channels_last),
    "transposed": lambda w: w.transpose(0, 1),
    "every second": lambda w: w[::2, :, ::2],
    "reversed axes": lambda w: w.permute(3, 2, 1, 0),
    "one row": lambda w: w[:1].expand(4, -1, -1, -1),
    "offset": lambda w: w[1:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_memory_layout_does_not_change_the_choice(layout, monkeypatch):
    monkeypatch.setitem(keys_module.CHUNK, "cpu", 1 << 12)
    monkeypatch.setattr(selection, "_FEW", 1 << 10)
    weight = LAYOUTS[layout](
        (torch.randn(64, 32, 8, 9, generator=torch.Generator().manual_seed(0)) * 50).round_()
    )
    mask = magnitude_mask(weight, 0.4)
    assert torch.equal(mask, stable_sort_mask(weight.contiguous(), 0.4))
    if layout != "one row":
        assert mask.stride() == torch.empty_like(weight).stride()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=6),
    st.floats(0, 0.999),
    st.booleans(),
    st.integers(0, 9),
)
def test_several_sources_equal_a_stable_sort_of_their_concatenation(sizes, sparsity, tied, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(size, generator=generator) for size in sizes]
    parts = [part.mul_(3).round_() for part in parts] if tied else parts
    whole = torch.cat(parts)
    few = selection._FEW
    selection._FEW = 1 << 8  # every stage, on small tensors
    try:
        kept = keep_largest(
            [magnitude_keys(part) for part in parts], round(sparsity * whole.numel()), whole.numel()
        )
    finally:
        selection._FEW = few
    assert torch.equal(torch.cat(kept), stable_sort_mask(whole, sparsity))


def test_a_choice_past_2_to_the_24_elements_is_exact():
    weight = torch.randn((1 << 24) + 12_345, generator=torch.Generator().manual_seed(0))
    pruned = round(0.3 * weight.numel())
    mask = magnitude_mask(weight, 0.3)
    assert int((~mask).sum()) == pruned
    assert weight[~mask].abs().max() <= weight[mask].abs().min()


def counting_keys(numel):
    """Keys that no memory holds: they fall to 0, each four times, so that the choice is known in
    closed form."""
    fours = torch.arange(keys_module.CHUNK["cpu"] + 3, dtype=torch.int32) >> 2

    def pick(indices):
        indices = torch.arange(numel)[indices] if isinstance(indices, slice) else indices
        return ((numel - 1 - indices) >> 2).int()

    def read(start, stop, out):
        highest, rest = divmod(numel - 1 - start, 4)
        torch.sub(highest, fours[3 - rest : 3 - rest + stop - start], out=out)

    return Keys(read, pick, numel, (numel - 1) >> 2, torch.int32, torch.device("cpu"))


@pytest.mark.parametrize("numel", [50_001, 3_000_003, (1 << 31) + 11], ids=str)
def test_a_choice_past_2_to_the_31_elements_is_exact(numel):
    k = round(0.3 * numel)
    kept = keep_largest([counting_keys(numel)], k, numel)[0]
    # the smallest keys come last: whole fours from the end, and of the next four the lower indices
    whole, rest = divmod(k, 4)
    low = numel - 4 * whole  # below it lies the group that is cut
    assert kept.numel() == numel
    assert kept[: low - 4].all()
    assert kept[low - 4 : low].tolist() == [position >= rest for position in range(4)]
    assert not kept[low:].any()


@pytest.mark.parametrize("size", [1, 100, FEW, FEW + 1, CHUNK + 1])
def test_a_nan_is_refused_whatever_its_place_and_sign(size):
    for place in {0, size // 2, size - 1}:
        for nan in (math.nan, -math.nan):
            weight = drawn("normal", size, torch.float32)
            weight[place] = nan
            with pytest.raises(ValueError, match="NaN"):
                keep_largest([magnitude_keys(weight)], max(1, size // 3), size)


def test_integers_have_no_magnitude_keys():
    with pytest.raises(TypeError, match=r"float64 tensor, got torch\.int32"):
        magnitude_keys(torch.arange(3, dtype=torch.int32))


def test_a_subclass_is_read_by_its_own_operations():
    class Named(torch.Tensor):
        pass

    weight = drawn("normal", FEW + 77, torch.float32)
    assert magnitude_keys(weight.as_subclass(Named)).signed is None
    kept = magnitude_mask(weight.as_subclass(Named), 0.3).as_subclass(torch.Tensor)
    assert torch.equal(kept, stable_sort_mask(weight, 0.3))
