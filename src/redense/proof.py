"""The proof for any training: a plan against its controls of equal budget, paired over seeds.

study = redense.prove(train, redense.dsd(10, 5, 5, 0.5), seeds=8, out="runs/mine")
print(study)
"""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from redense.files.records import read_record
from redense.plan import Plan
from redense.runs.configuration import RunConfig
from redense.runs.run import Run
from redense.runs.sections import Section, Text
from redense.runs.task import Metric
from redense.study.folder import keep_verdict, open_study, records, verdicts
from redense.study.jobs import Job, as_they_lie, plan_jobs, saved_share
from redense.study.looks import confidence, looked_before, looks
from redense.study.methods import BASELINE, CONTROL, METHODS, Method, build_methods, set_aside
from redense.study.running import Outcome, run_study
from redense.study.sources import source_sha256
from redense.study.stats import least_seeds
from redense.study.summary import Summary, print_table, sentences, settled, summarize_records
from redense.study.work import FunctionWork

DEFAULT = ("dense", "longer", "lower_lr", "swa", "random_dsd", "dsd")
"""What a plan is compared with, unless you say."""


@dataclass(frozen=True)
class Failure:
    """A run that raised, diverged or was not run: why, and the file of its traceback."""

    method: str
    seed: int
    why: str
    file: Path


