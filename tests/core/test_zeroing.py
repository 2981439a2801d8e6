"""Zeroing pruned elements: the compiled kernel and plain torch do the same to every bit."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from redense.tensors import zeroing
from redense.tensors.packing import pack_bits, pack_bits_plain
from redense.tensors.zeroing import Kept

ROOT = Path(__file__).parents[2]
CHUNK = zeroing._CHUNK
WAYS = [zeroing.zero_pruned_plain_, zeroing.zero_pruned_]
INTEGERS = {
    torch.float8_e4m3fn: torch.int8,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
INTEGERS |= {torch.float32: torch.int32, torch.float64: torch.int64}
ways = pytest.mark.parametrize("way", WAYS, ids=["plain", "kernel"])


def bits_of(tensor):
    return tensor.view(INTEGERS[tensor.dtype])


def drawn(dtype, *shape):
    """Any bits at all: denormals, infinities and every kind of NaN among them."""
    info = torch.iinfo(INTEGERS[dtype])
    numbers = torch.randint(info.min, info.max, shape, generator=torch.Generator().manual_seed(0))
    return numbers.to(INTEGERS[dtype]).view(dtype)


def check(way, tensor, mask):
    wanted = bits_of(tensor).clone()
    wanted[~mask] = 0
    place, version = tensor.data_ptr(), tensor._version
    assert way(tensor, mask) is tensor
    assert tensor.data_ptr() == place
    assert tensor._version > version
    assert torch.equal(bits_of(tensor), wanted)


def test_where_gcc_is_installed_the_kernel_was_built():
    header = Path(sysconfig.get_path("include")) / "Python.h"
    gcc = (
        sys.platform == "linux" and shutil.which("gcc") and "gcc" in sysconfig.get_config_var("CC")
    )
    assert zeroing.kernel is not None or not (gcc and header.exists())


def test_the_kernel_gets_ordinary_tensors_and_nothing_else(monkeypatch):
    given = []
    monkeypatch.setattr(zeroing, "kernel", lambda *numbers: given.append(numbers))
    monkeypatch.setattr(zeroing, "pack_bits", lambda mask: torch.tensor([7], dtype=torch.uint8))
    tensor, mask = torch.ones(2, 3, 4, 5), torch.ones(2, 3, 4, 5, dtype=torch.bool)
    last, threads = LAYOUTS["channels last"], torch.get_num_threads()
    for ordinary in (tensor, nn.Parameter(tensor), tensor.double(), tensor.half()):
        zeroing.zero_pruned_(ordinary, mask)
        address, _, *rest = given.pop()
        assert address == ordinary.data_ptr()
        assert rest == [120, ordinary.element_size(), threads]
    zeroing.zero_pruned_(last(tensor), last(mask))
    assert given.pop()[2:] == (120, 4, threads)
    for layout in LAYOUTS.values():
        zeroing.zero_pruned_(layout(tensor), mask)
    zeroing.zero_pruned_(tensor, mask[:1])  # as torch broadcasts
    zeroing.zero_pruned_(tensor.to("meta"), mask.to("meta"))
    zeroing.zero_pruned_(tensor, mask.to("meta"))
    assert not given


@ways
@pytest.mark.parametrize("size", [8, CHUNK + 8], ids=["one chunk", "several"])
def test_a_mask_of_another_shape_is_refused(way, size):
    with pytest.raises(RuntimeError, match="size of tensor"):
        way(torch.ones(size), torch.ones(size - 1, dtype=torch.bool))


@ways
def test_any_true_byte_keeps(way):
    mask = torch.tensor([0, 1, 2, 128, 255], dtype=torch.uint8).view(torch.bool)
    assert way(torch.full((5,), 3.5), mask).tolist() == [0, 3.5, 3.5, 3.5, 3.5]


@ways
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 31, 32768, 32769, CHUNK, CHUNK + 7, 3 * CHUNK + 1])
def test_every_bit_of_a_pruned_element_is_zero_and_of_a_kept_one_as_it_was(way, dtype, size):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(1)) > 0.3
    check(way, drawn(dtype, size), mask)


@ways
@given(st.lists(st.booleans(), max_size=200), st.integers(0, 9))
def test_any_mask_and_any_part_of_a_larger_tensor(way, kept, start):
    whole = drawn(torch.float32, start + len(kept) + 3)
    before = bits_of(whole).clone()
    check(way, whole[start : start + len(kept)], torch.tensor(kept, dtype=torch.bool))
    assert torch.equal(bits_of(whole)[:start], before[:start])
    assert torch.equal(bits_of(whole)[start + len(kept) :], before[start + len(kept) :])


LAYOUTS = {
    "channels last": lambda tensor: tensor.to(memory_format=torch.channels_last),
    "transposed": lambda tensor: tensor.transpose(0, 1).contiguous().transpose(0, 1),
    "with gaps": lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
}


@ways
@pytest.mark.parametrize("side", [3, 128], ids=["one chunk", "several"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("both", [True, False], ids=["both", "the tensor alone"])
def test_layouts_in_memory(way, side, layout, both):
    tensor = LAYOUTS[layout](drawn(torch.float32, side, side, 9, 9))
    mask = torch.rand(side, side, 9, 9, generator=torch.Generator().manual_seed(1)) > 0.3
    check(way, tensor, LAYOUTS[layout](mask) if both else mask)


@pytest.mark.skipif(zeroing.kernel is None, reason="no kernel was built")
def test_a_mask_is_packed_once_and_again_when_it_was_written_to(monkeypatch):
    packed, pack_bits = [], zeroing.pack_bits
    monkeypatch.setattr(
        zeroing, "pack_bits", lambda mask: packed.append(mask.numel()) or pack_bits(mask)
    )
    mask = torch.tensor([True, False, True])
    kept = Kept(mask)
    for _ in range(3):
        assert kept.zero_(torch.ones(3)).tolist() == [1, 0, 1]
    assert packed == [3]
    mask[0] = False
    assert kept.zero_(torch.ones(3)).tolist() == [0, 0, 1]
    assert packed == [3, 3]


@given(st.lists(st.integers(0, 255), max_size=70), st.integers(0, 9))
def test_any_bytes_are_packed_as_in_plain_torch(kept, start):
    whole = torch.tensor([0] * start + kept, dtype=torch.uint8)
    packed = pack_bits(whole[start:].view(torch.bool))
    assert torch.equal(packed, pack_bits_plain(whole[start:]))
    flags = [packed[number // 8] >> number % 8 & 1 for number in range(len(kept))]
    assert flags == [byte != 0 for byte in kept]


def test_masks_made_in_inference_mode_are_read_as_they_are():
    with torch.inference_mode():
        mask = torch.tensor([True, False, True])
    kept = Kept(mask)
    assert kept.zero_(torch.ones(3)).tolist() == [1, 0, 1]
    with torch.inference_mode():
        mask[0] = False
    assert kept.zero_(torch.ones(3)).tolist() == [0, 0, 1]


@ways
def test_with_two_threads(way):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mask = torch.rand(CHUNK + 77) > 0.3
        check(way, drawn(torch.float32, CHUNK + 77), mask)
    finally:
        torch.set_num_threads(before)


@ways
def test_a_leaf_and_a_tensor_with_a_history_are_zeroed_unrecorded(way):
    leaf = nn.Parameter(torch.ones(4))
    product = leaf * 2
    mask = torch.tensor([True, False, True, False])
    for tensor, value in ((leaf, 1.0), (product, 2.0)):
        assert way(tensor, mask).tolist() == [value, 0.0, value, 0.0]
    assert leaf.grad_fn is None
    assert type(product.grad_fn).__name__ == "MulBackward0"


@pytest.mark.skipif(zeroing.kernel is None, reason="no kernel was built")
def test_the_kernel_refuses_what_it_cannot_write_to():
    with pytest.raises(ValueError, match="no memory of its own"):
        zeroing.kernel(0, 0, 1, 4, 1)
    with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes, got 3"):
        zeroing.kernel(0, 0, 0, 3, 1)
    with pytest.raises(TypeError, match="takes 5 arguments, got 1"):
        zeroing.kernel(0)


def test_a_subclass_without_memory_goes_through_its_own_operations():
    from torch.testing._internal.two_tensor import TwoTensor  # torch's own wrapper of two tensors

    both = TwoTensor(torch.ones(4), torch.full((4,), 2.0))
    mask = torch.tensor([True, False, True, False])
    zeroing.zero_pruned_(both, TwoTensor(mask, mask))
    assert both.a.tolist() == [1, 0, 1, 0]
    assert both.b.tolist() == [2, 0, 2, 0]


def _sanitizers():
    if not shutil.which("gcc"):
        return False
    asked = ["gcc", "-print-file-name=libasan.so"]  # the bare name where there is none
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return Path(said).is_absolute()


@pytest.mark.skipif(not _sanitizers(), reason="gcc with its sanitizers is not installed")
def test_odd_tensors_come_out_as_in_plain_torch_and_no_sanitizer_complains(tmp_path):
    out = tmp_path / "sanitize.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.sanitize", "--cases", "400", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    record = json.loads(out.read_text("utf-8"))
    assert record["a read past the end is caught"]
    assert record["sanitizers"] == ""
    assert record["differences"] == []
    assert min(record["kinds"].values()) == 20
    assert record["ways"]["by the kernel"] > 180
    assert record["masks chosen"] > 180
