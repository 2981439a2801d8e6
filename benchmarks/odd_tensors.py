"""Tensors and masks as odd as torch lets them be, from a seed: what `benchmarks.sanitize` zeroes.

Each of `KINDS` makes one of its kind from `Draws`; the same draws make the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from random import Random

import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor  # torch's own wrapper of two tensors

DTYPES = (
    *(torch.float8_e4m3fn, torch.int8, torch.float16, torch.bfloat16),
    *(torch.float32, torch.float64, torch.int64),
)
PIECE = 32768  # elements that one thread of the kernel takes at a time


@dataclass(frozen=True)
class Case:
    """A tensor, its mask, and all the bytes that they lie in, neighbours included."""

    tensor: Tensor
    mask: Tensor
    memory: tuple[Tensor, ...]


class Draws:
    """Everything random about one case."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = Random(f"{seed} {number}")
        self._bytes = torch.Generator().manual_seed(seed * 1_000_003 + number)

    def memory(self, count: int) -> Tensor:
        """So many bytes and no more: what is behind them belongs to nobody."""
        return torch.randint(256, (count,), generator=self._bytes, dtype=torch.uint8)

    def flags(self, count: int) -> Tensor:
        """Mask bytes: half of them 0, the others anything that is not."""
        bytes_of = self.memory(count)
        return bytes_of.where(self.memory(count) > 127, torch.zeros_like(bytes_of))

    def shape(self, least: int = 0) -> tuple[int, ...]:
        """Up to five dimensions of 1 to 6."""
        return tuple(self.random.randint(1, 6) for _ in range(self.random.randint(least, 5)))

    def dtype(self) -> torch.dtype:
        """One of those that weights, gradients and optimizer states have."""
        return self.random.choice(DTYPES)


def _dense(draws: Draws, shape: Sequence[int]) -> Case:
    dtype = draws.dtype()
    count = prod(shape)
    memory, flags = draws.memory(count * dtype.itemsize), draws.flags(count)
    tensor = memory.view(dtype).view(tuple(shape))
    return Case(tensor, flags.view(torch.bool).view(tuple(shape)), (memory, flags))


def _contiguous(draws: Draws) -> Case:
    return _dense(draws, draws.shape())


def _without_dimensions(draws: Draws) -> Case:
    return _dense(draws, ())


def _empty(draws: Draws) -> Case:
    shape = list(draws.shape(1))
    shape[draws.random.randrange(len(shape))] = 0
    return _dense(draws, shape)


def _for_several_threads(draws: Draws) -> Case:
    return _dense(draws, (draws.random.randint(1, 3) * PIECE + draws.random.randint(-2, 2),))


def _part_of_a_larger_one(draws: Draws) -> Case:
    case = _dense(draws, (draws.random.randint(1, 300),))
    first = draws.random.randrange(len(case.tensor))
    last = draws.random.randint(first, len(case.tensor))
    return Case(case.tensor[first:last], case.mask[first:last], case.memory)


def _changed(draws: Draws, case: Case, change: Callable[[Tensor], Tensor]) -> Case:
    """The tensor, the mask or both in another layout; what is left alone has the same shape."""
    tensor, mask = change(case.tensor), change(case.mask)
    alone = draws.random.choice(("both", "tensor", "mask"))
    if alone == "tensor":
        mask = mask.contiguous()
        return Case(tensor, mask, (case.memory[0], mask.view(torch.uint8)))
    if alone == "mask":
        tensor = tensor.contiguous()
        return Case(tensor, mask, (tensor, case.memory[1]))
    return Case(tensor, mask, case.memory)


def _with_gaps(draws: Draws) -> Case:
    step = draws.random.randint(2, 3)
    return _changed(draws, _dense(draws, draws.shape(1)), lambda one: one[..., ::step])


def _transposed(draws: Draws) -> Case:
    return _changed(draws, _dense(draws, draws.shape(2)), lambda one: one.transpose(0, -1))


def _channels_last(draws: Draws) -> Case:
    dimensions = draws.random.choice((4, 5))
    shape = tuple(draws.random.randint(1, 6) for _ in range(dimensions))
    back = (0, dimensions - 1, *range(1, dimensions - 1))  # as channels_last and _3d lie in memory
    return _changed(draws, _dense(draws, shape), lambda one: one.permute(back))


def _expanded(draws: Draws) -> Case:
    many = draws.random.randint(1, 5)
    case = _dense(draws, (1, *draws.shape()))
    return _changed(draws, case, lambda one: one.expand(many, *one.shape[1:]))