@dataclass(frozen=True, repr=False)
class Study:
    """Finished runs of a study's folder, and what they come to."""

    folder: Path
    split: str
    records: tuple[Mapping[str, Any], ...]
    failed: tuple[Failure, ...]
    spared: float
    """Share of all epochs that branching spared."""
    control: str = CONTROL
    baseline: str = BASELINE
    """What every method is judged against."""
    most: int | None = None
    """Seeds, where they were added until the verdict was clear."""
    shard: tuple[int, int] | None = None
    """Which part of the seeds was asked for, and of how many; then there is no verdict yet."""
    looks: tuple[int, ...] = ()
    """How many of these seeds the study was judged at before."""

    @property
    def summary(self) -> Summary:
        """The comparison itself, with every number of the table.

        Raises:
            ValueError: too few runs are done for one, or only a part of the seeds was asked for.
        """
        if self.shard is not None:
            raise ValueError(
                f"this is part {self.shard[0]} of {self.shard[1]}; copy what lies in the folders "
                "of all parts into one, and the same call without shard judges them"
            )
        return summarize_records(
            self.records,
            self.split,
            failed=self._missing,
            control=self.control,
            baseline=self.baseline,
            most=self.most,
        )

    @property
    def verdict(self) -> str:
        """The answer in words; what is missing is said."""
        try:
            said = sentences(self.summary)
        except ValueError as error:
            said = [f"No verdict: {error}.", *(f"Missing: {one}." for one in self._missing)]
        return "\n\n".join([*said, *looked_before(self.looks), *self._in_full])

    @property
    def scores(self) -> list[dict[str, Any]]:
        """One row per run: method, seed, and every score of the split that was judged."""
        split = self.summary.split
        return [
            {"method": record["method"], "seed": record["seed"], **record[split]}
            for record in self.records
        ]

    @property
    def is_judged(self) -> bool:
        """Whether there is a verdict to be seen."""
        try:
            return bool(self.summary)
        except ValueError:
            return False

    def settled(self, within: float | None) -> bool:
        """Whether more seeds are not needed: the verdict is clear, or its interval narrower than
        ``within``."""
        try:
            return settled(self.summary, within)
        except ValueError:
            return False

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page on this study, by default to report.html in its folder, and its scores
        beside it, to study.csv or as ``proof.csv``; return where the page is,
        ``study.report("proof.html")``.
        """
        from redense.recipes.report import sections
        from redense.report.page import report

        page = None if path is None else Path(path).expanduser()
        return report([self.folder], page, sections=sections)

    def __str__(self) -> str:
        text = io.StringIO()
        try:
            print_table(self.summary, Console(width=80, file=text))
        except ValueError:
            return self.verdict
        return f"{text.getvalue()}\n{self.verdict}"

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, {len(self.records)} runs)"

    def _repr_html_(self) -> str:
        """Table and verdict, for a notebook."""
        from redense.report.markup import section_html
        from redense.report.tables import scores_table

        said = [Text(words) for words in self.verdict.split("\n\n")]
        try:
            table = scores_table(self.summary)
        except ValueError:
            return section_html(Section("", said))
        return section_html(Section("", [table, *said]))

    @property
    def _missing(self) -> list[str]:
        """Every run that failed, those of one reason together."""
        alike: dict[str, list[Failure]] = {}
        for one in self.failed:
            alike.setdefault(one.why, []).append(one)
        return [
            f"{', '.join(f'{one.method} with seed {one.seed}' for one in runs)}, {why} "
            f"({runs[0].file})"
            for why, runs in alike.items()
        ]

    @property
    def _in_full(self) -> list[str]:
        if all(record["branched"] for record in self.records):
            return []
        if any(
            (self.folder / f"{r['method']}--{r['seed']}/alone.txt").exists() for r in self.records
        ):
            return [
                "Every run was trained in full, since the function asks for run.plan and its first "
                "epochs may depend on what comes after them; without (rates that fall within a "
                'phase are the plan\'s, decay="cosine") the epochs that methods have in common '
                f"would have been shared and {100 * self.spared:.0f} % of all spared."
            ]
        return [
            "Every run was trained in full, since the function keeps a loop of its own; a loop "
            "over run.epochs(model, optimizer) would have shared the epochs that methods have in "
            f"common and spared {100 * self.spared:.0f} % of all."
        ]


def prove(
    train: Callable[[Run], Any],
    plan: Plan,
    *,
    seeds: int | Literal["auto"] = 8,
    most: int = 40,
    within: float | None = None,
    first_seed: int = 0,
    methods: Iterable[str] | Mapping[str, Plan] = DEFAULT,
    higher_is_better: bool = True,
    out: str | Path = "runs/proof",
    jobs: int = 1,
    backend: str = "loky",
    split: str = "test",
    shard: tuple[int, int] | None = None,
) -> Study:
    """Train ``train(run)`` under ``plan`` and under its controls, over the same seeds, and judge.

    The same call goes on with an unfinished study; a finished one is only read. A run that raises
    or diverges costs that run alone.

    Args:
        train: gets a `Run`; returns a number, scores by metric, or those by split
            (``{"valid": {...}, "test": lambda: {...}}``). The first metric is judged.
        plan: what is put to the proof; it needs a sparse phase.
        seeds: how many; each method runs once with each of them. ``"auto"`` adds them until
            the verdict is clear, by a sequential test (`redense.study.looks`).
        most: with ``seeds="auto"``, the seeds at which it ends at the latest.
        within: with ``seeds="auto"``, enough where the interval of a difference is narrower.
        first_seed: the first of them; settings are chosen with other seeds than they are judged by.
        methods: names of `redense.study.methods.METHODS`; a mapping adds plans of your own by name.
        higher_is_better: of the judged metric.
        out: the study's folder.
        jobs: runs at a time, one thread each.
        backend: ``loky`` on this machine, ``dask`` or ``ray`` on a cluster.
        split: what is judged, ``test`` or ``valid``; a study of functions without a test split
            judges the validation split.
        shard: ``(2, 4)`` trains the second of four parts of the seeds, on a machine of its own;
            once all folders' content lies in one, the same call without it judges.

    Raises:
        TypeError, ValueError: one of these is not what it should be; nothing was trained.

    >>> def length(run):  # a function that trains nothing and scores its plan
    ...     return len(run.plan)
    >>> study = prove(length, redense.dsd(2, 1, 1, 0.5), seeds=2, methods=("dense", "dsd"))
    >>> [(row["method"], row["score"]) for row in study.scores if row["seed"] == 0]
    [('dense', 2.0), ('dsd', 4.0), ('lower_lr', 4.0)]
    """
    check_function(train)
    grows = seeds == "auto"
    count: Any = most if grows else seeds
    _check(plan, count, first_seed, jobs, split)
    _check_kinds(methods, out, within, higher_is_better)
    _check_growth(grows, most, within)
    check_shard(shard, count, grows=grows)
    built = build_methods(with_controls(methods), {"": plan})
    function = f"{train.__module__}:{getattr(train, '__qualname__', type(train).__name__)}"
    question = Question(
        folder=Path(out).expanduser(),
        train=train,
        methods=built,
        seeds=count,
        grows=grows,
        within=within,
        first_seed=first_seed,
        config=RunConfig(function=function, higher_is_better=higher_is_better),
        source_sha256=source_sha256(train),
        split=split,
        shard=shard,
    )
    return question.answer(jobs=jobs, backend=backend)


@dataclass(frozen=True)
class Question:
    """What a study asks: which methods, over how many seeds, of which training.

    Args:
        seeds: how many; where it ``grows``, the most.
        first_seed: the first of them.
        grows: seeds are added until the verdict is clear, or known to ``within``.
        folder: the study's.
        train: called with a `Run`.
        methods: by name, the baseline and the control among them.
        config: what all runs have in common; its command line is the study's.
        source_sha256: of the function's source; a study does not go on with another one.
        options: the recipe's options with their defaults, which older studies may lack.
        control, baseline: the methods that every other is judged against; one may be both.
        shard: part of the seeds that is trained here, and of how many.
    """

    folder: Path
    train: Callable[[Run], Any]
    methods: Mapping[str, Method]
    seeds: int
    config: RunConfig
    grows: bool = False
    within: float | None = None
    first_seed: int = 0
    source_sha256: str = ""
    split: str = "test"
    options: Mapping[str, Any] = field(default_factory=dict)
    control: str = CONTROL
    baseline: str = BASELINE
    shard: tuple[int, int] | None = None

    @property
    def planned(self) -> list[Job]:
        """Every run, and which one it starts from."""
        return self._planned(0, self.seeds)

    def answer(self, *, jobs: int = 1, backend: str = "loky") -> Study:
        """Train what is not trained yet, and judge."""
        open_study(self.folder, self._settings(), self._defaults())
        if warning := self.too_few:
            print(warning, file=sys.stderr)
        for said in looked_before(self._looks):
            print(f"warning: {said}", file=sys.stderr)
        failed: list[Failure] = []
        trained = 0
        for seeds in self.judged_at:
            planned = self._planned(trained, seeds)
            failed += self._train(planned, jobs, backend)
            study = self._study(failed)
            if self.grows and study.settled(self.within):
                break
            trained = seeds
        if not self.grows and study.is_judged:
            keep_verdict(self.folder, self._seeds)
        return study

    @property
    def judged_at(self) -> tuple[int, ...]:
        """Numbers of seeds; a growing study may end at each."""
        return looks(self.seeds) if self.grows else (self.seeds,)

    def announce(self, planned: Sequence[Job], left: Sequence[Job]) -> str:
        """What is about to be spent, before it is."""
        seeds = len({job.config.seed for job in planned})
        more = f" of at most {self.seeds}" if self.grows else ""
        return (
            f"{self.folder}: {len(self.methods)} methods x {seeds} seeds{more}, "
            f"{len(planned) - len(left)} of {len(planned)} runs done, "
            f"{sum(job.epochs for job in left)} epochs to train; "
            f"branching spares {100 * saved_share(planned):.0f} %"
        )

    def _planned(self, trained: int, seeds: int) -> list[Job]:
        numbers = range(self.first_seed + trained, self.first_seed + seeds)
        if self.shard is not None:
            part, parts = self.shard
            numbers = numbers[part - 1 :: parts]
        return as_they_lie(self.folder, plan_jobs(self.methods, numbers, self.config))

    def _train(self, planned: Sequence[Job], jobs: int, backend: str) -> list[Failure]:
        left = [job for job in planned if not (self.folder / job.name / "record.json").exists()]
        if not left:
            return []
        print(self.announce(planned, left), file=sys.stderr)
        data = {"name": self.config.trained, "sizes": {}, "sha256": self.source_sha256}
        work = FunctionWork.of(self.train, reads_test=self.split == "test", data=data)
        return [
            Failure(
                outcome.job.config.method,
                outcome.job.config.seed,
                outcome.error,
                self.folder / (outcome.of or outcome.job.name) / "error.txt",
            )
            for outcome in run_study(
                self.folder,
                planned,
                work,
                workers=jobs,
                backend=backend,
                then=self._warned(),
                gives_up=True,
            )
            if outcome.error
        ]

    def _warned(self) -> Callable[[Outcome], Sequence[Job]]:
        """After the first run that is done, say at once what its metric's name makes doubtful."""
        said: list[str] = []

        def then(outcome: Outcome) -> Sequence[Job]:
            file = self.folder / outcome.job.name / "record.json"
            if not said and file.exists():
                said.append(Metric(**read_record(file)["metric"]).doubt)
                if said[0]:
                    print(f"warning: {said[0]}", file=sys.stderr)
            return ()

        return then

    def _study(self, failed: Sequence[Failure]) -> Study:
        asked = [
            record
            for record in records(self.folder)
            if record["method"] in self.methods and record["seed"] in self._seeds
        ]
        return Study(
            self.folder,
            self.split,
            tuple(asked),
            tuple(failed),
            saved_share(
                self._could_share if any(not r["branched"] for r in asked) else self.planned
            ),
            looks=self._looks,
            control=self.control,
            baseline=self.baseline,
            most=self._most,
            shard=self.shard,
        )

    @property
    def _seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def _could_share(self) -> list[Job]:
        return plan_jobs(self.methods, self._seeds, self.config)

    @property
    def _looks(self) -> tuple[int, ...]:
        """Earlier judgments at fewer of these seeds; a study that grows pays for its own."""
        earlier = [] if self.grows else verdicts(self.folder)
        return tuple(sorted(len(one) for one in earlier if one < set(self._seeds)))

    @property
    def too_few(self) -> str:
        """A warning where the seeds allow no verdict; empty where they do."""
        if self.seeds >= self.least_seeds or self.shard:
            return ""
        flag = "most" if self.grows else "seeds"
        return (
            f"warning: {self.seeds} seeds allow no verdict on {len(self.methods)} methods, pass "
            f"--{flag} {self.least_seeds} ({flag}={self.least_seeds}) or fewer methods"
        )

    @property
    def least_seeds(self) -> int:
        """With fewer no difference can pass, however large."""
        compared = self.methods.keys() - set_aside(self.control)
        return least_seeds(len(compared) - 1, confidence(self._most))

    @property
    def _most(self) -> int | None:
        return self.seeds if self.grows else None

    def _settings(self) -> dict[str, Any]:
        shared = asdict(self.config)
        for name in _OF_A_RUN:
            del shared[name]
        plans = {name: method.plan.to_records() for name, method in self.methods.items()}
        against = {"control": self.control, "baseline": self.baseline, "most": self._most}
        return {**shared, **against, "source_sha256": self.source_sha256, "methods": plans}

    def _defaults(self) -> dict[str, Any]:
        against = {"control": CONTROL, "baseline": BASELINE, "most": None}
        known = {"source_sha256": "", "options": dict(self.options)}
        return {**asdict(RunConfig()), **against, **known}


