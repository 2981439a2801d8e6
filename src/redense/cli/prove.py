"""``redense prove``: a recipe, or a function of your own, against its controls of equal budget."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redense.cli.flags import Parser, add_flag, build, given, parse
from redense.cli.stopping import goes_on_by
from redense.cli.targets import add_target_flags, load_function, recipe_of, usable_cores
from redense.cli.train import run_config, say_if_random, usual_schedule
from redense.recipes import RECIPES
from redense.recipes.schedule import Schedule, read_plan, read_settings
from redense.study.looks import looks

if TYPE_CHECKING:
    from redense.plan import Plan
    from redense.proof import Question
    from redense.runs.run import Run

_USAGE = f"""usage: redense prove RECIPE [flags]
       redense prove FILE.py:FUNCTION [flags]
       redense prove package.module:FUNCTION [flags]

Train a plan and its controls of equal budget over the same seeds, and say whether it helped.

recipes: {", ".join(RECIPES)}
FUNCTION takes a run and returns a score:

    def train(run):
        model, optimizer = build(run.seed)
        for epoch in run.epochs(model, optimizer):
            train_one_epoch(model, optimizer)
        return {{"valid": {{"top1": accuracy(model)}}}}

redense prove RECIPE --help shows all flags; the same command goes on with an unfinished study."""


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        seeds: how many; every method runs once with each of them. auto adds them until the verdict
            is clear, by a sequential test.
        most: with --seeds auto, the seeds at which it ends at the latest.
        within: with --seeds auto, enough where a difference's interval is narrower than this.
        first_seed: the first of them; settings are chosen with other seeds than they are judged by.
        methods: with commas: dense, longer, lower_lr (the matched control), early_stop, swa,
            shrink_perturb (with dense 0), pruned, random_dsd, dsd, dsdsd, relearn, acdc, spdf; the
            last three bring controls of their own rates, full_lr, acdc_lr, spdf_lr.
        jobs: runs at a time, one thread each; default one per core that this process may use.
        backend: loky on this machine, dask or ray for a cluster.
        shard: 2/4 trains the second of four parts of the seeds, for machines that share nothing;
            copy all parts' folders into one and leave --shard out for the verdict.
        split: what the verdict reads: test, or valid while choosing a setting.
        out: study folder; default runs/prove-NAME. An unfinished study there goes on.
    """

    seeds: str = "8"
    most: int = 40
    within: float | None = None
    first_seed: int = 0
    methods: str = "dense,longer,lower_lr,swa,random_dsd,dsd"
    jobs: int | None = None
    backend: str = "loky"
    shard: str | None = None
    split: str = "test"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.shard is not None and not re.fullmatch(r"\d+/\d+", self.shard):
            raise ValueError(f"shard must be a part of the seeds such as 2/4, got {self.shard!r}")
        if self.split not in ("test", "valid"):
            raise ValueError(f"split must be test or valid, got {self.split!r}")
        if self.backend not in ("loky", "dask", "ray"):
            raise ValueError(f"backend must be one of loky, dask, ray, got {self.backend!r}")
        if not self.grows and (not self.seeds.isdecimal() or int(self.seeds) < 2):
            raise ValueError(
                f"seeds must be auto, or at least 2, got {self.seeds}; a verdict needs 6 and more"
            )
        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}")
        if self.grows:
            looks(self.most)
        if self.within is not None and not (self.grows and self.within > 0):
            raise ValueError(
                f"within is a width above 0 that goes with --seeds auto, got {self.within}"
            )
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")

    @property
    def grows(self) -> bool:
        """Whether seeds are added until the verdict is clear."""
        return self.seeds == "auto"

    @property
    def count(self) -> int:
        """Of seeds, or the most."""
        return self.most if self.grows else int(self.seeds)

    @property
    def part(self) -> tuple[int, int] | None:
        """Of the seeds: which, and of how many."""
        if self.shard is None:
            return None
        part, parts = map(int, self.shard.split("/"))
        return part, parts

    @property
    def workers(self) -> int:
        """Jobs at a time."""
        return usable_cores() if self.jobs is None else self.jobs


