"""What a name that is not known may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """``near("resnet19", names)`` is ``"did you mean resnet18 or resnet152?"``; without near names
    it is empty.

    Args:
        cutoff: likeness that a name needs, 0 to 1.
    """
    names = difflib.get_close_matches(name, list(known), n=2, cutoff=cutoff)
    return f"did you mean {' or '.join(names)}?" if names else ""
