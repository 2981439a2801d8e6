"""The search itself: gate, trials, the frozen contrast, and its confirmation on fresh seeds.

found = redense.search(train, dense=10, epochs=20, trials=40, confirm=10, out="runs/search")
print(found)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from optuna.trial import FixedTrial

from redense.files.typed import TABLE, read_json
from redense.plan import Phase, Plan, toml
from redense.proof import Question, Study, check_function
from redense.runs.checkpoints import make_folder, write_text
from redense.runs.configuration import RunConfig
from redense.runs.loop import own_numbers
from redense.runs.record import environment
from redense.runs.run import Run
from redense.search.budget import Budget, Judged, budget
from redense.search.gate import SEEDS as GATE_SEEDS
from redense.search.gate import check
from redense.search.opened import judged_scores
from redense.search.pictures import draw_budget, draw_choices
from redense.search.space import BEST, SIDES, Layers, Side, Space, in_words
from redense.search.trials import FIRST_SEED, Runs, Trials, Tried
from redense.study.compare import Contrast, contrasts
from redense.study.convergence import measure
from redense.study.jobs import Job
from redense.study.methods import MATCHED, TUNED, Method, matched_to
from redense.study.running import Outcome, run_study
from redense.study.sources import CHANGED, source_sha256
from redense.study.summary import Summary
from redense.study.work import FunctionWork

CONFIDENCE = 0.95
SHOWN = 10
"""Rows of the table of trials."""


@dataclass(frozen=True)
class Cost:
    """Epochs: what the search trained, and what all trials in full on all seeds would have; and the
    seconds that the trained ones took, as far as the runs know them."""

    trained: int
    in_full: int
    seconds: float = 0.0

    @property
    def spared(self) -> float:
        """Share of the epochs that branching and giving up spared."""
        return 1 - self.trained / self.in_full


@dataclass(frozen=True)
class Found:
    """The best plan, the best control, and what came of them and of the plan's matched control on
    fresh seeds."""

    folder: Path
    best: Tried
    best_control: Tried
    tried: tuple[Tried, ...]
    study: Study
    importance: Mapping[Side, Mapping[str, float]]
    cost: Cost
    metric: str
    higher_is_better: bool
    budget: Budget | None
    """Score against tuning budget; None where a customary setting fails."""
    left_out: str = ""
    """What controls could not try, in words."""

    @property
    def plan(self) -> Plan:
        """Of the plans the one with the best validation score."""
        return self.best.method.plan

    @property
    def control(self) -> Plan:
        """Of the controls the one with the best validation score."""
        return self.best_control.method.plan

    @property
    def gain(self) -> float:
        """What the search promised: the plan's validation score over the control's, positive where
        the plan is better. Both were chosen for it, so it flatters (the winner's curse)."""
        difference = self.best.score - self.best_control.score
        return difference if self.higher_is_better else -difference

    @property
    def verdict(self) -> str:
        """Whether to use the plan, in words; what is missing is said."""
        try:
            summary = self.study.summary
        except ValueError:
            return self.study.verdict
        found = summary.verdicts["plan"]
        alone = self._beside_matched(summary)
        said = [self._advice(summary, alone), found.sentence[0].upper() + found.sentence[1:]]
        if alone is not None:
            low, high = alone.difference.interval
            said.append(
                "Beside its own matched control, the same phases and rates with nothing held, the "
                f"plan gains {alone.difference.mean:+.3g}{_unit(summary)} (95 % interval {low:.3g} "
                f"to {high:.3g}): {_ZEROS[alone.outcome]}."
            )
        contrast = found.contrast.difference
        luck = ": scores that were chosen for being the best are so in part by luck"
        said.append(
            f"The search's validation scores promised {self.gain:+.3g}{_unit(summary)} over the "
            f"control, confirmed are {contrast.mean:+.3g}{_unit(summary)}"
            f"{luck if contrast.mean < self.gain else ''}."
        )
        return "\n\n".join([*said, *(f"Missing: {one.why}." for one in self.study.failed)])

    @staticmethod
    def _advice(summary: Summary, alone: Contrast | None) -> str:
        """What to train by: the plan only where nothing speaks for its rates alone."""
        outcome = summary.verdicts["plan"].outcome
        if outcome != "helps" or alone is None or alone.outcome in ("helps", "too few seeds"):
            return _ADVICE[outcome]
        rates = contrasts(
            {name: summary.scores[name] for name in (MATCHED, TUNED)},
            TUNED,
            higher_is_better=summary.higher_is_better,
        )[MATCHED]
        return f"{_AHEAD} {_RATES if rates.outcome == 'helps' else _UNSETTLED}"

    @staticmethod
    def _beside_matched(summary: Summary) -> Contrast | None:
        """The plan against its own phases and rates with nothing held; None where that failed."""
        sides = {name: summary.scores.get(name, {}) for name in ("plan", MATCHED)}
        if len(sides["plan"].keys() & sides[MATCHED].keys()) < 2:
            return None
        return contrasts(sides, MATCHED, higher_is_better=summary.higher_is_better)["plan"]

    def __str__(self) -> str:
        return "\n\n".join(
            [
                self._table("plan"),
                self._table("control"),
                *self._mattered(),
                self._spent(),
                *([self.budget.sentence] if self.budget else []),
                *([self.left_out] if self.left_out else []),
                self.verdict,
                f"The plan is {self.folder / 'plan.toml'}, its phases and rates with nothing held "
                f"{MATCHED}.toml beside it, the control {TUNED}.toml.",
            ]
        )

    def as_data(self) -> dict[str, Any]:
        """What the page shows of the search itself, for found.json."""
        tried = [
            {
                "side": one.side,
                "number": one.number,
                "words": in_words(one.choices),
                "choices": dict(one.choices),
                "score": one.score if one.scores else None,
                "seeds": len(one.scores),
                "in_full": one.in_full,
                "error": one.error,
            }
            for side in SIDES
            for one in self.ranked(side)
        ]
        return {
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "verdict": self.verdict.split("\n\n"),
            "beside_matched": self._zeros,
            "said": [
                *self._mattered(),
                self._spent(),
                *([self.budget.sentence] if self.budget else []),
                *([self.left_out] if self.left_out else []),
            ],
            "budget": asdict(self.budget) if self.budget else None,
            "tried": tried,
        }

    @property
    def _zeros(self) -> dict[str, Any] | None:
        """The plan minus its matched control, as numbers."""
        try:
            alone = self._beside_matched(self.study.summary)
        except ValueError:
            return None
        if alone is None:
            return None
        found = alone.difference
        return {
            "mean": found.mean,
            "interval": list(found.interval),
            "p": found.p_value,
            "seeds": found.n,
            "outcome": alone.outcome,
        }

    def ranked(self, side: Side) -> list[Tried]:
        """Trials of a side, the best first: those with every seed, then those that were given up,
        then those that failed."""
        sign = -1 if self.higher_is_better else 1
        mine = [one for one in self.tried if one.side == side]
        return sorted(
            mine,
            key=lambda one: (
                not one.in_full,
                bool(one.error),
                sign * one.score if one.scores else 0.0,
            ),
        )

    def _table(self, side: Side) -> str:
        ranked = self.ranked(side)
        lines = [f"the best of {len(ranked)} {side}s on validation, and over how many seeds"]
        shown = [one for one in ranked if one.scores][:SHOWN]
        lines += [
            f"{one.score:10.5g} {len(one.scores):3}  {in_words(one.choices)}" for one in shown
        ]
        return "\n".join(lines)

    def _mattered(self) -> list[str]:
        said = []
        for side in SIDES:
            if shares := self.importance[side]:
                largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
                listed = ", ".join(
                    f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in largest
                )
                said.append(f"What mattered among {side}s: {listed}.")
        return said

    def _spent(self) -> str:
        if self.cost.spared <= 0:
            return (
                f"{self.cost.trained:,} epochs were trained, those of the first check among them; "
                f"all trials in full on every seed take {self.cost.in_full:,}: a search this small "
                "spares nothing."
            )
        return (
            f"{self.cost.trained:,} epochs were trained; in full on every seed all trials would "
            f"have taken {self.cost.in_full:,}: branching and giving up what was clearly behind "
            f"spared {100 * self.cost.spared:.0f} %.{self._took()}"
        )

    def _took(self) -> str:
        minutes = self.cost.seconds / 60
        return f" The epochs took {minutes:.0f} minutes of one core." if minutes >= 1 else ""


def _unit(summary: Summary) -> str:
    return f" {summary.unit}" if summary.unit else ""


_ZEROS = {
    "helps": "its zeros help over its own rates",
    "hurts": "its zeros hurt over its own rates",
    "no measurable difference": "its zeros make no measurable difference",
    "unclear": "whether its zeros help over its own rates, these runs do not settle",
    "too few seeds": "too few seeds to say what its zeros do",
}
_AHEAD = (
    "The plan is ahead of the best tuned control, but it is not shown that this is by what it "
    "holds at zero."
)
_RATES = "Its phases and rates with nothing held are ahead too: train by those, the simpler ones."
_UNSETTLED = "Whether its phases and rates alone are ahead too, these runs do not settle."
_ADVICE = {
    "helps": "Use the plan: beside the best tuned control it helps.",
    "hurts": "Do not use the plan: the best tuned control is better.",
    "no measurable difference": "Use the control, the simpler of the two: beside it the plan makes "
    "no measurable difference.",
    "unclear": "Use the control so far: whether the plan is better, these runs do not settle.",
    "too few seeds": "These runs cannot say whether to use the plan: confirm on more seeds.",
}


def search(
    train: Callable[[Run], Any],
    *,
    dense: int,
    epochs: int,
    trials: int = 40,
    seeds: int = 3,
    confirm: int = 10,
    space: Space | None = None,
    higher_is_better: bool = True,
    decay: str = "cosine",
    out: str | Path = "runs/search",
    jobs: int = 1,
    backend: str = "loky",
    anyway: bool = False,
) -> Found:
    """Look for the plan that does best on validation, as hard for the best control, and let the two
    meet on fresh seeds and the test split, the plan's own matched control beside them.

    The same call goes on with an unfinished search. A trial that raises or diverges is a bad one.

    Args:
        train: as for `redense.prove`; its first validation score is what the search looks at.
        dense: epochs of the first phase, which all trials share; 0 from a trained network.
        decay: the rate's course in that phase, as for `redense.Phase`; where it stays high to the
            end, so does what every trial starts from.
        epochs: the budget behind it.
        trials: of plans, and as many of controls.
        seeds: that a trial may get; what is clearly behind after the first gets no more.
        confirm: fresh seeds of the confirmation; 6 at least for a verdict.
        space: where to look; default `Space()`.
        out: the search's folder.
        jobs, backend: as for `redense.prove`.
        anyway: search even where further training alone still gains.

    Raises:
        NotConvergedError: it does, and by more than the spread between seeds.
        TypeError, ValueError: one of these is not what it should be, or `train` fails.

    >>> def score(run):
    ...     return float(sum(phase.sparsity for phase in run.plan))
    >>> found = redense.search(score, dense=2, epochs=6, trials=3, confirm=2)
    """
    check_function(train)
    function = f"{train.__module__}:{getattr(train, '__qualname__', type(train).__name__)}"
    asked = Search(
        folder=Path(out).expanduser(),
        train=train,
        config=RunConfig(function=function, higher_is_better=higher_is_better),
        dense=dense,
        epochs=epochs,
        trials=trials,
        seeds=seeds,
        confirm=confirm,
        space=space or Space(),
        decay=decay,
        source_sha256=source_sha256(train),
    )
    return asked.answer(jobs=jobs, backend=backend, anyway=anyway)


@dataclass(frozen=True)
class Search:
    """What a search asks: of which training, in which space, at which budget.

    Args:
        folder: the search's.
        train: called with a `Run`.
        config: what all runs have in common.
        dense, epochs, trials, seeds, confirm, space, decay: as for `search`.
        source_sha256: of the function's source; a search does not go on with another one.
        options: the recipe's options with their defaults.
    """

    folder: Path
    train: Callable[[Run], Any]
    config: RunConfig
    dense: int
    epochs: int
    trials: int = 40
    seeds: int = 3
    confirm: int = 10
    space: Space = field(default_factory=Space)
    decay: str = "cosine"
    source_sha256: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("dense", 0), ("epochs", 2), ("trials", 1), ("seeds", 1)):
            _check_whole(name, getattr(self, name), least)
        _check_whole("confirm", self.confirm, 2)
        if self.confirm > FIRST_SEED:
            raise ValueError(f"confirm must be at most {FIRST_SEED} seeds, got {self.confirm}")
        if not isinstance(self.space, Space):
            raise TypeError(f"space must be a redense.Space, got {self.space!r}")
        Phase("dense", max(self.dense, 1), decay=self.decay)  # says what a decay may be

    @property
    def in_full(self) -> int:
        """Epochs of all trials, each trained from the start with every seed."""
        return 2 * self.trials * self.seeds * (self.dense + self.epochs)

    def answer(self, *, jobs: int = 1, backend: str = "loky", anyway: bool = False) -> Found:
        """Search what is not searched yet, confirm, and judge."""
        _check_whole("jobs", jobs, 1)
        self._open()
        print(self.announce(), file=sys.stderr)
        data = {"name": self.config.trained, "sizes": {}, "sha256": self.source_sha256}
        work = FunctionWork.of(self.train, reads_test=False, data=data)
        carry_out = partial(run_study, self.folder / "trials", workers=jobs, backend=backend)
        start = self._start(partial(carry_out, work=work), anyway)
        trials = self._trials(start, jobs)
        if start.left_out:
            print(start.left_out, file=sys.stderr)
        while due := trials.begin():
            carry_out(due, work, then=trials.follow, progress=_Quiet())
        tried = {side: trials.finished(side) for side in SIDES}
        best = {side: _best(side, tried[side], start.higher_is_better) for side in SIDES}
        self._freeze(best, start)
        self._write_plans(best)
        study = self._confirm(best, jobs, backend)
        found = Found(
            folder=self.folder,
            best=best["plan"],
            best_control=best["control"],
            tried=(*tried["plan"], *tried["control"]),
            study=study,
            importance={side: trials.importance(side) for side in SIDES},
            cost=self._cost(tried, start),
            metric=start.metric,
            higher_is_better=start.higher_is_better,
            budget=self._budget(tried, start, work, jobs, backend),
            left_out=start.left_out,
        )
        self._write(found)
        return found

    def announce(self) -> str:
        """What may be spent, before it is."""
        return (
            f"{self.folder}: {self.trials} plans and {self.trials} controls, {self.dense} + "
            f"{self.epochs} epochs, on up to {self.seeds} seeds; {self.in_full:,} epochs at most, "
            "of which branching and giving up spare most; then the best two and the plan's "
            f"matched control on {self.confirm} seeds, "
            f"{self.confirm * (self.dense + 3 * self.epochs):,} epochs"
        )

    def _open(self) -> None:
        settings = {
            **asdict(self.config),
            "dense": self.dense,
            "epochs": self.epochs,
            "trials": self.trials,
            "seeds": self.seeds,
            "confirm": self.confirm,
            "space": asdict(self.space),
            "decay": self.decay,
            "source_sha256": self.source_sha256,
        }
        settings = json.loads(json.dumps(settings))
        file = self.folder / "search.json"
        if file.exists():
            stored = read_json(file, TABLE)
            stored.setdefault("decay", "constant")  # which it was before there was a choice
            lacking = json.loads(json.dumps({"space": asdict(Space()), "options": self.options}))
            for name, value in settings.items():
                theirs = stored.get(name, value)
                if name in lacking:  # an older version did not know all of them
                    theirs = {**lacking[name], **theirs}
                if name != "command" and theirs != value:
                    what = f"{name} was {stored[name]!r}, now {value!r} (see {file})"
                    raise ValueError(
                        f"{self.folder} holds a search with other settings: "
                        f"{CHANGED if name == 'source_sha256' else what}; choose another --out"
                    )
            return
        make_folder(self.folder, "a search")
        write_text(file, json.dumps(settings, indent=2) + "\n")

    @property
    def _first(self) -> Method:
        """The shared phase; where a trained network is the start, that network as it came."""
        phases = (Phase("dense", self.dense, decay=self.decay),) if self.dense else ()
        return Method(Plan(phases))

    @property
    def _runs(self) -> Runs:
        return Runs(self.folder / "trials", self.config, self._first)

    def _trials(self, start: _Start, workers: int = 1) -> Trials:
        return Trials(
            self.folder,
            self._runs,
            partial(self._draw, start.space, start.layers),
            {side: start.space.customary(side, start.layers, self.decay) for side in SIDES},
            trials=self.trials,
            seeds=range(FIRST_SEED, FIRST_SEED + self.seeds),
            higher_is_better=start.higher_is_better,
            workers=workers,
            tell=lambda line: print(line, file=sys.stderr),
        )

    def _draw(self, space: Space, layers: Mapping[str, Any], side: Side, choose: Any) -> Method:
        return space.draw(side, choose, self._first.plan, self.epochs, layers)

    def _start(self, carry_out: Callable[..., list[Outcome]], anyway: bool) -> _Start:
        """Train the shared phase with every seed and the customary control with two: the gate, and
        what is to be known of the training before any trial is drawn."""
        runs = self._runs
        usual = FixedTrial(self.space.customary("control", {}, self.decay))
        customary = self._draw(self.space, {}, "control", usual)
        count = max(self.seeds, GATE_SEEDS)
        firsts = {seed: runs.shared(seed) for seed in range(FIRST_SEED, FIRST_SEED + count)}
        longer = {
            seed: runs.job("control", customary, seed)
            for seed in range(FIRST_SEED, FIRST_SEED + GATE_SEEDS)
        }
        outcomes = carry_out(jobs=[*firsts.values(), *longer.values()])
        if failed := [one for one in outcomes if one.error]:
            folder = self.folder / "trials" / failed[0].job.name
            raise ValueError(
                f"training as before fails, so there is nothing to search: {failed[0].error} "
                f"({folder / 'error.txt'})"
            )
        record = runs.record(longer[FIRST_SEED])
        if not record["valid"]:
            raise ValueError("train(run) returned no validation score; a search chooses on it")
        higher = bool(record["metric"]["higher_is_better"])
        space, left_out = _what_it_can_try(self.space, record)
        start = _Start(
            space=space,
            left_out=left_out,
            layers=self.space.resolve(record["prunable"]) if record["branched"] else {},
            higher_is_better=higher,
            metric=record["metric"]["name"],
            branched=record["branched"],
            jobs=(*firsts.values(), *longer.values()),
        )
        if self.dense and not anyway:
            gate = measure(
                {seed: runs.score(firsts[seed]) for seed in longer},
                {seed: runs.score(job) for seed, job in longer.items()},
                higher_is_better=higher,
            )
            if unsettled := check(gate, self.dense, self.epochs):
                print(unsettled, file=sys.stderr)
        return start

    def _freeze(self, best: Mapping[Side, Tried], start: _Start) -> None:
        """Write what is about to be confirmed before the test split is opened."""
        file = self.folder / "frozen.json"
        contrast: dict[str, Any] = {
            **{side: _as_data(best[side].method) for side in SIDES},
            MATCHED: _as_data(matched_to(best["plan"].method)),
            "metric": start.metric,
            "n": self.confirm,
            "seeds": list(range(self.confirm)),
            "alpha": round(1 - CONFIDENCE, 6),
        }
        contrast = json.loads(json.dumps(contrast))
        if file.exists():
            stored = read_json(file, TABLE)
            plain = json.loads(json.dumps(_as_data(Method(Plan(())))))
            for side in SIDES:  # an older version did not know all of a method
                stored[side] = {**plain, **stored.get(side, {})}
            stored.setdefault(MATCHED, contrast[MATCHED])  # nor this one, which follows from them
            if any(stored.get(name) != value for name, value in contrast.items()):
                raise ValueError(
                    f"{file} froze another contrast, whose test scores may be known: start a "
                    "search of its own in another --out"
                )
            return
        validation = {side: best[side].score for side in SIDES}
        text = json.dumps({**contrast, "validation": validation, **environment()}, indent=2)
        write_text(file, text + "\n")

    def _write_plans(self, best: Mapping[Side, Tried]) -> None:
        """What was frozen, as files for ``redense train --plan``."""
        methods: dict[str, Method] = {side: best[side].method for side in SIDES}
        methods[MATCHED] = matched_to(methods["plan"])
        for name, method in methods.items():
            write_text(self.folder / f"{name}.toml", as_toml(method))

    def _confirm(self, best: Mapping[Side, Tried], jobs: int, backend: str) -> Study:
        """The two that were chosen, and the plan's phases and rates with nothing held: a control
        that luck chose may be beaten by those alone."""
        question = Question(
            folder=self.folder / "confirm",
            train=self.train,
            methods={
                "plan": best["plan"].method,
                MATCHED: matched_to(best["plan"].method),
                TUNED: best["control"].method,
            },
            seeds=self.confirm,
            config=self.config,
            source_sha256=self.source_sha256,
            options=self.options,
            control=TUNED,
            baseline=TUNED,
        )
        return question.answer(jobs=jobs, backend=backend)

    def _budget(
        self,
        tried: Mapping[Side, Sequence[Tried]],
        start: _Start,
        work: FunctionWork,
        jobs: int,
        backend: str,
    ) -> Budget | None:
        """What smaller searches would have found, on the test split where the trials' networks can
        be scored again without training."""
        usual = {side: next(one for one in tried[side] if one.number == 0) for side in SIDES}
        if not all(one.scores for one in usual.values()):
            return None
        runs = self._runs
        names = {
            (side, one.number): [runs.job(side, one.method, seed).name for seed in one.scores]
            for side in SIDES
            for one in tried[side]
        }
        test: dict[str, float] = {}
        if start.branched:
            folders = {name: runs.folder / name for listed in names.values() for name in listed}
            opened = replace(work, reads_test=True)
            test = judged_scores(folders.values(), opened, workers=jobs, backend=backend)
        split = "test" if test else "validation"

        def judged(one: Tried) -> Judged:
            scores = [test[name] for name in names[one.side, one.number]] if test else None
            return Judged(one.score, mean(scores) if scores else one.score)

        scored = {side: [judged(one) for one in tried[side] if one.scores] for side in SIDES}
        return budget(
            {side: rest[1:] for side, rest in scored.items()},
            {side: rest[0] for side, rest in scored.items()},
            metric=f"{split} {start.metric}",
            higher_is_better=start.higher_is_better,
        )

    def _write(self, found: Found) -> None:
        """Words, numbers and pictures into the folder."""
        write_text(self.folder / "summary.txt", f"{found}\n")
        write_text(self.folder / "found.json", json.dumps(found.as_data(), indent=1) + "\n")
        if found.budget is not None:
            write_text(
                self.folder / "budget.json", json.dumps(asdict(found.budget), indent=2) + "\n"
            )
            draw_budget(self.folder / "budget.png", found.budget)
        draw_choices(self.folder / "choices.png", found.ranked("plan"), found.ranked("control"))

    def _cost(self, tried: Mapping[Side, Sequence[Tried]], start: _Start) -> Cost:
        """What was trained; alike trials share their runs."""
        jobs = {job.name: job for job in start.jobs}
        for side in SIDES:
            for one in tried[side]:
                begun = len(one.scores) + bool(one.error)
                for seed in range(FIRST_SEED, FIRST_SEED + begun):
                    job = self._runs.job(side, one.method, seed)
                    jobs[job.name] = job
        trained = sum(job.epochs + (0 if start.branched else job.shared) for job in jobs.values())
        return Cost(trained, self.in_full, sum(map(self._runs.seconds, jobs.values())))