def _overlapping_windows(draws: Draws) -> Case:
    case = _dense(draws, (40,))
    size = draws.random.randint(2, 8), draws.random.randint(2, 8)
    stride = draws.random.choice(((1, 1), (2, 1), (1, 2), (1, 0), (0, 1)))
    return _changed(draws, case, lambda one: one.as_strided(size, stride))


def _mask_in_the_tensors_memory(draws: Draws) -> Case:
    dtype, count = draws.dtype(), draws.random.randint(2, 40)
    memory = draws.flags(count * dtype.itemsize + count)
    tensor = memory[: count * dtype.itemsize].view(dtype)
    first = draws.random.randint(0, count * dtype.itemsize)  # at the latest right behind it
    return Case(tensor, memory[first : first + count].view(torch.bool), (memory,))


def _mask_of_another_shape(draws: Draws) -> Case:
    case = _dense(draws, draws.shape(1))
    shape = [draws.random.choice((size, 1, size + 1)) for size in case.tensor.shape]
    flags = draws.flags(prod(shape))
    return Case(case.tensor, flags.view(torch.bool).view(tuple(shape)), (case.memory[0], flags))


def _at_any_address(draws: Draws) -> Case:
    dtype, count = draws.dtype(), draws.random.randint(1, 100)
    offset = draws.random.randint(1, 8)
    memory = draws.memory(offset + count * dtype.itemsize)
    flags = draws.flags(count)
    shifted = torch.frombuffer(memory.numpy(), dtype=dtype, offset=offset)
    return Case(shifted, flags.view(torch.bool), (memory, flags))


def _parameter(draws: Draws) -> Case:
    case = _dense(draws, draws.shape())
    learns = case.tensor.is_floating_point()
    return Case(nn.Parameter(case.tensor, requires_grad=learns), case.mask, case.memory)


def _with_a_history(draws: Draws) -> Case:
    leaf = nn.Parameter(draws.memory(40).float())
    flags = draws.flags(40)
    product = leaf * 2
    return Case(product, flags.view(torch.bool), (leaf.detach(), product.detach(), flags))


def _in_inference(draws: Draws) -> Case:
    case = _dense(draws, draws.shape())
    with torch.inference_mode():
        tensor = case.tensor.clone()
    return Case(tensor, case.mask, (tensor, case.memory[1]))


class _Named(Tensor):
    """A subclass that has memory."""


def _subclass(draws: Draws) -> Case:
    case = _dense(draws, draws.shape())
    return Case(case.tensor.as_subclass(_Named), case.mask, case.memory)


def _two_tensors_in_one(draws: Draws) -> Case:
    case = _dense(draws, draws.shape(1))
    both = TwoTensor(case.tensor, case.tensor.clone())
    return Case(both, TwoTensor(case.mask, case.mask), (case.memory[0], both.b, case.memory[1]))


def _complex(draws: Draws) -> Case:
    dtype = draws.random.choice((torch.complex64, torch.complex128))
    memory, flags = draws.memory(20 * dtype.itemsize), draws.flags(20)
    return Case(memory.view(dtype), flags.view(torch.bool), (memory, flags))


def _without_strides(draws: Draws) -> Case:
    case = _dense(draws, (4, 4))
    numbers = torch.eye(4)
    layout = draws.random.choice(("sparse", "rows", "mkldnn", "meta"))
    made = {
        "sparse": numbers.to_sparse(),
        "rows": numbers.to_sparse_csr(),
        "mkldnn": numbers.to_mkldnn(),
        "meta": numbers.to("meta"),
    }
    return Case(made[layout], case.mask, (case.memory[1],))


KINDS: dict[str, Callable[[Draws], Case]] = {
    "contiguous": _contiguous,
    "without dimensions": _without_dimensions,
    "empty": _empty,
    "for several threads": _for_several_threads,
    "part of a larger one": _part_of_a_larger_one,
    "with gaps": _with_gaps,
    "transposed": _transposed,
    "channels last": _channels_last,
    "expanded": _expanded,
    "overlapping windows": _overlapping_windows,
    "mask in the tensor's memory": _mask_in_the_tensors_memory,
    "mask of another shape": _mask_of_another_shape,
    "at any address": _at_any_address,
    "parameter": _parameter,
    "with a history": _with_a_history,
    "in inference": _in_inference,
    "subclass": _subclass,
    "two tensors in one": _two_tensors_in_one,
    "complex": _complex,
    "without strides": _without_strides,
}
