"""What a study compares, as data: each method is a plan made from the one that is put to the
proof.

`METHODS` is the one table of them: the report and the summary take their words, colours and order
from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from redense.plan import Phase, Plan, acdc, relearn, spdf

CONTROL = "lower_lr"
BASELINE = "dense"


@dataclass(frozen=True)
class Method:
    """A plan and what is scored at its end.

    Args:
        plan: what is trained.
        average: a phase over whose epochs the weights are averaged in the end (SWA).
        select: the ``last`` epoch's weights, or those of the ``best`` validation epoch.
        include: patterns of weights that may be held, instead of the training's own choice.
        weight_decay: a factor for each phase on the groups' own, see `redense.runs.decay`.
        shrink: share of a trained network that is kept at the start, see `redense.runs.shrinking`.
    """

    plan: Plan
    average: str | None = None
    select: Literal["last", "best"] = "last"
    include: tuple[str, ...] = ()
    weight_decay: tuple[float, ...] = ()
    shrink: float = 1.0

    def __post_init__(self) -> None:
        if self.weight_decay and len(self.weight_decay) != len(self.plan.phases):
            raise ValueError(
                f"weight_decay must be one factor for each of the {len(self.plan.phases)} phases, "
                f"got {len(self.weight_decay)}"
            )

    @property
    def decays(self) -> tuple[float, ...]:
        """The factor of weight decay in each phase."""
        return self.weight_decay or (1.0,) * len(self.plan.phases)


@dataclass(frozen=True)
class Kind:
    """What a method is called, how it is drawn, and how it is made from the plan under proof.

    Args:
        title: its human name.
        meaning: one sentence without a full stop.
        colour: number of the page's colour, 0 to 7.
        dash: of its line, in Plotly's words.
        build: from the plan under proof to the method.
        is_proved: whether it is a form of dense-sparse-dense itself, not a control.
        matched: the control of the same phases and rates with nothing held.
    """

    title: str
    meaning: str
    colour: int
    dash: str
    build: Callable[[Plan], Method]
    is_proved: bool = False
    matched: str = CONTROL


def _dense(plan: Plan) -> Method:
    return Method(Plan(_first(plan)))


def _longer(plan: Plan) -> Method:
    whole = replace(plan.phases[0], name="longer", length=len(plan), sparsity=0.0, lr=1.0)
    return Method(Plan((whole,)))


def _lower_lr(plan: Plan) -> Method:
    return Method(Plan(tuple(replace(phase, sparsity=0.0) for phase in plan)))


def _early_stop(plan: Plan) -> Method:
    return replace(_lower_lr(plan), select="best")


def _pruned(plan: Plan) -> Method:
    first, held = _first(plan), next(phase for phase in plan if phase.sparsity)
    rest = [
        p if p.sparsity else replace(p, name=f"{p.name}, held", sparsity=held.sparsity)
        for p in plan
    ]
    return Method(Plan((*first, *rest[len(first) :])))


def _random_dsd(plan: Plan) -> Method:
    return Method(
        Plan(tuple(replace(phase, mask="random") if phase.sparsity else phase for phase in plan))
    )


def _dsdsd(plan: Plan) -> Method:
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
    """Izmailov et al. 2018, arXiv 1803.05407."""
    first = _first(plan)
    rest = plan.phases[len(first) :]
    averaged = Phase("swa", sum(phase.length for phase in rest), lr=rest[0].lr, decay="constant")
    return Method(Plan((*first, averaged)), average="swa")


def _relearn(plan: Plan) -> Method:
    first = _first(plan)
    length = len(plan) - sum(phase.length for phase in first)
    cycles = min(3, length // 2)
    return Method(Plan((*first, *relearn(0, length, cycles).phases)))


def _full_lr(plan: Plan) -> Method:
    return _lower_lr(_relearn(plan).plan)


def _acdc(plan: Plan) -> Method:
    """In Peste et al.'s shares: three cycles of equal halves, about a seventh for the last dense
    phase."""
    first = _first(plan)
    length = len(plan) - sum(phase.length for phase in first)
    if length < 3:
        raise ValueError(
            f"acdc needs at least 3 epochs behind the first dense phase, the plan has {length}"
        )
    final = max(length // 7, 1)
    cycles = min(3, (length - final) // 2)
    half = (length - final) // (2 * cycles)
    cycled = acdc(0, cycles, half, half, length - 2 * cycles * half)
    return Method(Plan((*first, *cycled.phases)))


def _spdf(plan: Plan) -> Method:
    dense = plan.phases[-1].length
    return Method(spdf(len(plan) - dense, dense))


def _shrink_perturb(plan: Plan) -> Method:
    if _first(plan):
        raise ValueError(
            "shrink_perturb starts from a trained network; leave out the first dense phase"
        )
    return replace(_longer(plan), shrink=0.4)


def _acdc_lr(plan: Plan) -> Method:
    return _lower_lr(_acdc(plan).plan)


def _spdf_lr(plan: Plan) -> Method:
    return _lower_lr(_spdf(plan).plan)


METHODS: Mapping[str, Kind] = {
    "dense": Kind(
        "dense training",
        "the first dense phase alone, or the network as it came where there is none",
        1,
        "dot",
        _dense,
    ),
    "longer": Kind(
        "longer training",
        "one conventional schedule from scratch over the whole budget",
        4,
        "dash",
        _longer,
    ),
    "lower_lr": Kind(
        "the matched control",
        "the same phases, rates and epochs as dsd, nothing held",
        0,
        "solid",
        _lower_lr,
    ),
    "early_stop": Kind(
        "early stopping",
        "the best validation epoch of the matched control's run",
        0,
        "dashdot",
        _early_stop,
    ),
    "full_lr": Kind(
        "relearn's matched control",
        "the same phases, rates and epochs as relearn, nothing held",
        0,
        "dash",
        _full_lr,
    ),
    "acdc_lr": Kind(
        "AC/DC's matched control",
        "the same phases, rates and epochs as acdc, nothing held",
        0,
        "dot",
        _acdc_lr,
    ),
    "spdf_lr": Kind(
        "sparse pre-training's matched control",
        "the same phases, rates and epochs as spdf, nothing held",
        0,
        "longdash",
        _spdf_lr,
    ),
    "shrink_perturb": Kind(
        "shrink and perturb",
        "40 % of the trained network and 60 % of a fresh one, trained by one schedule",
        5,
        "dash",
        _shrink_perturb,
    ),
    "swa": Kind(
        "weight averaging",
        "the rest of the budget at a constant rate, its epochs' weights averaged",
        5,
        "dashdot",
        _swa,
    ),
    "pruned": Kind("pruning", "held to the end, never released", 6, "solid", _pruned),
    "dsd": Kind("dense-sparse-dense", "dense, sparse, re-dense", 2, "solid", Method, True),
    "random_dsd": Kind(
        "dense-sparse-dense with random masks",
        "as dsd, with weights held at random: what magnitude contributes",
        3,
        "dash",
        _random_dsd,
    ),
    "dsdsd": Kind(
        "dense-sparse-dense in two passes",
        "two passes in the time of one",
        7,
        "longdash",
        _dsdsd,
        True,
    ),
    "relearn": Kind(
        "forget and relearn",
        "half of the weights held at random, anew in each of three cycles, all at the full rate",
        3,
        "solid",
        _relearn,
        True,
        "full_lr",
    ),
    "acdc": Kind(
        "AC/DC",
        "the smallest 90 % held in three short cycles at the full rate, then dense at a tenth",
        7,
        "dashdot",
        _acdc,
        True,
        "acdc_lr",
    ),
    "spdf": Kind(
        "sparse pre-training",
        "75 % held at random from the start, then dense at a tenth",
        6,
        "dash",
        _spdf,
        True,
        "spdf_lr",
    ),
}
"""Every method by name, the simplest to live with first."""


TUNED, MATCHED = "control", "matched"
_OF_A_SEARCH = {
    MATCHED: Kind(
        "the plan's matched control",
        "the same phases, rates and epochs as the plan, nothing held",
        6,
        "dash",
        _lower_lr,
    )
}
"""What stands beside a search's plan and its tuned control; `METHODS` are those that one may ask
for."""


def set_aside(control: str) -> frozenset[str]:
    """Methods that a study with this control compares with nothing by itself, so that Holm's
    correction must not count them: a search compares its plan with that one."""
    return frozenset({MATCHED} if control == TUNED else ())


def matched_to(method: Method) -> Method:
    """The same training with nothing held: what a plan's zeros are worth is seen beside it.

    >>> from redense import dsd
    >>> matched_to(Method(dsd(dense=2, sparse=1, redense=1))).plan.phases[1].sparsity
    0.0
    """
    return replace(method, plan=_lower_lr(method.plan).plan, include=())


def simplicity(label: str) -> tuple[int, str]:
    """A key to sort labels by, the simplest to live with first; a plan of the user's own comes
    last."""
    order = list(METHODS)
    kind = label.partition("@")[0]
    return (order.index(kind) if kind in METHODS else len(order), label)


def kind_of(label: str) -> Kind | None:
    """What ``dsd`` or ``dsd@0.5`` is; None for a plan of the user's own."""
    name = label.partition("@")[0]
    return METHODS.get(name) or _OF_A_SEARCH.get(name)


