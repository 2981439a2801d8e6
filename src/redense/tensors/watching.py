"""What a sparse phase asks of each held weight at each step: in C too, for a network of many small
tensors spends its sparse steps asking."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor

from .zeroing import Kept


def _nothing() -> None:
    """A gradient that there never was."""


class PlainWatch:
    """A weight, and what is known of it and its gradient; called as the gradient's hook.

    A subclass says in ``zero_gradient(gradient)`` how a gradient that has just been accumulated is
    zeroed.

    Args:
        weight: held at zero where ``kept`` says so.
    """

    def __init__(self, weight: Tensor, kept: Kept) -> None:
        self.weight, self.kept = weight, kept
        self._masked: tuple[Callable[[], Tensor | None], int] = (_nothing, 0)
        self._seen = (-1, 0)

    def __call__(self, weight: Tensor) -> None:
        """Zero the weight's gradient, if it has one; the compiled one does that of an ordinary
        tensor by itself."""
        gradient = weight.grad
        if gradient is not None:
            self.zero_gradient(gradient)

    def zero_gradient(self, gradient: Tensor) -> None:
        """Set to zero what is held, and `trust_gradient`."""
        raise NotImplementedError

    def was_written(self) -> bool:
        """Whether the weight's memory or version is another than at `trust_weight`."""
        return (self.weight._version, self.weight.data_ptr()) != self._seen

    def trust_weight(self) -> None:
        """Take the weight as it is for zeroed."""
        self._seen = (self.weight._version, self.weight.data_ptr())

    def gradient_was_changed(self) -> bool:
        """Whether there is a gradient, and it is not the one that was zeroed last."""
        gradient = self.weight.grad
        known, version = self._masked
        return gradient is not None and (known() is not gradient or version != gradient._version)

    def trust_gradient(self, gradient: Tensor) -> None:
        """Take the gradient as it is for zeroed."""
        self._masked = (weakref.ref(gradient), gradient._version)


def plain_stamp(tensors: list[Tensor]) -> object:
    """What is equal for lists of the same tensors in the same versions, while they live."""
    return [(id(tensor), tensor._version) for tensor in tensors]


try:
    from ._kernels import Watch as Watch
    from ._kernels import stamp as stamp
except ImportError:  # no C compiler that knows OpenMP, or a torch without DLPack's C functions
    Watch, stamp = PlainWatch, plain_stamp  # type: ignore[assignment, misc]
