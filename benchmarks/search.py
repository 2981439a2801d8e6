"""How often a search finds a plan that is best by construction, and how often it claims one where
none helps: ``python -m benchmarks.search``.

The scores are a formula of the plan with noise, so nothing is trained; everything else is a real
search with its runs, its pruning and its confirmation.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redense
from redense.plan import Plan
from redense.runs import outcome
from redense.runs.record import environment

OUT = Path(__file__).parents[1] / "results/bench/search.json"
ASKED = {"dense": 10, "epochs": 24, "trials": 40, "seeds": 3, "confirm": 8}
FINDS, NULLS = 10, 20


@dataclass(frozen=True)
class Toy:
    """A training whose score depends on the plan alone.

    Args:
        number: of the noise.
        gain: of the best plan, in points; 0 where no plan changes anything.
        mask, sparsity, passes: of the best plan.
    """

    number: int
    gain: float
    mask: str
    sparsity: float
    passes: int

    def gain_of(self, plan: Plan) -> float:
        """What a plan gains over holding nothing: 3 points less under another mask, 0.6 for each
        tenth of sparsity and half a point for each pass beside the best."""
        held = [phase for phase in plan if phase.sparsity]
        if not held or not self.gain:
            return 0.0
        off = 3 * (held[0].mask != self.mask)
        off += 6 * abs(held[0].sparsity - self.sparsity)
        return self.gain - off - 0.5 * abs(len(held) - self.passes)

    def __call__(self, run: redense.Run) -> dict[str, Any]:
        """Points, with a spread of 0.5 between seeds and of 0.5 between runs of a seed."""
        written = f"{self.number} {run.seed} {run.plan.to_records()}"
        noise = random.Random(f"{self.number} {run.seed}").gauss(0, 0.5)
        noise += random.Random(written).gauss(0, 0.5)
        score = 70 + self.gain_of(run.plan) + noise
        test = score + random.Random(f"test {written}").gauss(0, 0.5)
        return {"valid": {"top1": score}, "test": lambda: {"top1": test}}


def toy(number: int, gain: float) -> Toy:
    """One of many, its best plan drawn by its number."""
    draw = random.Random(number)
    mask = draw.choice(["magnitude", "global", "random"])
    return Toy(number, gain, mask, round(draw.uniform(0.2, 0.85), 2), draw.randint(1, 6))


def look(task: Toy) -> dict[str, Any]:
    """Search once."""
    folder = tempfile.mkdtemp(prefix="redense-search-")
    start = time.perf_counter()
    found = redense.search(task, out=folder, anyway=True, **ASKED)
    shutil.rmtree(folder)
    said = found.study.summary.verdicts["plan"]
    return {
        "task": asdict(task),
        "gain": task.gain_of(found.plan),
        "outcome": said.outcome,
        "promised": found.gain,
        "confirmed": said.contrast.difference.mean,
        "spared": found.cost.spared,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Search thirty times; print and write how often it was right."""
    outcome.environment = cache(environment)  # the commit is asked of git once, not in every run
    finds = [_shown(look(toy(number, 4.0))) for number in range(FINDS)]
    nulls = [_shown(look(toy(100 + number, 0.0))) for number in range(NULLS)]
    found = sum(one["outcome"] == "helps" and one["gain"] >= 3 for one in finds)
    claimed = sum(one["outcome"] == "helps" for one in nulls)
    print(
        f"within a point of the best plan's 4, and confirmed: {found} of {FINDS} searches; where "
        f"no plan helps, none is claimed in {NULLS - claimed} of {NULLS}"
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "asked": ASKED,
        "found": found,
        "of": FINDS,
        "null_said": NULLS - claimed,
        "of_nulls": NULLS,
        "searches": [*finds, *nulls],
        **environment(),
    }
    OUT.write_text(json.dumps(content, indent=2) + "\n")


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{one['task']['mask']} {one['task']['sparsity']}: {one['outcome']}, true gain "
        f"{one['gain']:.2f}, promised {one['promised']:.2f}, confirmed {one['confirmed']:.2f}, "
        f"spared {100 * one['spared']:.0f} %, {one['seconds']:.0f} s",
        file=sys.stdout,
        flush=True,
    )
    return one


if __name__ == "__main__":
    main()
