"""What a run was asked for: written when its folder is made, and all that a resume needs; later on
only the place of its data changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from redense.files.typed import Kind, build, parse_json
from redense.plan import MASKS, Plan, check_mask_name

_WHAT = "run's config"
_REMEDY = "start the run anew"


@dataclass(frozen=True)
class RunConfig:
    """One run's settings.

    Args:
        recipe: the built-in recipe that is trained; empty for a function of the user's own.
        function: that function's name, ``"mine.py:train"``.
        method: what the plan is called among others; a study's column.
        seed: of initial weights, data order, augmentation and dropout.
        plan: the plan's records.
        options: the recipe's options by name.
        include, exclude: patterns of weights that may be held, and that are never.
        accelerator, devices, precision, strategy: where and how Lightning trains a recipe.
        average: the phase whose epochs' weights are averaged in the end; None for no average.
        select: ``last`` for the last epoch's weights, ``best`` for the best logged epoch's.
        keep_best: keep those weights whatever is selected, for runs that start from this one's
            phases and select them.
        shrink: share of a trained network that is kept at the start, see
            `redense.runs.shrinking`; 1 leaves it as it came.
        weight_decay: a factor for each phase on the groups' own weight decay, see
            `redense.runs.decay`; empty leaves it alone.
        higher_is_better: whether a higher score is the better one.
        command: the command line that asked for it.

    >>> RunConfig.from_json('{"recipe": "images", "seed": 3, "plan": []}').strategy
    'ddp'
    """

    recipe: str = ""
    function: str = ""
    method: str = "dsd"
    seed: int = 0
    plan: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    strategy: str = "ddp"
    average: str | None = None
    select: str = "last"
    keep_best: bool = False
    shrink: float = 1.0
    weight_decay: list[float] = field(default_factory=list)
    higher_is_better: bool = True
    command: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in 0 to {2**32 - 1}, got {self.seed}")
        if not 0 <= self.shrink <= 1:
            raise ValueError(f"shrink must lie in [0, 1], got {self.shrink}; 1 leaves all as it is")
        for phase in self.plan:
            check_mask_name(phase.get("mask", MASKS[0]), phase.get("name", ""))
        if self.weight_decay and len(self.weight_decay) != len(self.plan):
            raise ValueError(
                f"weight_decay must be one factor for each of the {len(self.plan)} phases, got "
                f"{len(self.weight_decay)}"
            )

    @property
    def trained(self) -> str:
        """What is trained, as messages and records name it."""
        return self.recipe or self.function

    @property
    def settings(self) -> dict[str, Any]:
        """What every epoch is trained with, whatever its phase: runs that share epochs may differ
        in what they hold afterwards."""
        return {"seed": self.seed, "precision": self.precision, **self.options}

    @property
    def keeps_best(self) -> bool:
        """Whether the best epoch's weights are kept beside the last one's."""
        return self.keep_best or self.select == "best"

    def to_plan(self) -> Plan:
        """The plan itself."""
        return Plan.from_records(self.plan)

    def to_json(self) -> str:
        """The text of config.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, place: object = "config.json") -> Self:
        """The config that `to_json` wrote, or an older version: what it lacks has its default.

        Args:
            place: the file, for errors.

        Raises:
            ValueError: it is no such text: a key that no config has, a value of another kind or a
                plan that cannot be are named.
        """
        kind = Kind(cls, _WHAT, _REMEDY)
        config = build(parse_json(text, kind, place), kind, place)
        try:
            config.to_plan()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place} is no {_WHAT}: {error}; {_REMEDY}") from error
        return config
