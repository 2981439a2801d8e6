"""What is asked of a held weight at each step: compiled and in Python the same answers."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from redense.tensors.watching import PlainWatch, Watch, plain_stamp, stamp
from redense.tensors.zeroing import Kept

CLASSES = [PlainWatch] if Watch is PlainWatch else [PlainWatch, Watch]
both = pytest.mark.parametrize("base", CLASSES, ids=lambda base: base.__module__.split(".")[-1])
stamps = pytest.mark.parametrize("stamped", dict.fromkeys((plain_stamp, stamp)))


def watch(base, weight, mask):
    """A watch whose ``slow`` counts the gradients that Python took care of."""

    class Held(base):
        slow = 0

        def zero_gradient(self, gradient):
            self.slow += 1
            self.kept.zero_(gradient)
            self.trust_gradient(gradient)

    return Held(weight, Kept(mask))


def weight_with_gradient(shape=(5, 7), dtype=torch.float32, memory_format=torch.contiguous_format):
    weight = nn.Parameter(torch.randn(shape).to(dtype).to(memory_format=memory_format))
    weight.grad = torch.randn(shape).to(dtype).to(memory_format=memory_format)
    return weight, (torch.rand(shape) > 0.4).to(memory_format=memory_format)


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 7), (64, 3, 3, 3), (200, 300), (1,), (3, 1, 5)])
def test_a_gradient_is_zeroed_where_the_mask_says(base, dtype, shape):
    weight, mask = weight_with_gradient(shape, dtype)
    watched = watch(base, weight, mask)
    for _ in range(3):
        weight.grad = torch.randn(shape).to(dtype)
        weight.grad.view(-1)[0] = float("nan")
        wanted = weight.grad.masked_fill(~mask, 0)
        version = weight.grad._version
        watched(weight)
        assert torch.equal(weight.grad.view(torch.uint8), wanted.view(torch.uint8))
        assert weight.grad._version > version
        assert not watched.gradient_was_changed()
    assert watched.slow == (3 if base is PlainWatch else 1)  # the first packs the mask


@both
def test_layouts_that_differ_from_the_mask_s_are_zeroed_too(base):
    weight, mask = weight_with_gradient((4, 6, 3, 3), memory_format=torch.channels_last)
    watched = watch(base, weight, mask)
    watched(weight)
    assert not weight.grad[~mask].any()
    weight.grad = torch.randn(4, 6, 3, 3)  # contiguous beside a mask in channels_last
    watched(weight)
    assert not weight.grad[~mask].any()
    assert weight.grad[mask].all()
    weight.grad = torch.randn(3, 3, 4, 6).permute(2, 3, 0, 1)
    watched(weight)
    assert not weight.grad[~mask].any()
    assert weight.grad[mask].all()


@both
def test_a_mask_that_is_written_to_later_counts_as_it_is_then(base):
    weight, mask = weight_with_gradient()
    watched = watch(base, weight, mask)
    watched(weight)
    mask.zero_()
    weight.grad = torch.ones(5, 7)
    watched(weight)
    assert not weight.grad.any()
    mask.fill_(True)
    weight.grad = torch.ones(5, 7)
    watched(weight)
    assert weight.grad.all()


@both
def test_a_weight_without_a_gradient_is_left_alone(base):
    weight, mask = weight_with_gradient()
    weight.grad = None
    watched = watch(base, weight, mask)
    watched(weight)
    assert weight.grad is None
    assert watched.slow == 0
    assert not watched.gradient_was_changed()


@both
def test_a_sparse_gradient_is_python_s_to_refuse(base):
    weight = nn.Parameter(torch.randn(5, 3))
    watched = watch(base, weight, torch.ones(5, 3, dtype=torch.bool))
    nn.functional.embedding(torch.tensor([1]), weight, sparse=True).sum().backward()
    with pytest.raises(RuntimeError):
        watched(weight)
    assert watched.slow == 1


@both
def test_an_error_in_python_s_part_reaches_the_caller(base):
    class Refusing(base):
        def zero_gradient(self, gradient):
            raise NotImplementedError("not this one")

    weight, mask = weight_with_gradient()
    with pytest.raises(NotImplementedError, match="not this one"):
        Refusing(weight, Kept(mask))(weight)


@both
def test_writes_to_the_weight_are_seen(base):
    weight, mask = weight_with_gradient()
    watched = watch(base, weight, mask)
    assert watched.was_written()  # nobody has vouched for it
    watched.trust_weight()
    assert not watched.was_written()
    with torch.no_grad():
        weight.mul_(2)
    assert watched.was_written()
    watched.trust_weight()
    weight.data = weight.data.clone()  # the same version, other memory
    assert watched.was_written()
    watched.trust_weight()
    assert not watched.was_written()


@both
def test_another_gradient_and_a_write_to_it_are_seen(base):
    weight, mask = weight_with_gradient()
    watched = watch(base, weight, mask)
    assert watched.gradient_was_changed()
    watched(weight)
    assert not watched.gradient_was_changed()
    weight.grad.clamp_(max=0.1)
    assert watched.gradient_was_changed()
    watched.trust_gradient(weight.grad)
    assert not watched.gradient_was_changed()
    for _ in range(20):  # at the address of the last one, as a rule
        weight.grad = None
        weight.grad = torch.randn(5, 7)
        assert watched.gradient_was_changed()
        watched(weight)


@both
def test_a_watch_in_a_circle_is_collected(base):
    weight, mask = weight_with_gradient()
    watched = watch(base, weight, mask)
    watched(weight)
    watched.itself = watched
    gone = [weakref.ref(watched), weakref.ref(weight)]
    del weight, watched
    gc.collect()
    assert [one() for one in gone] == [None, None]


@both
def test_what_is_missing_is_named(base):
    with pytest.raises(TypeError):
        base()
    watched = watch(base, *weight_with_gradient())
    with pytest.raises(TypeError):
        watched()
    with pytest.raises(TypeError):
        watched(watched.weight, more=1)
    with pytest.raises(NotImplementedError):
        base(watched.weight, watched.kept).zero_gradient(watched.weight.grad)


@both
def test_one_that_was_never_begun_says_so(base):
    empty = base.__new__(base)
    for ask in ("was_written", "trust_weight", "gradient_was_changed"):
        with pytest.raises(AttributeError):
            getattr(empty, ask)()


@both
def test_its_arguments_have_names(base):
    weight, mask = weight_with_gradient()

    class Held(base):
        def zero_gradient(self, gradient):
            self.kept.zero_(gradient)

    Held(weight=weight, kept=Kept(mask))(weight=weight)
    assert not weight.grad[~mask].any()


@both
def test_nine_dimensions_and_an_odd_device_are_python_s(base):
    shape = (1, 2, 1, 2, 1, 2, 1, 2, 3)
    weight, mask = weight_with_gradient(shape)
    watched = watch(base, weight, mask)
    watched(weight)
    watched(weight)
    assert watched.slow == 2
    assert not weight.grad[~mask].any()
    meta = nn.Parameter(torch.empty(3, device="meta"))
    far = watch(base, meta, torch.ones(3, dtype=torch.bool, device="meta"))
    assert far.was_written()
    far.trust_weight()
    assert not far.was_written()


@stamps
def test_stamps_are_equal_for_the_same_tensors_in_the_same_versions(stamped):
    tensors = [torch.randn(3) for _ in range(4)]
    before = stamped(tensors)
    assert stamped(list(tensors)) == before
    assert stamped([]) == stamped([])
    assert stamped(tensors[::-1]) != before
    assert stamped(tensors[:3]) != before
    assert stamped([*tensors[:3], tensors[3].clone()]) != before
    tensors[2].add_(1)
    assert stamped(tensors) != before


TRAINED = """
import sys
if {without}:
    sys.modules["redense.tensors._kernels"] = None
import hashlib, torch, redense
from redense.tensors.watching import PlainWatch, Watch
assert (Watch is PlainWatch) == {without}
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 5))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
with redense.sparse(model, optimizer, 0.4):
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
bits = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
print(hashlib.sha256(bits).hexdigest())
"""


@pytest.mark.skipif(Watch is PlainWatch, reason="no kernel was built")
@pytest.mark.parametrize("table", ["5", "torch.Tensor.data_ptr"])
def test_a_torch_with_another_exchange_table_is_asked_in_python_and_zeroed_in_c(table):
    script = (
        f"import torch; torch.Tensor.__dlpack_c_exchange_api__ = {table}\n"
        "import redense\n"
        "from redense.tensors import watching, zeroing\n"
        "assert watching.Watch is watching.PlainWatch\n"
        "assert watching.stamp is watching.plain_stamp\n"
        "assert zeroing.kernel is not None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_network_trains_to_the_same_bits_without_the_kernel():
    found = {
        subprocess.run(
            [sys.executable, "-c", TRAINED.format(without=without)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for without in ((True, False) if Watch is not PlainWatch else (True,))
    }
    assert len(found) == 1
