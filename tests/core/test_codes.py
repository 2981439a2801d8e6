"""The compiled passes of selection say what plain torch says, and refuse what has no memory."""

import dataclasses

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redense.masks import magnitude_mask
from redense.tensors import codes
from redense.tensors.keys import CHUNK, Keys

pytestmark = pytest.mark.skipif(codes.kernel is None, reason="no kernel was built")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.integers(0, 300), st.integers(32_700, 33_000), st.just(CHUNK["cpu"] + 9)),
    st.integers(1, 3),
    st.integers(0, 7),
    st.integers(0, 9),
)
@example(255 * 64 * 2 + 3, 1, 0, 0)  # lanes that count in bytes are full once and begin anew
def test_the_compiled_passes_say_what_plain_torch_says(size, code, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    some = torch.randint(1, 4, (offset + size,), dtype=torch.uint8, generator=generator)[offset:]
    counts = {one: int(codes.count_equal(some, one)) for one in (1, 2, 3)}
    assert counts == {one: int((some == one).sum()) for one in (1, 2, 3)}
    assert int(codes.count_upto(some, code)) == int((some <= code).sum())
    assert torch.equal(codes.positions(some, code), codes.positions_plain(some, code))
    for ties in {0, 1, counts[code] // 2, counts[code], size}:
        flags = codes.flag_(some.clone(), code, ties)
        assert torch.equal(flags, codes.flag_plain_(some.clone(), code, ties))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([torch.int16, torch.int32, torch.int64]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 400),
    st.integers(0, 99),
)
def test_keys_of_each_width_get_the_same_codes(dtype, shifted, place, size, seed):
    info, generator = torch.iinfo(dtype), torch.Generator().manual_seed(seed)
    drawn = torch.randint(256, (size * info.bits // 8,), generator=generator, dtype=torch.uint8)
    signed = drawn.view(dtype)
    positive = signed & info.max
    shift = round(shifted * (info.bits - 9))
    lowest = round(place * ((info.max >> shift) - 129)) - 1
    source = Keys(
        lambda start, stop, out: out.copy_(positive[start:stop]),
        lambda indices: positive[indices],
        size,
        info.max,
        dtype,
        torch.device("cpu"),
    )
    in_a_row = dataclasses.replace(source, signed=signed)
    found, plain, read = (torch.full((size,), 255, dtype=torch.uint8) for _ in range(3))
    largest = codes.encode(in_a_row, found, shift, lowest, lowest + 129)
    assert codes.encode(source, read, shift, lowest, lowest + 129) == largest
    assert codes.encode_plain(source, plain, shift, lowest, lowest + 129) == largest
    assert torch.equal(found, plain)
    assert torch.equal(read, plain)


def test_the_compiled_passes_refuse_what_has_no_memory():
    with pytest.raises(ValueError, match="no memory"):
        codes.kernel.encode(0, 0, 1, 4, 0, 0, 1)
    with pytest.raises(ValueError, match="2, 4 or 8 bytes"):
        codes.kernel.encode(0, 0, 0, 3, 0, 0, 1)
    with pytest.raises(ValueError, match="no memory"):
        codes.kernel.count_codes(0, 1, 0, 1)
    with pytest.raises(ValueError, match="no memory"):
        codes.kernel.find_code(0, 1, 0, 0, 1)
    with pytest.raises(ValueError, match="no memory"):
        codes.kernel.flag_codes(0, 1, 0, 1)
    with pytest.raises(TypeError, match="takes 4 arguments"):
        codes.kernel.flag_codes(0)


ODD = {
    "inside a transform": lambda: torch.func.grad(
        lambda weight: (weight * magnitude_mask(weight, 0.5)).sum()
    )(torch.tensor([0.1, -3.0, 2.0, -0.2])),
    "inside another": lambda: torch.func.functionalize(lambda w: magnitude_mask(w, 0.3) + 0)(
        torch.arange(120_000.0)
    ),
    "zeros that nobody wrote": lambda: magnitude_mask(torch._efficientzerotensor((300, 400)), 0.3),
    "a lazy clone": lambda: magnitude_mask(torch._lazy_clone(torch.arange(120_000.0)), 0.3),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_the_kernel_cannot_read_torch_does(kind, monkeypatch):
    found = ODD[kind]()
    monkeypatch.setattr(codes, "kernel", None)
    assert torch.equal(found, ODD[kind]())


def test_a_lazy_clone_that_is_read_stays_lazy():
    weight = torch._lazy_clone(torch.arange(120_000.0))
    magnitude_mask(weight, 0.3)
    assert torch._C._is_cow_tensor(weight)