def is_proved(label: str) -> bool:
    """Whether a label stands for what is put to the proof, not for a control: a form of
    dense-sparse-dense or a plan of the user's own."""
    kind = kind_of(label)
    return kind is None or kind.is_proved


def own_controls(labels: Iterable[str], control: str) -> dict[str, str]:
    """Of methods whose phases and rates are not ``control``'s the control that has them, where it
    is among ``labels``.

    >>> own_controls(["lower_lr", "full_lr", "dsd", "relearn"], "lower_lr")
    {'relearn': 'full_lr'}
    """
    known = set(labels)
    kinds = {label: kind_of(label) for label in known}
    return {
        label: kind.matched
        for label, kind in kinds.items()
        if kind and kind.matched not in (label, control) and kind.matched in known
    }


def titled(label: str) -> str:
    """A label with its human name: ``dense-sparse-dense (dsd)``; an unknown one by itself."""
    kind = kind_of(label)
    return f"{kind.title} ({label})" if kind else label


def build_methods(
    names: Iterable[str] | Mapping[str, Plan | None], plans: Mapping[str, Plan]
) -> dict[str, Method]:
    """The named methods of each plan. Several plans (one per sparsity) mark the methods that
    differ: ``dsd@0.5``.

    Args:
        names: of `METHODS`; in a mapping a name may bring a plan of its own: ``{"mine": plan}``.
        plans: by the mark that tells them apart; with one plan the mark is left out. A slash in a
            mark becomes a hyphen, since a method names its runs' folders.
    """
    own = dict(names) if isinstance(names, Mapping) else {}
    built: dict[str, Method] = {}
    for name in names:
        plan = own.get(name)
        if plan is not None:
            _check_own(name)
            built[name] = Method(plan)
            continue
        if name not in METHODS:
            raise ValueError(
                f"there is no method {name!r}; known: {', '.join(METHODS)}, or a Plan of your own "
                "under a name"
            )
        made = {mark: METHODS[name].build(plan) for mark, plan in plans.items()}
        first = next(iter(made.values()))
        if all(method == first for method in made.values()):
            built[name] = first
        else:
            built |= {f"{name}@{mark.replace('/', '-')}": method for mark, method in made.items()}
    return built


