"""Dense-Sparse-Dense training for PyTorch, and the proof whether it helped."""

from importlib import import_module
from typing import Any

from .constraint import Constraint, sparse
from .masks import build_masks, check_agreement, global_magnitude_masks, magnitude_mask, random_mask
from .plan import Phase, Plan, acdc, dsd, spdf
from .prunable import prunable
from .scheduler import PhaseScheduler

__all__ = [
    "Constraint",
    "Phase",
    "PhaseScheduler",
    "Plan",
    "acdc",
    "build_masks",
    "check_agreement",
    "dsd",
    "global_magnitude_masks",
    "magnitude_mask",
    "prunable",
    "random_mask",
    "sparse",
    "spdf",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import an adapter or a room on first use, so that the core needs torch alone."""
    if name in ("lightning", "huggingface", "recipes", "datasets", "runs", "study", "report"):
        return import_module(f"{__name__}.{name}")
    if name == "load":  # an exported folder's network
        return import_module(f"{__name__}.recipes.export").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
