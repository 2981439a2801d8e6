"""The gate before a search: a plan is not to be judged by a control that is not trained out."""

from __future__ import annotations

from redense.study.convergence import Convergence

SEEDS = 2
"""Control seeds that the gate needs."""


class NotConvergedError(ValueError):
    """Going on as before still gains more than the spread: the plan would be judged by a control
    that is not trained out."""


def check(gate: Convergence, dense: int, epochs: int) -> str:
    """Raise `NotConvergedError` where further training gains what can be told from noise; else what
    to say where its seeds do not settle whether it does, or nothing."""
    if gate.is_converged:
        return ""
    if not gate.still_gains:
        return (
            f"whether the first phase has converged, {len(gate.gains)} seeds do not settle: "
            f"{epochs} more epochs without any change gain {gate.gain:.3g} on validation, where "
            f"seeds spread by {gate.spread:.2g}"
        )
    raise NotConvergedError(
        f"not converged: {epochs} more epochs without any change gain {gate.gain:.3g} on "
        f"validation, more than the spread between seeds ({gate.spread:.2g}); use --dense "
        f"{dense + epochs} (dense={dense + epochs}), or go on with --anyway (anyway=True)"
    )