_OF_A_RUN = ("method", "seed", "plan", "average", "select", "keep_best", "weight_decay", "shrink")
"""Settings in which the runs of a study differ."""


def check_function(train: Any) -> None:
    """Raise TypeError unless ``train`` is a function of one argument."""
    if not callable(train):
        raise TypeError(f"train must be a function of one argument, a run; got {train!r}")
    try:
        inspect.signature(train).bind(object())
    except TypeError as error:
        raise TypeError(f"train must take one argument, a run: {error}") from error


def _check_kinds(methods: Any, out: Any, within: Any, higher_is_better: Any) -> None:
    """Raise TypeError where an argument is not of the kind that it must be."""
    if not isinstance(methods, Iterable):
        raise TypeError(f"methods must be names, or plans by name, got {methods!r}")
    for name, plan in methods.items() if isinstance(methods, Mapping) else ():
        if plan is not None and not isinstance(plan, Plan):
            raise TypeError(
                f"methods: {name!r} must be a redense.Plan, or None for redense's own of that "
                f"name, got {plan!r}"
            )
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(f"out must be the study's folder, got {out!r}")
    if within is not None and (isinstance(within, bool) or not isinstance(within, (int, float))):
        raise TypeError(f"within must be a number, got {within!r}")
    if not isinstance(higher_is_better, bool):
        raise TypeError(f"higher_is_better must be True or False, got {higher_is_better!r}")


