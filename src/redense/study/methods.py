"""What a study compares, as data: each method is a plan made from the one that is put to the
proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from redense.plan import Phase, Plan

CONTROL = "lower_lr"
BASELINE = "dense"


@dataclass(frozen=True)
class Method:
    """A plan; ``average`` names a phase over whose epochs the weights are averaged in the end
    (SWA)."""

    plan: Plan
    average: str | None = None


def _dense(plan: Plan) -> Method:
    """The first dense phase alone."""
    return Method(Plan(_first(plan)))


def _longer(plan: Plan) -> Method:
    """One conventional schedule from scratch over the whole budget."""
    return Method(
        Plan((replace(plan.phases[0], name="longer", length=len(plan), sparsity=0.0, lr=1.0),))
    )


def _lower_lr(plan: Plan) -> Method:
    """The matched control: the same phases, rates and epochs with sparsity 0."""
    return Method(Plan(tuple(replace(phase, sparsity=0.0) for phase in plan)))


def _pruned(plan: Plan) -> Method:
    """Dense, then sparse to the end, at the same rates: nothing is released."""
    first, held = _first(plan), next(phase for phase in plan if phase.sparsity)
    rest = [
        p if p.sparsity else replace(p, name=f"{p.name}, held", sparsity=held.sparsity)
        for p in plan
    ]
    return Method(Plan((*first, *rest[len(first) :])))


def _random_dsd(plan: Plan) -> Method:
    """The same plan with weights held at random: what magnitude contributes."""
    return Method(
        Plan(tuple(replace(phase, mask="random") if phase.sparsity else phase for phase in plan))
    )


def _dsd(plan: Plan) -> Method:
    """The plan itself."""
    return Method(plan)


def _dsdsd(plan: Plan) -> Method:
    """Two passes in the time of one."""
    rest = plan.phases[len(_first(plan)) :]
    if any(phase.length < 2 for phase in rest):
        raise ValueError(
            "dsdsd halves the sparse and the re-dense phase: they need at least 2 epochs each"
        )
    early = [replace(phase, name=f"{phase.name} 1", length=phase.length // 2) for phase in rest]
    late = [
        replace(phase, name=f"{phase.name} 2", length=phase.length - phase.length // 2)
        for phase in rest
    ]
    return Method(Plan((*_first(plan), *early, *late)))


def _swa(plan: Plan) -> Method:
    """The dense phase, then the rest of the budget at a constant rate, its epochs' weights averaged
    (Izmailov 2018)."""
    first = _first(plan)
    rest = plan.phases[len(first) :]
    averaged = Phase("swa", sum(phase.length for phase in rest), lr=rest[0].lr, decay="constant")
    return Method(Plan((*first, averaged)), average="swa")


METHODS: Mapping[str, Callable[[Plan], Method]] = {
    "dense": _dense,
    "longer": _longer,
    "lower_lr": _lower_lr,
    "pruned": _pruned,
    "random_dsd": _random_dsd,
    "dsd": _dsd,
    "dsdsd": _dsdsd,
    "swa": _swa,
}
"""Every method by name, the simplest to live with first only where `SIMPLEST_FIRST` says so."""

SIMPLEST_FIRST = ("dense", "longer", "lower_lr", "swa", "pruned", "dsd", "random_dsd", "dsdsd")


def build_methods(names: Iterable[str], plans: Mapping[str, Plan]) -> dict[str, Method]:
    """The named methods of each plan. Several plans (one a sparsity) mark the methods that differ:
    ``dsd@0.5``.

    Args:
        names: of `METHODS`.
        plans: by the mark that tells them apart; with one plan the mark is left out.
    """
    found: dict[str, Method] = {}
    for name in names:
        if name not in METHODS:
            raise ValueError(f"there is no method {name!r}; known: {', '.join(METHODS)}")
        made = {mark: METHODS[name](plan) for mark, plan in plans.items()}
        same = all(method == next(iter(made.values())) for method in made.values())
        found |= (
            {name: next(iter(made.values()))}
            if same
            else {f"{name}@{mark}": m for mark, m in made.items()}
        )
    return found


def shared_epochs(one: Method, other: Method) -> int:
    """How many epochs, in whole phases, two methods have in common from the start."""
    shared = 0
    for mine, theirs in zip(one.plan, other.plan, strict=False):
        if mine != theirs or mine.name in (one.average, other.average):
            break
        shared += mine.length
    return shared


def _first(plan: Plan) -> tuple[Phase, ...]:
    """The phases before the first sparse one."""
    held = [index for index, phase in enumerate(plan.phases) if phase.sparsity]
    if not held or not held[0]:
        raise ValueError(
            "a study needs a plan that starts dense and then holds weights; --dense and --sparsity "
            "above 0"
        )
    return plan.phases[: held[0]]
