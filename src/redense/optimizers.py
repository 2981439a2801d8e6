"""The optimizers of a held weight, and what happens to their state when it is held and released.

Optimizers keep two kinds of element-wise state. *Moments* (momentum, the mean gradient) move a
weight even without a gradient, so they are zero wherever a weight is held. *Scales* (the mean
squared gradient) divide the step: a scale that decayed while its weight was held would make the
released weight leap (up to 13 times the rate, measured for NAdam), so at release it becomes the
largest among the survivors of its row or of its column, whichever is smaller: a gradient is an
outer product, so one lively neuron sets the scale of its own row and column and not of the whole
tensor, whose largest survivor would hold weights between calm neurons (a rare word's, say) at zero
for good.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim import LBFGS, Optimizer

from .tensors.sharded import shard_of
from .tensors.watching import stamp

Optimizers = Optimizer | Iterable[Optimizer]

_MOMENTS = {"momentum_buffer", "exp_avg", "grad_avg", "prev", "ax"}
_SCALES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg"}
# Kept as they are: Adagrad's sum and Adamax's exp_inf never fall below the coming gradient, so
# their steps stay within
# the rate by themselves; Rprop's step_size and Adadelta's acc_delta are step lengths, which do not
# move under a mask.
_KEPT = {"sum", "exp_inf", "step_size", "acc_delta"}

_TORCH = "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax NAdam RAdam RMSprop Rprop SGD"
ELEMENTWISE: frozenset[type[Optimizer]] = frozenset(
    getattr(torch.optim, name) for name in _TORCH.split()
)
"""Optimizers that leave a zero weight with zero gradients and zero moments exactly at zero, each
tested for it."""


_FEW_BITS = re.compile(r"(4|8)_?bit|fp8", re.IGNORECASE)


def optimizers_in(optimizer: Optimizers) -> list[Optimizer]:
    """The torch optimizers whose steps can be watched: of a list, of wrappers without hooks
    (Accelerate, Opacus) the one inside, of two-step optimizers (SAM) the outer and the inner."""
    watched = []
    for given in _several(optimizer):
        for one in _inside(given):
            _check_state_is_readable(one)
        inside = [one for one in _inside(given) if _has_hooks(one)]
        if not inside:
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer or several, or wrap one, got "
                f"{type(given).__name__}"
            )
        watched += [one for one in inside if one not in watched]
    if not watched:
        raise ValueError("optimizer must be one or more torch optimizers, got an empty list")
    return watched


def _check_state_is_readable(optimizer: Any) -> None:
    """Refuse states of 8 bits and less (bitsandbytes, torchao): moments in a code of their own."""
    settings = getattr(optimizer, "__dict__", {}).get("args")  # where bitsandbytes keeps optim_bits
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    if getattr(settings, "optim_bits", 32) < 32 or any(map(_FEW_BITS.search, names)):
        raise NotImplementedError(
            f"{type(optimizer).__name__} keeps its state in 8 bits or fewer, where the momentum of "
            "held weights cannot be zeroed; use its 32-bit form, AdamW say"
        )


def wrappers_in(optimizer: Optimizers) -> list[Any]:
    """What steps around a torch optimizer without hooks of its own, and may write to the weights
    after it: Lookahead and its kin."""
    return [one for given in _several(optimizer) for one in _inside(given) if not _has_hooks(one)]


def _several(optimizer: Optimizers) -> list[Any]:
    alone = isinstance(optimizer, Optimizer) or not isinstance(optimizer, Iterable)
    return [optimizer] if alone else list(optimizer)  # type: ignore[arg-type]


def _inside(optimizer: Any) -> list[Any]:
    """A wrapper and every optimizer that it keeps as an attribute or in a list, each once."""
    inside: list[Any] = []
    waiting = [optimizer]
    while waiting:
        one = waiting.pop(0)
        if any(one is known for known in inside):
            continue
        inside.append(one)
        for value in getattr(one, "__dict__", {}).values():
            kept = value if isinstance(value, (list, tuple)) else (value,)
            waiting += [inner for inner in kept if isinstance(inner, Optimizer)]
    return inside


def _has_hooks(optimizer: Any) -> bool:
    """Whether torch calls step hooks: the class's own step is prepared by Optimizer.__init__, which
    many wrappers never call."""
    return isinstance(optimizer, Optimizer) and (
        "_optimizer_step_pre_hooks" in vars(optimizer)
        and getattr(type(optimizer).step, "hooked", False)
    )


def optimizers_of(
    weights: Mapping[str, Tensor], optimizers: Iterable[Optimizer]
) -> dict[str, list[Optimizer]]:
    """The optimizers that each weight is in; a weight in none is a ValueError."""
    trainers: dict[int, list[Optimizer]] = {}
    for opt in optimizers:
        for group in opt.param_groups:
            for weight in group["params"]:
                trainers.setdefault(id(weight), []).append(opt)
    for name, weight in weights.items():
        for opt in trainers.get(id(weight), ()):
            if any(group.get("eps") == 0 for group in opt.param_groups):
                raise ValueError(
                    f"{type(opt).__name__} has eps=0, so the step of a held weight would be 0/0; "
                    "pass eps=1e-8"
                )
        if id(weight) not in trainers:
            raise ValueError(
                f"{name} is in no param group of the optimizer, so it could not grow back after "
                "release; "
                f"add it to the optimizer or pass exclude={name!r}"
            )
    return {name: trainers[id(weight)] for name, weight in weights.items()}


def moments(optimizer: Optimizer, weight: Tensor) -> list[Tensor]:
    """The state that moves ``weight`` by itself."""
    return [value for name, value in _elementwise(optimizer, weight) if _is_moment(name, value)]


def hold_state(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    """Zero the moments of ``weight`` where ``mask`` is False."""
    for moment in moments(optimizer, weight):
        _fill(moment, mask, 0.0)


def release_state(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    """Make ``weight``'s pruned elements start calmly: no momentum, and the scale of their liveliest
    neighbours."""
    if not weight.numel():
        return
    for name, value in _elementwise(optimizer, weight):
        if _is_moment(name, value):
            _fill(value, mask, 0.0)
        elif name not in _KEPT:
            _fill_from_neighbours(value, mask)


def forget_history(optimizer: Optimizer, masks: Mapping[int, Tensor]) -> None:
    """Drop LBFGS's curvature pairs if they would move a held weight; ``masks`` are keyed by
    ``id(weight)``."""
    if not isinstance(optimizer, LBFGS) or not optimizer.state:
        return
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradient = optimizer.state[parameters[0]].get("prev_flat_grad")
    if gradient is None:
        return
    flat = gradient.split([weight.numel() for weight in parameters])
    if any(
        part[~masks[id(w)].view(-1)].any()
        for part, w in zip(flat, parameters, strict=True)
        if id(w) in masks
    ):
        optimizer.state.clear()


class KnownState:
    """Whether anything but its own steps, a rollback say, has written to an optimizer's state.

    known = KnownState(optimizer, weights)
    optimizer.state[weight]["exp_avg"].copy_(earlier)
    known.was_written()  # True
    """

    def __init__(self, optimizer: Optimizer, weights: Iterable[Tensor]) -> None:
        self._optimizer, self._weights = optimizer, list(weights)
        self._keys, self._every, self._own = list[Any](), list[Any](), list[Any]()
        self.trust()

    def trust(self) -> None:
        """Take the state as it is now for the optimizer's own."""
        self._tensors = self._now()
        self._stamp = stamp(self._tensors)

    def was_written(self) -> bool:
        """Whether there are other tensors, or one has been written to, since `trust`."""
        return stamp(self._now()) != self._stamp

    def _now(self) -> list[Tensor]:
        keys, every = list(self._optimizer.state), list(self._optimizer.state.values())
        if not (_are_the_same(keys, self._keys) and _are_the_same(every, self._every)):
            # looked up by weight only where there are others: hashing a tensor is slow
            states = map(self._optimizer.state.get, self._weights)
            self._own = [state for state in states if isinstance(state, Mapping)]
            self._keys, self._every = keys, every
        values = [value for state in self._own for value in state.values()]
        if set(map(type, values)) <= {Tensor}:
            return values
        return [value for _, value in _tensors(values)]


