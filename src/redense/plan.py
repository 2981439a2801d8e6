"""A training method as plain data: which phase comes when, how sparse it is and at what rate it
trains.

A plan counts in whatever unit its caller counts: epochs or optimizer steps. Nothing here knows
about models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import accumulate, groupby
from numbers import Integral, Real
from textwrap import fill
from typing import Any, TypeVar

T = TypeVar("T")

Sparsity = float | Mapping[str, float]
"""One share for every tensor that may be held, or one for each pattern of names."""

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** min(int(3 * done + 1e-9), 2),
}
"""Rate inside a phase against the share of it that is done; ``step`` divides by ten after each
third."""

MASKS = ("magnitude", "random", "global")
"""What a mask may be called; a function has no name that another process would know it by."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training under one rule.

    Args:
        name: what tables and pictures call it.
        length: how long it lasts, in the caller's unit (epochs or steps), at least 1.
        sparsity: share of each prunable tensor that is held at zero, in [0, 1): one number, or one
            for each pattern of names, see `ByPattern`.
        lr: the phase's starting rate as a factor of the optimizer's own.
        decay: the rate's course inside the phase: ``constant``, ``linear``, ``cosine`` or ``step``.
        mask: what is held: ``magnitude`` (layerwise, the paper's), ``random``, ``global``, or a
            function ``(weight, sparsity) -> bool mask`` with True for a kept weight.
    """

    name: str
    length: int
    sparsity: Sparsity = 0.0
    lr: float = 1.0
    decay: str = "constant"
    mask: str | Callable[..., Any] = "magnitude"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a phase needs a name, got {self.name!r}; 'dense' or 'sparse', say")
        if isinstance(self.length, bool) or not isinstance(self.length, Integral):
            raise TypeError(
                f"phase {self.name!r}: length must be a whole number, got {self.length!r}"
            )
        if self.length < 1:
            raise ValueError(
                f"phase {self.name!r} would never run: length must be at least 1, got {self.length}"
            )
        check_sparsity(self.sparsity, of=f"phase {self.name!r}: ")
        if isinstance(self.lr, bool) or not isinstance(self.lr, Real):
            raise TypeError(
                f"phase {self.name!r}: lr must be a number above 0, got {self.lr!r}; 0.1 is a tenth"
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(
                f"phase {self.name!r}: lr must be a finite factor above 0, got {self.lr}; 0.1 is a "
                "tenth"
            )
        if not isinstance(self.decay, str) or self.decay not in DECAYS:
            raise ValueError(
                f"phase {self.name!r}: decay must be one of {', '.join(DECAYS)}, got {self.decay!r}"
            )
        if not isinstance(self.mask, str) and not callable(self.mask):
            raise TypeError(
                f"phase {self.name!r}: mask must be a name or a function, got {self.mask!r}"
            )
        for field in fields(self):
            object.__setattr__(self, field.name, _python(getattr(self, field.name)))
        if isinstance(self.sparsity, Mapping):
            object.__setattr__(self, "sparsity", ByPattern(self.sparsity))

    @property
    def mask_name(self) -> str:
        """The mask's name as tables and records print it, the same in every process."""
        return self.mask if isinstance(self.mask, str) else _function_name(self.mask)


class ByPattern(Mapping[str, float]):
    """A sparsity for each pattern: names of parameters, or shell patterns over them, as
    `redense.prunable` takes.

    The first pattern that matches a name counts, so ``*``, for all others that may be held, comes
    last. What no pattern matches is not held, and neither is what has 0.

    >>> shares = ByPattern({"layer3.*": 0.5, "fc.weight": 0, "*": 0.2})
    >>> [share_of(name, shares) for name in ("layer3.0.weight", "fc.weight", "layer1.0.weight")]
    [0.5, 0, 0.2]
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares: dict[str, float] = {
            _python(pattern): _python(share) for pattern, share in shares.items()
        }

    def __getitem__(self, pattern: str) -> float:
        return self._shares[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shares)

    def __len__(self) -> int:
        return len(self._shares)

    def __eq__(self, other: object) -> bool:
        """The order counts as well."""
        return isinstance(other, Mapping) and list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return repr(self._shares)


@dataclass(frozen=True)
class Plan:
    """Phases that follow each other without a gap; ``len(plan)`` is their total length.

    Without a phase it is the empty plan, of length 0: nothing is trained.

    >>> phases = Phase("dense", 30), Phase("sparse", 20, sparsity=0.3), Phase("redense", 20, lr=0.1)
    >>> plan = Plan(phases)
    >>> len(plan), plan.at(30).name, plan.lr_factor(69)
    (70, 'sparse', 0.1)
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        if wrong := [phase for phase in self.phases if not isinstance(phase, Phase)]:
            raise TypeError(f"a plan is made of Phase objects, got {wrong[0]!r}")
        names = [phase.name for phase in self.phases]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(
                f"two phases are called {twice!r}; number them, '{twice} 1' and '{twice} 2'"
            )

    def __len__(self) -> int:
        return sum(phase.length for phase in self.phases)

    def __iter__(self) -> Iterator[Phase]:
        return iter(self.phases)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first step of each phase."""
        return tuple(accumulate((phase.length for phase in self.phases), initial=0))[:-1]

    def index(self, step: float) -> int:
        """Position of the phase that ``step`` falls into, 0 <= step < len(plan)."""
        if not self.phases:
            raise IndexError(f"step {step} lies outside the plan, which is empty")
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} lies outside the plan; it covers 0 to {len(self) - 1}")
        return sum(start <= step for start in self.starts) - 1

    def at(self, step: float) -> Phase:
        """The phase that ``step`` falls into."""
        return self.phases[self.index(step)]

    def lr_factor(self, step: float) -> float:
        """Rate at ``step`` as a factor of the optimizer's own, for
        ``torch.optim.lr_scheduler.LambdaLR``.

        A step may be a fraction (2.5 epochs). From the plan's end on, the last whole step's rate
        stays.
        """
        if not self.phases:
            return 1.0
        step = len(self) - 1 if step >= len(self) else step
        index = self.index(step)
        phase = self.phases[index]
        return phase.lr * DECAYS[phase.decay]((step - self.starts[index]) / phase.length)

    def to_toml(self) -> str:
        """The plan as a file for ``redense train --plan``.

        >>> Plan((Phase("sparse", 3, {"fc.*": 0.5, "*": 0.2}),)).to_toml().splitlines()[1:4]
        ['name = "sparse"', 'length = 3', 'sparsity = {"fc.*" = 0.5, "*" = 0.2}']
        """
        lines = []
        for record in self.to_records():
            lines += ["[[phases]]", *(f"{key} = {toml(value)}" for key, value in record.items())]
        return "\n".join(lines)

    def to_records(self) -> list[dict[str, Any]]:
        """The plan as a list of plain dictionaries, one per phase, for JSON, TOML and YAML."""
        return [_record(phase) for phase in self.phases]

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> Plan:
        """The plan that `to_records` wrote; a key that no phase has is an error."""
        known = [field.name for field in fields(Phase)]
        for record in records:
            if unknown := [key for key in record if key not in known]:
                raise ValueError(f"a phase has no field {unknown[0]!r}; it has {', '.join(known)}")
            if missing := [key for key in ("name", "length") if key not in record]:
                raise ValueError(f"a phase needs a {missing[0]}, got {dict(record)}")
        return cls(tuple(Phase(**record) for record in records))

    def __str__(self) -> str:
        if not self.phases:
            return "empty plan: no phase, the network stays as it came"
        header = ("phase", "steps", "length", "sparsity", "rate", "decay", "mask")
        rows = [
            (
                phase.name,
                f"{start}-{start + phase.length - 1}" if phase.length > 1 else f"{start}",
                f"{phase.length}",
                "by pattern" if isinstance(phase.sparsity, Mapping) else f"{phase.sparsity:.3g}",
                f"x {phase.lr:.3g}",
                phase.decay,
                phase.mask_name if phase.sparsity else "-",
            )
            for phase, start in zip(self.phases, self.starts, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in (header, *rows)
        ]
        lines += [
            _held_by_pattern(phase.name, phase.sparsity)
            for phase in self.phases
            if isinstance(phase.sparsity, Mapping)
        ]
        return "\n".join(line.rstrip() for line in lines)


def dsd(
    dense: int,
    sparse: int | Sequence[int],
    redense: int | Sequence[int],
    sparsity: Sparsity | Sequence[Sparsity] = 0.3,
    *,
    passes: int = 1,
    sparse_lr: float | Sequence[float] = 1.0,
    redense_lr: float | Sequence[float] = 0.1,
    decay: str = "constant",
    mask: str | Callable[..., Any] = "magnitude",
) -> Plan:
    """Dense-Sparse-Dense training (Han et al., arXiv 1607.04381), iterative with ``passes`` above
    1.

    Args:
        dense: length of the first dense phase; 0 leaves it out, to start from a trained model.
        sparse, redense: lengths of the two phases of a pass.
        sparsity: share held at zero; the paper finds 25-50 % to work, 30 % on ImageNet. One number,
            or one for each pattern of names: ``{"layer3.*": 0.5, "*": 0.2}``.
        sparse_lr, redense_lr: starting rates as factors of the first dense phase's; the paper
            re-trains at a tenth. Lengths, sparsity and rates may each be one value or one per pass.

    >>> len(dsd(dense=30, sparse=20, redense=20, sparsity=(0.5, 0.25), passes=2))
    110
    """
    if passes < 1:
        raise ValueError(f"passes must be at least 1, got {passes}")
    if isinstance(dense, Integral) and dense < 0:
        raise ValueError(f"dense must be 0 (start from a trained model) or more, got {dense}")
    phases = [Phase("dense", dense, decay=decay)] if dense else []
    sparsities: tuple[Sparsity, ...] = _per_pass("sparsity", sparsity, passes)
    columns = (
        _per_pass("sparse", sparse, passes),
        _per_pass("redense", redense, passes),
        sparsities,
        _per_pass("sparse_lr", sparse_lr, passes),
        _per_pass("redense_lr", redense_lr, passes),
    )
    for number, (held_for, free_for, share, held_lr, free_lr) in enumerate(
        zip(*columns, strict=True), start=1
    ):
        suffix = f" {number}" if passes > 1 else ""
        phases.append(Phase(f"sparse{suffix}", held_for, share, held_lr, decay, mask))
        phases.append(Phase(f"redense{suffix}", free_for, 0.0, free_lr, decay))
    return Plan(tuple(phases))


def acdc(
    dense: int,
    cycles: int,
    sparse: int,
    redense: int,
    final: int,
    sparsity: Sparsity = 0.9,
    *,
    decay: str = "constant",
) -> Plan:
    """Alternating compressed and decompressed training that ends dense (AC/DC, Peste et al., arXiv
    2106.12379).

    A dense warm-up, ``cycles`` short sparse and dense phases at the full rate, and a last dense
    phase at a tenth of it. The original resets all momentum where a dense phase begins; here the
    released weights start without any and the survivors keep theirs.
    """
    plan = dsd(dense, sparse, redense, sparsity, passes=cycles, redense_lr=1.0, decay=decay)
    return Plan((*plan.phases, Phase("final", final, lr=0.1, decay=decay)))


def spdf(
    sparse: int,
    dense: int,
    sparsity: Sparsity = 0.75,
    *,
    dense_lr: float = 0.1,
    decay: str = "constant",
) -> Plan:
    """Sparse pre-training under a random mask, then dense fine-tuning (SPDF, Thangarasa et al.,
    arXiv 2303.10464)."""
    return Plan(
        (
            Phase("sparse", sparse, sparsity, decay=decay, mask="random"),
            Phase("dense", dense, lr=dense_lr, decay=decay),
        )
    )


def relearn(
    dense: int,
    length: int,
    cycles: int = 3,
    sparsity: Sparsity = 0.5,
    *,
    decay: str = "cosine",
) -> Plan:
    """Forget and relearn: random weights held and released in cycles, all at the full rate.

    Every cycle draws its random mask anew, holds for half of its time and lets go for the other
    half. The method of Zhou et al., Fortuitous Forgetting, arXiv 2202.00155, with weights that are
    held at zero for a while where theirs are drawn anew once.

    Good for networks that overfit (few or partly wrong labels, new data for an old network) at the
    settings people have; a tuned weight decay, averaging (SWA) or, from a trained network,
    shrink-and-perturb gives about as much. See docs/when.md.

    Args:
        dense: length of the first dense phase; 0 starts from a trained model.
        length: of all cycles together, at least two a cycle; earlier cycles are longer by one where
            it cannot be divided.
        decay: the rate's course in the last free phase, so that training comes to rest.

    >>> [(phase.name, phase.length) for phase in relearn(30, cycles=2, length=20)]
    [('dense', 30), ('sparse 1', 5), ('redense 1', 5), ('sparse 2', 5), ('redense 2', 5)]
    """
    if cycles < 1:
        raise ValueError(f"cycles must be at least 1, got {cycles}")
    if length < 2 * cycles:
        raise ValueError(
            f"length must be at least 2 a cycle, {2 * cycles} for {cycles} cycles, got {length}"
        )
    whole = [length // cycles + (number < length % cycles) for number in range(cycles)]
    held = [steps // 2 for steps in whole]
    free = [steps - steps // 2 for steps in whole]
    plan = dsd(dense, held, free, sparsity, passes=cycles, redense_lr=1.0, mask="random")
    return Plan((*plan.phases[:-1], replace(plan.phases[-1], decay=decay)))


def check_mask_name(mask: str, phase: str) -> None:
    """Refuse a mask that a run's folder could not hold, before anything is trained.

    Raises:
        ValueError: it is none of `MASKS`; a function's name is not, either.

    >>> check_mask_name("random", "sparse")
    """
    if mask not in MASKS:
        raise ValueError(
            f"phase {phase!r}: mask must be one of {', '.join(MASKS)}, got {mask!r}; a function of "
            "your own is for redense.PhaseScheduler, since a run's folder could not hold it"
        )


def check_sparsity(sparsity: Sparsity, of: str = "") -> Sparsity:
    """``sparsity`` itself if it lies in [0, 1), or each of a mapping's does, else an error that
    names it."""
    if not isinstance(sparsity, Mapping):
        return check_share(sparsity, of)
    for pattern, share in sparsity.items():
        if not isinstance(pattern, str) or not pattern:
            raise TypeError(
                f"{of}sparsity must map names or patterns such as 'layer3.*' to shares, got "
                f"{pattern!r}"
            )
        check_share(share, f"{of}{pattern}: ")
    if not any(sparsity.values()):
        raise ValueError(
            f"{of}sparsity={dict(sparsity)} holds nothing; give a pattern a share above 0, or "
            "sparsity=0 for a dense phase"
        )
    patterns = list(sparsity)
    if "*" in patterns[:-1]:
        raise ValueError(
            f"{of}the first pattern that matches counts, so behind '*' {patterns[-1]!r} would "
            "hold nothing; put '*' last"
        )
    return sparsity


def check_share(share: float, of: str = "") -> float:
    """``share`` itself if it is a number in [0, 1), else an error that names it."""
    if isinstance(share, bool) or not isinstance(share, Real):
        raise TypeError(f"{of}sparsity must be a number in [0, 1), got {share!r}")
    if not 0 <= share < 1:
        raise ValueError(
            f"{of}sparsity must lie in [0, 1), got {share}; 0.3 removes 30 % of the weights"
        )
    return share


def toml(value: Any) -> str:
    """Text, a number, or a list or table of them, as TOML writes it.

    >>> toml({"fc.*": 0.5}), toml([1, "a"])
    ('{"fc.*" = 0.5}', '[1, "a"]')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers (``torch.compile``, DDP) put before it."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def matches(name: str, pattern: str) -> bool:
    """Whether a parameter's name, with or without a wrapper's part, is ``pattern`` or fits it as
    a file's would in a shell."""
    return any(
        known == pattern or fnmatchcase(known, pattern) for known in (name, plain_name(name))
    )


def share_of(name: str, sparsity: Sparsity) -> float:
    """The share that is held of the tensor ``name``, 0 where no pattern matches it."""
    if not isinstance(sparsity, Mapping):
        return sparsity
    return next((share for pattern, share in sparsity.items() if matches(name, pattern)), 0.0)


def in_percent(sparsity: Sparsity) -> str:
    """A phase's sparsity in a few words, for tables and logs.

    >>> in_percent(0.3), in_percent({"fc.*": 0.5, "*": 0.2})
    ('30 %', '20-50 %')
    """
    if not isinstance(sparsity, Mapping):
        return f"{100 * sparsity:.3g} %"
    least, most = min(sparsity.values()), max(sparsity.values())
    return in_percent(most) if least == most else f"{100 * least:.3g}-{in_percent(most)}"


def _python(value: Any) -> Any:
    """NumPy's numbers and strings as Python's own, which every reader of a state accepts."""
    for ours in (str, int, float):
        if type(value) is ours:
            return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _record(phase: Phase) -> dict[str, Any]:
    """A phase in plain data."""
    record = vars(phase) | {"mask": phase.mask_name}
    if isinstance(phase.sparsity, Mapping):
        record["sparsity"] = dict(phase.sparsity)
    return record


def _held_by_pattern(name: str, shares: Mapping[str, float]) -> str:
    """What a phase holds of what its patterns match, below the plan's table."""
    parts = [
        f"{in_percent(share)} of {', '.join(pattern for pattern, _ in same)}"
        for share, same in groupby(shares.items(), key=lambda item: item[1])
    ]
    counts = " (the first match counts)" if len(shares) > 1 else ""
    text = f"{name} holds {'; '.join(parts)}{counts}"
    return fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _function_name(function: Callable[..., Any]) -> str:
    if isinstance(function, partial):
        given = [repr(value) for value in function.args]
        given += [f"{key}={value!r}" for key, value in function.keywords.items()]
        return f"{_function_name(function.func)}({', '.join(given)})"
    return getattr(function, "__name__", type(function).__name__)  # a repr would hold an address


def _per_pass(name: str, value: T | Sequence[T], passes: int) -> tuple[T, ...]:
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return (value,) * int(passes)
    values = tuple(value)
    if len(values) != passes:
        raise ValueError(
            f"{name} must be one value or {passes} (one per pass), got {len(values)}: "
            f"{list(values)}"
        )
    return values
