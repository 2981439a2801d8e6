"""Dense-Sparse-Dense training for PyTorch, and the proof whether it helped."""

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # typing's own constant, without the time that its import takes
if TYPE_CHECKING:
    from .constraint import Constraint, release, sparse
    from .masks import (
        build_masks,
        check_agreement,
        global_magnitude_masks,
        magnitude_mask,
        random_mask,
    )
    from .plan import Phase, Plan, acdc, dsd, relearn, spdf
    from .prunable import prunable
    from .scheduler import PhaseScheduler

__all__ = [
    "Constraint",
    "Found",
    "Phase",
    "PhaseScheduler",
    "Plan",
    "Run",
    "Space",
    "Study",
    "acdc",
    "build_masks",
    "check_agreement",
    "dsd",
    "global_magnitude_masks",
    "magnitude_mask",
    "prove",
    "prunable",
    "random_mask",
    "relearn",
    "release",
    "search",
    "sparse",
    "spdf",
]

__version__ = "0.1.0"

_HOMES = {
    "constraint": ("Constraint", "release", "sparse"),
    "masks": (
        "build_masks",
        "check_agreement",
        "global_magnitude_masks",
        "magnitude_mask",
        "random_mask",
    ),
    "plan": ("Phase", "Plan", "acdc", "dsd", "relearn", "spdf"),
    "proof": ("Study", "prove"),
    "prunable": ("prunable",),
    "recipes.trained": ("load",),  # a run's or an export's network
    "runs.run": ("Run",),
    "scheduler": ("PhaseScheduler",),
    "search.found": ("Found", "search"),
    "search.space": ("Space",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("datasets", "huggingface", "lightning", "recipes", "report", "runs", "study")


def __getattr__(name: str) -> object:
    """Import what a name needs when it is first used: the command line's help needs no torch, and
    the core needs torch alone."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})


class _Package(ModuleType):
    """`redense.prunable` is the function, also when the import system binds the module that it
    lives in."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