def _are_the_same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _elementwise(optimizer: Optimizer, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    for name, value in _tensors(optimizer.state.get(weight, {})):
        if value.shape == weight.shape and value.is_floating_point():
            yield name, value


def _tensors(state: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor in a state by the nearest name: of ``{0: {"exp_avg": m}}`` it is exp_avg."""
    inside: list[tuple[str, Tensor]] = []
    entries = state.items() if isinstance(state, dict) else ((name, value) for value in state)
    for key, value in entries:
        nearest = key if isinstance(key, str) else name
        if isinstance(value, Tensor):
            inside.append((nearest, value))
        elif isinstance(value, (dict, list, tuple)):
            inside += _tensors(value, nearest)
    return inside


def _is_moment(name: str, value: Tensor) -> bool:
    """By name; of a state that torch has not got, one with a negative element is a moment."""
    if name in _MOMENTS or name in _SCALES or name in _KEPT:
        return name in _MOMENTS
    local, group = shard_of(value)
    negative = (local < 0).any()
    if group is not None:
        negative = negative.int()
        dist.all_reduce(negative, dist.ReduceOp.MAX, group=group)
    return bool(negative)


def _fill(value: Tensor, mask: Tensor, filling: float) -> None:
    shard_of(value)[0].masked_fill_(~shard_of(mask)[0], filling)


def _fill_from_neighbours(value: Tensor, mask: Tensor) -> None:
    """Each pruned element gets the smaller of its row's and its column's largest survivor.

    Rows and columns are the first two dimensions. The tensor's largest survivor stands in for a row
    or column without a lively one, and its largest element where none survives.
    """
    local, group = shard_of(value)
    pruned = ~shard_of(mask)[0]
    width, depth = value.shape[1] if value.dim() > 1 else 1, math.prod(value.shape[2:])
    matrix = local.masked_fill(pruned, 0.0).reshape(len(local), width, depth).amax(2)
    rows, columns = matrix.amax(1, keepdim=True), _largest(matrix, group)
    largest = columns.amax() if columns.any() else _largest(local.reshape(-1, 1), group)
    filling = torch.minimum(rows.where(rows > 0, largest), columns.where(columns > 0, largest))
    local.copy_(filling.view(*local.shape[:2], *[1] * (value.dim() - 2)).where(pruned, local))


def _largest(matrix: Tensor, group: Any) -> Tensor:
    """The largest value of each column, over all ranks; 0 where there is no row."""
    columns = matrix.new_zeros(matrix.shape[1:]) if not len(matrix) else matrix.amax(0)
    if group is not None:
        dist.all_reduce(columns, dist.ReduceOp.MAX, group=group)
    return columns
