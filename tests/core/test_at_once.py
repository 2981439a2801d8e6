"""On a GPU all held tensors are zeroed by a few launches: the same operations here on the CPU,
where they can be counted and compared."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import redense
from redense import constraint
from redense.tensors import zeroing
from redense.tensors.zeroing import Kept, zero_all_pruned_, zero_foreach_, zero_pruned_plain_


class Launches(TorchDispatchMode):
    """Counts the operations that would be kernels on a GPU, a list's as one."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in {"view", "detach", "empty_like", "t", "alias", "_to_copy"}:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Zero gradients when the backward pass ends, and lists of tensors by foreach operations."""
    monkeypatch.setattr(constraint, "_at_once", lambda gradient: True)
    monkeypatch.setattr(
        constraint,
        "zero_all_pruned_",
        lambda pairs: zero_foreach_([(tensor, kept.mask) for tensor, kept in pairs]),
    )


def drawn(dtype, *shape):
    bits = torch.randint(0, 256, (*shape, torch.finfo(dtype).bits // 8), dtype=torch.uint8)
    return bits.view(dtype).squeeze(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [1 << 24, 100])
def test_a_list_is_zeroed_bit_by_bit_as_each_alone(dtype, room, monkeypatch):
    monkeypatch.setattr(zeroing, "_LARGE", room)
    shapes = [(7,), (3, 5), (2, 3, 4, 4), (0, 4), (), (40, 2), (1, 90)]
    tensors = [drawn(dtype, *shape) for shape in shapes]
    tensors[2] = tensors[2].to(memory_format=torch.channels_last)
    masks = [torch.rand_like(tensor, dtype=torch.float32) > 0.5 for tensor in tensors]
    alone = [
        zero_pruned_plain_(tensor.clone(), mask)
        for tensor, mask in zip(tensors, masks, strict=True)
    ]
    versions = [tensor._version for tensor in tensors]
    zero_foreach_(list(zip(tensors, masks, strict=True)))
    for tensor, right, version in zip(tensors, alone, versions, strict=True):
        integer = zeroing._INTEGER[tensor.element_size()]
        assert torch.equal(tensor.view(integer), right.view(integer))
        assert tensor._version > version


def test_the_launches_do_not_grow_with_the_tensors():
    counts = []
    for many in (3, 300):
        pairs = [(torch.ones(8), torch.rand(8) > 0.5) for _ in range(many)]
        with Launches() as launches:
            zero_foreach_(pairs)
        counts.append(launches.counts)
    assert counts[0] == counts[1] == {"_foreach_copy_": 1, "_foreach_mul_": 1}


def test_what_no_list_takes_is_zeroed_alone_on_any_device():
    odd = torch.ones(2, 3, 4, 4, device="meta").to(memory_format=torch.channels_last)
    large = torch.ones(zeroing._LARGE, device="meta")
    plain = [torch.ones(5, device="meta") for _ in range(4)]
    pairs = [(t, torch.ones(t.shape, dtype=torch.bool, device="meta")) for t in (odd, large)]
    pairs += [(t, torch.ones(5, dtype=torch.bool, device="meta")) for t in plain]
    pairs = [(tensor, Kept(mask)) for tensor, mask in pairs]
    with Launches() as launches:
        zero_all_pruned_(pairs)
    assert launches.counts == {"mul_": 2, "_foreach_copy_": 1, "_foreach_mul_": 1}


def network(layers):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(6, 6) for _ in range(layers)))


def trained(layers, optimizer_of, steps=6):
    """Weights after a sparse phase of clipped, accumulated steps and two free ones; held weights'
    gradients as clipping saw them."""
    model = network(layers)
    optimizer = optimizer_of(model.parameters())
    seen = []

    def step(masks):
        optimizer.zero_grad()
        for _ in range(2):
            model(torch.randn(4, 6)).square().sum().backward()
            grads = {name: model.get_parameter(name).grad for name in masks}
            seen.extend(grads[name][~mask].abs().max() for name, mask in masks.items())
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(steps):
            step(held.masks)
            assert all(not model.get_parameter(n)[~m].any() for n, m in held.masks.items())
    step({})
    step({})
    assert not any(map(float, seen))
    return model.state_dict()


OPTIMIZERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, foreach=True),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=0.01, foreach=True),
    "Muon": lambda weights: torch.optim.Muon([w for w in weights if w.dim() == 2], lr=0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_training_ends_with_the_same_bits(kind, request):
    alone = trained(3, OPTIMIZERS[kind])
    request.getfixturevalue("as_on_a_gpu")
    at_once = trained(3, OPTIMIZERS[kind])
    assert all(torch.equal(alone[name], at_once[name]) for name in alone)


def test_a_step_launches_as_much_for_thirty_tensors_as_for_three(as_on_a_gpu):
    counts = []
    for layers in (3, 30):
        model = network(layers)
        optimizer = OPTIMIZERS["SGD"](model.parameters())
        held = redense.Constraint(
            model, optimizer, redense.build_masks(redense.prunable(model), 0.5)
        )
        for _ in range(2):
            model(torch.randn(4, 6)).square().sum().backward()
            optimizer.step()
        loss = model(torch.randn(4, 6)).square().sum()
        with Launches() as launches:
            loss.backward()
            optimizer.step()
        held.release()
        ours = {name: many for name, many in launches.counts.items() if name.startswith("_foreach")}
        counts.append(ours | {"masked": launches.counts["masked_fill_"]})
    assert counts[0] == counts[1]
    assert counts[0]["_foreach_copy_"] == 1


def test_a_backward_pass_that_fails_leaves_nothing_undone(as_on_a_gpu):
    model = network(3)
    optimizer = OPTIMIZERS["SGD"](model.parameters())

    def fail(gradient):
        raise RuntimeError("out of memory")

    with redense.sparse(model, optimizer, 0.5) as held:
        handle = model[0].weight.register_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            model(torch.randn(4, 6)).square().sum().backward()
        handle.remove()
        optimizer.step()
        for name, mask in held.masks.items():
            assert not model.get_parameter(name)[~mask].any()
        model(torch.randn(4, 6)).square().sum().backward()
        for name, mask in held.masks.items():
            assert not model.get_parameter(name).grad[~mask].any()


def test_an_optimizer_that_steps_inside_the_backward_pass_finds_zeros(as_on_a_gpu):
    model = network(3)
    optimizers = [torch.optim.SGD([weight], lr=0.1) for weight in model.parameters()]
    trainers = dict(zip(model.parameters(), optimizers, strict=True))

    def step(weight):
        trainers[weight].step()
        trainers[weight].zero_grad()

    with redense.sparse(model, optimizers, 0.5) as held:
        for weight in model.parameters():
            weight.register_post_accumulate_grad_hook(step)
        for _ in range(3):
            model(torch.randn(4, 6)).square().sum().backward()
            for name, mask in held.masks.items():
                assert not model.get_parameter(name)[~mask].any()


def test_among_ranks_each_gradient_is_zeroed_when_it_is_complete(monkeypatch):
    class OnGpu:
        is_cuda = True

    assert constraint._at_once(OnGpu())
    monkeypatch.setattr(constraint.dist, "is_initialized", lambda: True)
    assert not constraint._at_once(OnGpu())
    assert not constraint._at_once(torch.ones(2))
