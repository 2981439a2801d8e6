"""The phases as a recipe's flags give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from redense.files.names import near
from redense.files.typed import Kind, Number, read_toml, read_yaml
from redense.plan import Phase, Plan, check_mask_name, dsd

SETTINGS = ("include", "weight_decay", "average", "select", "shrink")


class PlanFile(TypedDict):
    """A plan's file; a search writes its settings beside the phases."""

    phases: list[dict[str, Any]]
    include: NotRequired[list[str]]
    weight_decay: NotRequired[list[Number]]
    average: NotRequired[str | None]
    select: NotRequired[str]
    shrink: NotRequired[Number]


PLAN = Kind(
    PlanFile,
    "plan",
    "it needs a list called phases, each with at least a name and a length",
)


@dataclass(frozen=True)
class Schedule:
    """Dense, sparse, re-dense.

    Args:
        dense: epochs of the first dense phase; 0 starts from a trained model.
        sparse: epochs with the smallest weights held at zero; 0 with redense 0 trains dense alone.
        redense: epochs with all weights free again.
        sparsity: share of each prunable tensor that is held, 0 <= sparsity < 1; with several passes
            also one for each, 0.5/0.25.
        passes: how often sparse and re-dense follow each other.
        sparse_lr: the sparse phase's starting rate as a factor of lr.
        redense_lr: the re-dense phase's starting rate as a factor of lr.
        decay: course of the rate inside each phase: constant, linear, cosine or step (divided by 10
            after each third).
        mask: what is held: magnitude (the smallest, the paper's), random (the control) or global
            (smallest of all).
        plan: a TOML or YAML file with a list of phases (name, length, sparsity, lr, decay, mask)
            instead of the above.
    """

    dense: int = 4
    sparse: int = 2
    redense: int = 2
    sparsity: float | list[float] = 0.3
    passes: int = 1
    sparse_lr: float | list[float] = 1.0
    redense_lr: float | list[float] = 0.1
    decay: str = "cosine"
    mask: str = "magnitude"
    plan: Path | None = None

    def to_plan(self) -> Plan:
        """The plan that these flags describe."""
        return read_plan(self.plan) if self.plan is not None else _named(self._by_flags())

    def _by_flags(self) -> Plan:
        if self.sparse == self.redense == 0:
            return Plan((Phase("dense", self.dense, decay=self.decay),))
        return dsd(
            self.dense,
            self.sparse,
            self.redense,
            self.sparsity,
            passes=self.passes,
            sparse_lr=self.sparse_lr,
            redense_lr=self.redense_lr,
            decay=self.decay,
            mask=self.mask,
        )


def _named(plan: Plan) -> Plan:
    """The plan, if each of its masks has a name that a run's folder can hold."""
    for phase in plan:
        check_mask_name(phase.mask_name, phase.name)
    return plan


def read_plan(path: Path) -> Plan:
    """A plan from a TOML (``[[phases]]``) or YAML (``phases:``) file.

    Raises:
        FileNotFoundError, ValueError: with the file's name and what is wrong in it.
    """
    records = _content(path)["phases"]
    try:
        return _named(Plan.from_records(records))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """What a plan's file says beside its phases, as a search writes it: ``include``,
    ``weight_decay``, ``average``, ``select``, ``shrink``; see
    `redense.runs.configuration.RunConfig`."""
    content = _content(path)
    return {name: value for name, value in content.items() if name in SETTINGS}


def _content(path: Path) -> PlanFile:
    if not path.is_file():
        raise FileNotFoundError(f"plan {str(path)!r}: no such file")
    content = read_toml(path, PLAN) if path.suffix == ".toml" else read_yaml(path, PLAN)
    known = ("phases", *SETTINGS)
    for key in content:
        if key not in known:
            hint = near(key, known)
            raise ValueError(
                f"{path}: a plan has no {key!r}; {f'{hint} ' if hint else ''}"
                f"it has {', '.join(known)}"
            )
    return content