def _check(plan: Any, seeds: Any, first_seed: Any, jobs: Any, split: str) -> None:
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be a redense.Plan, got {plan!r}; redense.dsd(10, 5, 5) is one")
    if not any(phase.sparsity for phase in plan):
        raise ValueError("the plan holds nothing in any phase; give one a sparsity above 0")
    for name, value, least in (
        ("seeds", seeds, 2),
        ("first_seed", first_seed, 0),
        ("jobs", jobs, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if split not in ("test", "valid"):
        raise ValueError(f"split must be test or valid, got {split!r}")


def _check_growth(grows: bool, most: Any, within: Any) -> None:
    if grows:
        looks(most)
    if within is not None and not (grows and within > 0):
        raise ValueError(f"within is a width above 0 that goes with seeds='auto', got {within!r}")


def check_shard(shard: Any, seeds: int, *, grows: bool) -> None:
    """Raise unless a part of the seeds is one, and has one."""
    if shard is None:
        return
    numbers = tuple(shard) if isinstance(shard, (tuple, list)) else ()
    if len(numbers) != 2 or not all(type(one) is int for one in numbers):
        raise TypeError(f"shard must be two whole numbers, (2, 4) for 2 of 4, got {shard!r}")
    part, parts = numbers
    if not 1 <= part <= parts <= seeds:
        raise ValueError(
            f"shard must be one of at most {seeds} parts, the number of seeds, counted from 1; got "
            f"{part} of {parts}"
        )
    if grows:
        raise ValueError("seeds='auto' looks at all runs as it goes; it cannot be a part of them")


def with_controls(methods: Iterable[str] | Mapping[str, Plan]) -> dict[str, Plan | None]:
    """Methods by name, the baseline and the matched controls always among them; a plan of one's own
    comes beside the default ones.

    >>> list(with_controls(["dsd"]))
    ['dense', 'lower_lr', 'dsd']
    """
    if isinstance(methods, str):
        methods = methods.split(",")
    own = dict(methods) if isinstance(methods, Mapping) else {}
    names = list(DEFAULT if own else methods)
    matched = [METHODS[name].matched for name in names if name in METHODS]
    needed = [name for name in (BASELINE, CONTROL, *matched) if name not in names]
    return {**dict.fromkeys([*needed, *names]), **own}
