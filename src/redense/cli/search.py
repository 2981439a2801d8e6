"""``redense search``: the best plan and the best tuned control of a recipe or of a function of your
own, and whether one beats the other."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redense.cli.flags import Parser, build, parse
from redense.cli.stopping import goes_on_by
from redense.cli.targets import add_target_flags, load_function, recipe_of, usable_cores
from redense.cli.train import run_config
from redense.recipes import RECIPES

if TYPE_CHECKING:
    from redense.search.found import Search
    from redense.search.space import Space

_USAGE = f"""usage: redense search RECIPE [flags]
       redense search FILE.py:FUNCTION [flags]
       redense search package.module:FUNCTION [flags]

Look for the plan that does best on validation, as hard for the best control, and let the two meet
on fresh seeds and the test split.

recipes: {", ".join(RECIPES)}
FUNCTION takes a run and returns a score, as for redense prove.

redense search RECIPE --help shows all flags; the same command goes on with an unfinished search."""


@dataclass(frozen=True)
class Looking:
    """How hard is looked.

    Args:
        dense: epochs of the first phase, which all trials share; 0 from a trained network.
        decay: course of the rate in that phase: constant, linear, cosine or step.
        epochs: the budget behind it.
        trials: of plans, and as many of controls.
        seeds: that a trial may get; what is clearly behind after the first gets no more.
        confirm: fresh seeds on which the best plan and the best control meet, and the plan's own
            matched control (its phases and rates, nothing held) beside them.
        space: a TOML file that narrows or widens where is looked: sparsity = [0.3, 0.8], masks,
            layers, passes, sparse_share, lr, decays, weight_decay, shrink, scored.
        plan: a plan's file, sensitivity.toml say, whose sparsity for each pattern is tried as one
            more choice of layers.
        jobs: runs at a time, one thread each; default one per core that this process may use.
        backend: loky on this machine, dask or ray for a cluster.
        out: the search's folder; default runs/search-NAME. An unfinished search there goes on.
    """

    dense: int = 10
    decay: str = "cosine"
    epochs: int = 20
    trials: int = 40
    seeds: int = 3
    confirm: int = 10
    space: Path | None = None
    plan: Path | None = None
    jobs: int | None = None
    backend: str = "loky"
    out: Path | None = None

    @property
    def workers(self) -> int:
        """Jobs at a time."""
        return usable_cores() if self.jobs is None else self.jobs


def search_command(arguments: list[str]) -> int:
    """Search, confirm, and say whether to use the plan."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else 2
    target, flags = arguments[0], arguments[1:]
    recipe = recipe_of(target)
    asked = parse(_parser(target, recipe), flags)
    looking = build(Looking, asked)
    search = _search(target, recipe, asked, looking, ["redense", "search", *arguments])
    if asked.dry_run:
        print(search.announce())
        return 0
    if recipe is not None:
        from redense.recipes import build_task

        build_task(search.config)  # mistakes in data and options are told here
    with goes_on_by("the same command goes on"):
        found = search.answer(jobs=looking.workers, backend=looking.backend, anyway=asked.anyway)
    print(found)
    return 1 if found.study.failed else 0


def _parser(target: str, recipe: str | None) -> Parser:
    parser = Parser(
        f"redense search {target}",
        "Look for the plan that helps, and for the control that does as well.",
    )
    parser.add_fields(Looking)
    add_target_flags(parser, recipe)
    parser.add_argument(
        "--anyway", action="store_true", help="search even if the dense phase is not converged"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what may be spent, train nothing"
    )
    return parser


def _search(
    target: str,
    recipe: str | None,
    asked: argparse.Namespace,
    looking: Looking,
    command: list[str],
) -> Search:
    from redense.proof import check_function
    from redense.recipes import train as train_recipe
    from redense.runs.configuration import RunConfig
    from redense.search.found import Search
    from redense.study.sources import source_sha256

    budget: dict[str, Any] = {
        name: getattr(looking, name)
        for name in ("dense", "decay", "epochs", "trials", "seeds", "confirm")
    }
    space = _space(looking.space)
    if looking.plan is not None:
        space = replace(space, shares=_shares(looking.plan))
    if recipe is None:
        function = load_function(target)
        check_function(function)
        return Search(
            folder=looking.out or Path("runs") / f"search-{target.partition(':')[2]}",
            train=function,
            config=RunConfig(
                function=target, higher_is_better=asked.higher_is_better, command=command
            ),
            space=space,
            source_sha256=source_sha256(function),
            **budget,
        )
    options = RECIPES[recipe].options_class()
    return Search(
        folder=looking.out or Path("runs") / f"search-{recipe}",
        train=train_recipe,
        config=run_config(recipe, build(options, asked), asked, command),
        space=space,
        options=vars(options()),
        **budget,
    )


def _shares(file: Path) -> dict[str, float]:
    """The sparsity for each pattern of a plan's first phase that has one."""
    from redense.recipes.schedule import read_plan

    for phase in read_plan(file):
        if isinstance(phase.sparsity, Mapping):
            return dict(phase.sparsity)
    raise ValueError(
        f"{file} has no phase with a sparsity for each pattern; redense sensitivity writes one"
    )


def _space(file: Path | None) -> Space:
    """What a TOML file says of `Space`'s fields."""
    from redense.files.typed import TABLE, Kind, read_toml
    from redense.files.typed import build as build_typed
    from redense.search.space import Space

    if file is None:
        return Space()
    remedy = "sparsity = [0.3, 0.8] narrows a range, say"
    return build_typed(read_toml(file, TABLE), Kind(Space, "space to search", remedy), file)