@dataclass(frozen=True)
class _Start:
    """What the first runs say of a training."""

    space: Space
    left_out: str
    """What of the space this training can't do, in words; empty where it can do all."""
    layers: Layers
    higher_is_better: bool
    metric: str
    branched: bool
    jobs: tuple[Job, ...]


def _what_it_can_try(space: Space, record: Mapping[str, Any]) -> tuple[Space, str]:
    """The space without early stopping where a function logs no score to stop by, and what to say
    of it."""
    ways = tuple(way for way in space.scored if way != BEST)
    if record["recipe"] or not record["branched"] or not ways or ways == space.scored:
        return space, ""
    judged = record["metric"]["name"]
    logged = own_numbers(record["history"][-1])
    if next(iter(logged), None) == judged or (judged == "score" and len(logged) == 1):
        return space, ""
    said = (
        "Early stopping is not among the controls: the function logs no score to stop by in every "
        f"epoch, run.log({judged}=...) first."
    )
    return replace(space, scored=ways), said


class _Quiet:
    """Trials are told one by one."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, outcome: Outcome) -> None:
        pass


def as_toml(method: Method) -> str:
    """A method as a plan file for ``redense train --plan``.

    >>> as_toml(Method(Plan((Phase("dense", 3),)))).splitlines()[:3]
    ['[[phases]]', 'name = "dense"', 'length = 3']
    """
    head: dict[str, Any] = {}
    if method.include:
        head["include"] = list(method.include)
    if method.weight_decay:
        head["weight_decay"] = list(method.weight_decay)
    if method.average:
        head["average"] = method.average
    if method.select != "last":
        head["select"] = method.select
    if method.shrink != 1:
        head["shrink"] = method.shrink
    lines = [f"{name} = {toml(value)}" for name, value in head.items()]
    return "\n".join([*lines, method.plan.to_toml()]) + "\n"


def _as_data(method: Method) -> dict[str, Any]:
    return {**asdict(method), "plan": method.plan.to_records()}


def _best(side: Side, tried: Sequence[Tried], higher_is_better: bool) -> Tried:
    whole = [one for one in tried if one.in_full]
    if not whole:
        errors = [one.error for one in tried if one.error]
        raise ValueError(
            f"no {side} of {len(tried)} was trained on every seed"
            f"{f'; the first failed with {errors[0]}' if errors else ''}"
        )
    return (max if higher_is_better else min)(whole, key=lambda one: one.score)


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