def shared_epochs(one: Method, other: Method) -> int:
    """How many epochs, in whole phases, two methods have in common from the start. The last phase
    of ``one`` is never among them: its loop runs, since a score may be computed in there."""
    if one.shrink != other.shrink:
        return 0
    shared = 0
    ours = zip(one.plan, one.decays, strict=True)
    others = zip(other.plan, other.decays, strict=True)
    for (mine, decay), (theirs, their_decay) in zip(ours, others, strict=False):
        if shared + mine.length == len(one.plan):
            break
        alike = mine == theirs and decay == their_decay
        if mine.sparsity and one.include != other.include:
            alike = False
        if not alike or mine.name in (one.average, other.average):
            break
        shared += mine.length
    return shared


def _check_own(name: str) -> None:
    """A name becomes a folder, ``NAME--SEED``, and ``@`` marks a sparsity."""
    if kind_of(name):
        raise ValueError(f"{name!r} is a method of redense's own; call your plan otherwise")
    if not re.fullmatch(r"\w[\w.+ -]*", name) or "--" in name or name.endswith(("-", " ")):
        raise ValueError(
            f"a method's name becomes a folder: letters, digits and single _ . + - within it, "
            f"got {name!r}"
        )


def _first(plan: Plan) -> tuple[Phase, ...]:
    """The phases before the first sparse one: none where a trained network is the start."""
    held = [index for index, phase in enumerate(plan.phases) if phase.sparsity]
    if not held:
        raise ValueError("a study needs a plan that holds weights; give a sparsity above 0")
    return plan.phases[: held[0]]
