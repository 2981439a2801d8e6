"""How a command that is stopped is gone on with: the command knows, the front door says it,
whatever error its stop has become on the way there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_hows: list[str] = []


@contextmanager
def goes_on_by(how: str) -> Iterator[None]:
    """Say ``how`` where what is done here is stopped.

    >>> with goes_on_by("the same command goes on"):
    ...     said = said_when_stopped()
    >>> said
    'stopped; nothing is lost: the same command goes on'
    >>> said_when_stopped()
    'stopped'
    """
    _hows.append(how)
    yield
    _hows.clear()  # not after an error, which the front door tells


def said_when_stopped() -> str:
    """What the front door says now."""
    return f"stopped; nothing is lost: {_hows[-1]}" if _hows else "stopped"


def forget() -> None:
    """Another command begins."""
    _hows.clear()
