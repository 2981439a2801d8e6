"""Weight decay by phase, as factors of what a training sets by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

IF_NONE = 1e-4
"""What a factor multiplies where no group has a weight decay of its own: the least that is
customary."""


class WeightDecay:
    """Multiplies each group's weight decay by ``factor`` for the time of an optimizer step only, so
    that any schedule of the user's own reads and writes the values that it set.

    Groups without any (biases, norms) keep none, unless all are without: then 5 means 5e-4 for all.
    A factor of 1 changes nothing.

    >>> decay = WeightDecay([torch.optim.SGD(model.parameters(), lr=0.1)])
    >>> decay.factor = 5.0  # from now on 5e-4
    >>> decay.remove()

    Raises:
        ValueError: an optimizer knows no weight decay, as LBFGS.
    """

    def __init__(self, optimizers: Iterable[Optimizer]) -> None:
        self.factor = 1.0
        self._handles: list[Any] = []
        self._own: list[tuple[dict[str, Any], Any]] = []
        for optimizer in optimizers:
            if not all("weight_decay" in group for group in optimizer.param_groups):
                raise ValueError(
                    f"{type(optimizer).__name__} knows no weight decay, so no factor changes it"
                )
            self._handles.append(optimizer.register_step_pre_hook(self._multiply))
            self._handles.append(optimizer.register_step_post_hook(self._put_back))

    def remove(self) -> None:
        """Leave the optimizers as they were."""
        for handle in self._handles:
            handle.remove()

    def _multiply(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.factor == 1:
            return
        groups = optimizer.param_groups
        has_none = not any(group["weight_decay"] for group in groups)
        self._own = [(group, group["weight_decay"]) for group in groups]
        for group, own in self._own:
            group["weight_decay"] = self.factor * (IF_NONE if has_none else own)

    def _put_back(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group, own in self._own:
            group["weight_decay"] = own
        self._own = []
