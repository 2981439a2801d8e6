"""Before a training goes on: does its checkpoint have every part, and does each part fit?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from redense.files.weights import check_exactly
from redense.runs.checkpoints import DamagedCheckpointError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

_PARTS = ("epoch", "global_step", "loops", "state_dict", "optimizer_states", "lr_schedulers")


def check_whole(file: Path, content: Mapping[str, Any], callbacks: Iterable[str]) -> None:
    """Whether a checkpoint of Lightning's has all its parts, and the state of ``callbacks``.

    Raises:
        DamagedCheckpointError: names the part that is missing.
    """
    for name in (*_PARTS, "callbacks"):
        if name not in content:
            raise DamagedCheckpointError(f"{file} is damaged: it has no {name!r}")
    for name in callbacks:
        if name not in content["callbacks"]:
            raise DamagedCheckpointError(f"{file} is damaged: its callbacks have no {name!r}")


def check_settings(
    file: Path, saved: Mapping[str, Any], now: Mapping[str, Any], *, elsewhere: Collection[str] = ()
) -> None:
    """Whether a checkpoint was trained with the settings that config.json has now.

    Args:
        saved: what the checkpoint says; empty in one of an older version, which passes.
        elsewhere: settings that may have changed meanwhile.

    Raises:
        ValueError: names the first that is another.
    """
    for name, value in now.items():
        if name not in elsewhere and saved.get(name, value) != value:
            raise ValueError(
                f"{file} was trained with {name} {saved[name]!r}, its run's config.json says "
                f"{value!r}: put it back, or start a new run"
            )


def check_fits(file: Path, content: Mapping[str, Any], module: LightningModule) -> None:
    """Whether weights, masks and optimizer state of a checkpoint of Lightning's fit ``module``;
    nothing is changed.

    Raises:
        ValueError: names the file, and what does not fit.
    """
    weights = content["state_dict"]
    check_exactly(module.state_dict(), weights, str(file), "the network of config.json")
    masks = content["callbacks"]["DSDCallback"].get("masks", {})
    for name, bits in masks.items():
        if name not in weights or bits.numel() != -(-weights[name].numel() // 8):
            raise ValueError(f"{file}: its mask of {name!r} does not fit its weights")
    optimizer = module.configure_optimizers()
    states = content["optimizer_states"]
    if not isinstance(optimizer, Optimizer) or len(states) != 1:
        raise ValueError(f"{file} has the state of {len(states)} optimizers, not of one")
    try:
        optimizer.load_state_dict(states[0])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: its optimizer state does not fit ({error})") from error
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != weight.shape:
                raise ValueError(
                    f"{file}: {name} of its optimizer state has shape {tuple(value.shape)}, its "
                    f"weight {tuple(weight.shape)}"
                )
