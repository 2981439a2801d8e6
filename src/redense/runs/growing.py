"""What to say of released weights that hardly grew: then a re-dense phase was one in name only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST = 0.02
"""Mean size of released weights, as a share of the survivors', below which a phase changed almost
nothing."""


def share_grown(grown: Mapping[str, Any]) -> float:
    """Mean |w| of the released weights over that of the survivors, of a record's ``released``."""
    return float(grown["mean_released"] / grown["mean_survivors"])


def said_of(phase: str, share: float) -> str:
    """Empty where they did grow.

    >>> said_of("redense", 0.4)
    ''
    """
    if share >= LEAST:
        return ""
    return (
        f"{phase} changed almost nothing: the released weights are {100 * share:.2g} % of the "
        "survivors' size; raise its rate or its length"
    )