def prove_command(arguments: list[str]) -> int:
    """Put dense-sparse-dense to the proof."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else 2
    target, flags = arguments[0], arguments[1:]
    name = recipe_of(target)
    asked = parse(_parser(target, name, flags), flags)
    study = build(Study, asked)
    if "most" in given(flags) and not study.grows:
        raise ValueError(f"most goes with --seeds auto; {study.seeds} seeds are trained")
    question = _question(target, name, asked, study, ["redense", "prove", *arguments])
    if asked.dry_run:
        print(_dry_run(question))
        return 0
    if name is not None:
        _check(question)
    return _answer(question, study)


def _parser(target: str, recipe: str | None, flags: list[str]) -> Parser:
    parser = Parser(
        f"redense prove {target}",
        "Compare dense-sparse-dense with controls of equal budget, paired over seeds.",
    )
    usual = {} if recipe is None else usual_schedule(RECIPES[recipe], flags)
    if "init" in given(flags):
        usual["dense"] = 0
    shares = usual.pop("sparsity", Schedule.sparsity)
    parser.add_fields(Study)
    parser.add_fields(Schedule, skip={"sparsity"}, defaults=usual)
    add_flag(
        parser,
        "sparsity",
        str,
        "/".join(map(str, shares)) if isinstance(shares, list) else str(shares),
        "one share to hold, several to compare with commas between them; 0.5/0.25 is one for each "
        "of two passes",
    )
    add_target_flags(parser, recipe, usual)
    parser.add_argument(
        "--dry-run", action="store_true", help="print plans and cost, train nothing"
    )
    return parser


def _question(
    target: str, recipe: str | None, asked: argparse.Namespace, study: Study, command: list[str]
) -> Question:
    from redense.proof import (
        Question,
        check_function,
        check_shard,
        with_controls,
    )
    from redense.recipes import train as train_recipe
    from redense.runs.configuration import RunConfig
    from redense.study.methods import build_methods
    from redense.study.sources import source_sha256

    train: Callable[[Run], Any]
    defaults: dict[str, Any]
    check_shard(study.part, study.count, grows=study.grows)
    methods = build_methods(with_controls(study.methods.split(",")), _plans(asked))
    if recipe is None:
        function = load_function(target)
        check_function(function)
        config = RunConfig(
            function=target, higher_is_better=asked.higher_is_better, command=command
        )
        folder = Path("runs") / f"prove-{target.partition(':')[2]}"
        train, source, defaults = function, source_sha256(function), {}
    else:
        options = RECIPES[recipe].options_class()
        mine = build(options, asked)
        say_if_random(mine, asked)
        config = run_config(recipe, mine, asked, command)
        folder = Path("runs") / f"prove-{recipe}"
        train, source, defaults = train_recipe, "", vars(options())
    return Question(
        folder=study.out or folder,
        train=train,
        methods=methods,
        seeds=study.count,
        grows=study.grows,
        within=study.within,
        first_seed=study.first_seed,
        config=config,
        source_sha256=source,
        split=study.split,
        options=defaults,
        shard=study.part,
    )


def _plans(asked: argparse.Namespace) -> dict[str, Plan]:
    """The plans under proof, by how their sparsity was written."""
    if asked.plan is not None:
        if settings := read_settings(asked.plan):
            raise ValueError(
                f"{asked.plan} sets {', '.join(settings)} beside its phases, which redense prove "
                "does not compare: leave that out of the file, or use redense search"
            )
        return {"": read_plan(asked.plan)}
    try:
        levels = {
            text: [float(share) for share in text.split("/")] for text in asked.sparsity.split(",")
        }
    except ValueError:
        raise ValueError(
            f"--sparsity takes numbers such as 0.3, 0.2,0.5 or 0.5/0.25, got {asked.sparsity!r}"
        ) from None
    return {
        text: build(Schedule, asked, sparsity=shares[0] if len(shares) == 1 else shares).to_plan()
        for text, shares in levels.items()
    }


def _check(question: Question) -> None:
    """Tell mistakes in data, options and plans before anything is trained."""
    from redense.recipes import build_task
    from redense.runs.training import check_plan

    task = build_task(question.planned[0].config)
    for config in {job.config.method: job.config for job in question.planned}.values():
        check_plan(config, task)


def _dry_run(question: Question) -> str:
    """The plan of every method, what all cost, and from how many seeds on there is a verdict."""
    plans = [f"{name}{_meaning(name)}\n{method.plan}" for name, method in question.methods.items()]
    least = (
        f"a verdict on {len(question.methods) - 1} comparisons takes at least "
        f"{question.least_seeds} seeds"
    )
    said = [*plans, question.announce(question.planned, question.planned), least]
    return "\n\n".join([*said, *filter(None, [question.too_few])])


def _meaning(name: str) -> str:
    from redense.study.methods import kind_of

    kind = kind_of(name)
    return f": {kind.meaning}" if kind else ""


def _answer(question: Question, study: Study) -> int:
    from redense.runs.checkpoints import write_text
    from redense.study.summary import as_markdown

    with goes_on_by("the same command goes on"):
        found = question.answer(jobs=study.workers, backend=study.backend)
    print(found)
    if found.failed:
        return 1
    if found.shard is not None:
        return 0
    write_text(question.folder / "summary.md", as_markdown(found.summary) + "\n")
    return 0
