"""Dense-Sparse-Dense training for PyTorch, and the proof whether it helped."""

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
