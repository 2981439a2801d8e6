"""The gate before a search: a plan is not to be judged by a control that is not trained out."""

from __future__ import annotations

from redense.study.convergence import Convergence

SEEDS = 2
"""Control seeds that the gate needs."""


class NotConvergedError(ValueError):
    """Going on as before still gains more than the spread: the plan would be judged by a control
    that is not trained out."""


def check(gate: Convergence, dense: int, epochs: int) -> None:
    """Raise `NotConvergedError` unless further training gains nothing that can be told from
    noise."""
    if gate.is_converged:
        return
    raise NotConvergedError(
        f"not converged: {epochs} more epochs without any change gain {gate.gain:.3g} on "
        f"validation, more than the spread between seeds ({gate.spread:.2g}); use --dense "
        f"{dense + epochs} (dense={dense + epochs}), or go on with --anyway (anyway=True)"
    )
