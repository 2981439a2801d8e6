"""Lightning without what its imports bring along and no recipe uses: a third of the time until a
training's first step."""

from __future__ import annotations

import sys

from lightning_utilities.core import imports
from lightning_utilities.core.imports import RequirementCache

_UNUSED = ("matplotlib", "scipy", "transformers")


def import_lightning() -> None:
    """Import Lightning while its torchmetrics takes three packages for missing, which it would else
    import whole (https://github.com/Lightning-AI/torchmetrics/issues/3457).

    For processes of the command line: in one of a user's own, torchmetrics' plots and its scores by
    language models would say that they are not installed. Where torchmetrics is already there,
    nothing is changed.
    """
    if "torchmetrics" in sys.modules:
        return
    installed, importable = RequirementCache.__bool__, imports.package_available

    def installed_and_used(requirement: RequirementCache) -> bool:
        unused = (requirement.requirement or "").startswith(_UNUSED)
        return not unused and installed(requirement)

    def importable_and_used(name: str) -> bool:
        return name not in _UNUSED and importable(name)

    RequirementCache.__bool__ = installed_and_used  # type: ignore[method-assign, assignment]
    imports.package_available = importable_and_used  # type: ignore[assignment]
    try:
        import lightning.pytorch  # noqa: F401
    finally:
        RequirementCache.__bool__ = installed  # type: ignore[method-assign]
        imports.package_available = importable
