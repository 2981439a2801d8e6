"""A search's trials, in an Optuna journal that several processes may share and that outlives a
kill: what was drawn, what came of it, and which run is due next."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from redense.files.records import read_record
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.lock import BusyError, sole
from redense.search.space import BEST, SIDES, Chooser, Side
from redense.study.jobs import Job, run_config
from redense.study.methods import Method, shared_epochs
from redense.study.running import Outcome

try:
    import optuna
    from filelock import FileLock
    from optuna.pruners import SuccessiveHalvingPruner
    from optuna.samplers import TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as error:
    raise ImportError("a search needs optuna: pip install 'redense[study]'") from error

FIRST_SEED = 1000
"""The search trains with this seed and those behind it; a study's own are 0, 1, 2, ..., so that the
confirmation's were never looked at."""

PROMOTED = 4
"""Of the trials with one seed the best in this many get the other seeds; the rest are clearly
behind."""

_SHARED = "kept an epoch of the shared phase"

Draw = Callable[[Side, Chooser], Method]


@dataclass(frozen=True)
class Tried:
    """A finished trial: what was drawn, and its validation scores by seed."""

    side: Side
    number: int
    choices: Mapping[str, Any]
    method: Method
    scores: Mapping[int, float]
    error: str = ""
    in_full: bool = False
    """Whether it was trained with every seed of the search; only then may it be chosen."""
    kept_shared: bool = False
    """Whether its early stopping kept an epoch of the shared phase."""

    @property
    def score(self) -> float:
        """Its mean; of a trial that failed there is none."""
        return mean(self.scores.values()) if self.scores else math.nan


@dataclass(frozen=True)
class Runs:
    """The search's runs: their names, what each starts from, and their records.

    Args:
        folder: in which they lie.
        config: what all have in common.
        first: the method of the shared phase, which every other starts from.
    """

    folder: Path
    config: RunConfig
    first: Method

    def shared(self, seed: int) -> Job:
        """The shared phase itself."""
        return self._job("dense", self.first, seed)

    def job(self, side: Side, method: Method, seed: int) -> Job:
        """A trial's run with one seed; alike methods share their runs."""
        return self._job(f"{side}-{_digest(method)}", method, seed)

    def record(self, job: Job) -> dict[str, Any]:
        """What a finished run wrote."""
        return read_record(self.folder / job.name / "record.json")

    def score(self, job: Job) -> float:
        """The judged validation score of a finished run."""
        record = self.record(job)
        return float(record["valid"][record["metric"]["name"]])

    def seconds(self, job: Job) -> float:
        """That its own epochs took; 0 where its record does not say, or there is none."""
        file = self.folder / job.name / "record.json"
        history = read_record(file)["history"] if file.exists() else []
        own = [row["seconds"] for row in history]
        before = own[job.shared - 1] if 0 < job.shared < len(own) else 0.0
        return own[-1] - before if own else 0.0

    def lighten(self, job: Job) -> None:
        """Remove a finished trial's checkpoints but the last: nothing starts from them, and a
        search has hundreds of runs."""
        folder = RunFolder(self.folder / job.name)
        folder.keep_last(1)  # its scores on the test split are read when all is over
        for phase in folder.config.to_plan():
            folder.phase_file(phase.name).unlink(missing_ok=True)
            folder.best_of(phase.name).unlink(missing_ok=True)

    def _job(self, name: str, method: Method, seed: int) -> Job:
        shared = 0 if method == self.first else shared_epochs(method, self.first)
        parent = f"dense--{seed}" if shared else None
        keeps = replace(self.config, keep_best=method == self.first)  # a trial may select them
        config = run_config(keeps, name, method, seed)
        return Job(f"{name}--{seed}", config, parent, shared, len(method.plan) - shared)


@dataclass
class _Active:
    """A trial under way: its lock is held until it is told."""

    side: Side
    trial: Trial
    method: Method
    seeds: list[int]
    scores: dict[int, float] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)


class Trials:
    """Asks Optuna for trials of both sides in turn, and makes jobs of them, one seed after another.

    Args:
        folder: of the search; the journal lies in it.
        runs: names and reads the runs.
        draw: from what Optuna offers to a method.
        usual: choices of each side that are tried first.
        trials: of each side.
        seeds: of the search.
        higher_is_better: of the validation score.
        workers: jobs at a time.
        tell: called with a line for each finished trial.
    """

    def __init__(
        self,
        folder: Path,
        runs: Runs,
        draw: Draw,
        usual: Mapping[Side, Mapping[str, Any]],
        *,
        trials: int,
        seeds: Sequence[int],
        higher_is_better: bool,
        workers: int,
        tell: Callable[[str], None],
    ) -> None:
        self._folder, self._runs, self._draw = folder, runs, draw
        self._trials, self._seeds, self._workers, self._tell = trials, list(seeds), workers, tell
        self._higher = higher_is_better
        self._active: list[_Active] = []
        self._due: dict[str, list[_Active]] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = folder / "journal.log"
        with self._alone(), _told(journal):
            storage = JournalStorage(JournalFileBackend(str(journal)))
            self._studies = {side: self._open(side, storage) for side in SIDES}
            for side, study in self._studies.items():
                if not study.get_trials(deepcopy=False):
                    study.enqueue_trial(dict(usual[side]))

    def begin(self) -> list[Job]:
        """Jobs to start with, or to go on with after a kill; none once every trial is told. Waits
        while other processes train all that is left."""
        while not (jobs := self._fill()):
            if not self._left():
                return []
            time.sleep(1)
        return jobs

    def follow(self, outcome: Outcome) -> list[Job]:
        """What a finished job brings about: the next seeds of its trials, or other trials."""
        jobs = []
        for active in self._due.pop(outcome.job.name, []):
            jobs += self._take(active, outcome)
        return [*jobs, *self._fill()]

    def finished(self, side: Side) -> list[Tried]:
        """Every finished trial of a side, in order."""
        done = (TrialState.COMPLETE, TrialState.PRUNED)
        listed = self._studies[side].get_trials(deepcopy=False, states=done)
        return [self._tried(side, trial) for trial in listed]

    def importance(self, side: Side) -> dict[str, float]:
        """How much each choice mattered, in shares of 1 (PED-ANOVA); empty with too few trials.

        Trials that were given up count with the seeds that they had.
        """
        rated = optuna.create_study(direction="maximize" if self._higher else "minimize")
        for trial in self._studies[side].get_trials(deepcopy=False):
            values = list(trial.intermediate_values.values())
            if trial.state.is_finished() and values:
                rated.add_trial(
                    optuna.trial.create_trial(
                        params=trial.params, distributions=trial.distributions, value=values[-1]
                    )
                )
        if len(rated.trials) < 10:
            return {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Target and region quantiles")  # alike scores
            shares = optuna.importance.get_param_importances(rated)
        return {name: float(share) for name, share in shares.items()}

    def _open(self, side: Side, storage: JournalStorage) -> optuna.Study:
        name = f"{side}s"
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if self._higher else "minimize",
            load_if_exists=True,
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=PROMOTED),
        )
        # a search that goes on must not draw again what it drew at its start
        study.sampler = TPESampler(seed=2 * len(study.get_trials(deepcopy=False)) + len(name))
        return study

    def _alone(self) -> FileLock:
        """While a process asks, no other does: both sides get their number and no more."""
        return FileLock(self._folder / ".asking", thread_local=False)

    def _fill(self) -> list[Job]:
        """Jobs of new trials, as many as there are free workers."""
        jobs: list[Job] = []
        while len(self._due) < self._workers and (active := self._ask()) is not None:
            jobs += self._next(active)
        return jobs

    def _left(self) -> bool:
        """Whether any process still has a trial under way, or one could be asked for."""
        for study in self._studies.values():
            trials = study.get_trials(deepcopy=False)
            if len(trials) < self._trials or not all(one.state.is_finished() for one in trials):
                return True
        return False

    def _ask(self) -> _Active | None:
        """A trial that nobody works on, one that a killed process left or a new one of the side
        that has fewer."""
        with self._alone():
            listed = {side: self._studies[side].get_trials(deepcopy=False) for side in SIDES}
            for side, trials in listed.items():
                for frozen in trials:
                    if frozen.state == TrialState.RUNNING and (
                        active := self._claim(side, frozen.number, frozen._trial_id)
                    ):
                        return active
            asked = {side: _asked(trials) for side, trials in listed.items()}
            side = min(SIDES, key=lambda one: asked[one])
            if asked[side] >= self._trials:
                return None
            self._vary(side, listed[side])
            trial = self._studies[side].ask()
            return self._claim(side, trial.number, trial._trial_id)

    def _vary(self, side: Side, trials: Sequence[FrozenTrial]) -> None:
        """Early stopping that keeps an epoch of the shared phase gives the same network whatever
        else is drawn, and would draw all later trials to itself: once that is seen, they take turns
        among the other ways to score."""
        if not any(trial.user_attrs.get(_SHARED) for trial in trials):
            return
        if any(trial.state == TrialState.WAITING for trial in trials):
            return
        scored: Any = trials[0].distributions["scored"]
        ways = [way for way in scored.choices if way != BEST]
        if ways:
            taken = Counter(trial.params.get("scored") for trial in trials)
            way = min(ways, key=lambda one: taken[one])
            self._studies[side].enqueue_trial({"scored": way})

    def _claim(self, side: Side, number: int, trial_id: int) -> _Active | None:
        """Work on a trial, unless this or another process does."""
        if any(one.side == side and one.trial.number == number for one in self._active):
            return None
        held = ExitStack()
        claim = self._folder / "claims" / f"{side}-{number}"
        held.callback(lambda: claim.rmdir())
        try:
            held.enter_context(sole(claim))
        except BusyError:
            held.pop_all()
            return None
        trial = Trial(self._studies[side], trial_id)
        active = _Active(side, trial, self._draw(side, trial), list(self._seeds), held=held)
        self._active.append(active)
        return active

    def _next(self, active: _Active) -> list[Job]:
        """The job of a trial's next seed, unless another trial of the same method waits for it."""
        job = self._runs.job(active.side, active.method, active.seeds[0])
        waiting = self._due.setdefault(job.name, [])
        waiting.append(active)
        return [job] if len(waiting) == 1 else []

    def _take(self, active: _Active, outcome: Outcome) -> list[Job]:
        seed = active.seeds.pop(0)
        if outcome.error:
            active.trial.set_user_attr("error", outcome.error)
            self._end(active, given_up=True)
            return []
        active.scores[seed] = self._runs.score(outcome.job)
        self._runs.lighten(outcome.job)
        known = active.trial._cached_frozen_trial.intermediate_values
        if len(active.scores) not in known:
            active.trial.set_user_attr("scores", {str(s): v for s, v in active.scores.items()})
            active.trial.report(mean(active.scores.values()), step=len(active.scores))
        if not active.seeds:
            self._end(active, given_up=False)
        elif active.trial.should_prune():
            self._end(active, given_up=True)
        else:
            return self._next(active)
        return []

    def _end(self, active: _Active, *, given_up: bool) -> None:
        """Tell Optuna; a failed trial counts as given up, behind all that were not."""
        study = self._studies[active.side]
        if self._kept_shared(active):
            active.trial.set_user_attr(_SHARED, True)
        if given_up:
            study.tell(active.trial, state=TrialState.PRUNED)
        else:
            study.tell(active.trial, mean(active.scores.values()))
        self._active.remove(active)
        active.held.close()
        frozen = study.get_trials(deepcopy=False)[active.trial.number]
        self._tell(self._line(self._tried(active.side, frozen)))

    def _kept_shared(self, active: _Active) -> bool:
        """Whether early stopping kept an epoch of the shared phase with every seed."""
        if active.method.select != "best" or not active.scores:
            return False
        records = (
            self._runs.record(self._runs.job(active.side, active.method, seed))
            for seed in active.scores
        )
        shared = len(self._runs.first.plan)
        return all((record["selected_epoch"] or math.inf) <= shared for record in records)

    def _tried(self, side: Side, trial: FrozenTrial) -> Tried:
        scores = {int(seed): score for seed, score in trial.user_attrs.get("scores", {}).items()}
        return Tried(
            side,
            trial.number,
            dict(trial.params),
            self._draw(side, trial),
            scores,
            trial.user_attrs.get("error", ""),
            trial.state == TrialState.COMPLETE,
            bool(trial.user_attrs.get(_SHARED)),
        )

    def _line(self, one: Tried) -> str:
        if one.error:
            said = f"failed, {one.error}"
        else:
            seeds = f"{len(one.scores)} seed{'s' * (len(one.scores) != 1)}"
            said = f"{one.score:.4g} over {seeds}{'' if one.in_full else ', given up'}"
            said += ", an epoch of the shared phase" if one.kept_shared else ""
        return f"{one.side} {one.number + 1} of {self._trials}: {said}"


def _asked(trials: Sequence[FrozenTrial]) -> int:
    """Trials that were drawn; one that waits in the queue was not."""
    return sum(trial.state != TrialState.WAITING for trial in trials)


def _digest(method: Method) -> str:
    """Eight letters by which alike methods are known."""
    content = [
        method.plan.to_records(),
        method.average,
        method.select,
        method.include,
        method.decays,
        *([method.shrink] if method.shrink != 1 else []),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


@contextmanager
def _told(journal: Path) -> Iterator[None]:
    """Whatever an edited or cut journal surfaces as, its file is named."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{journal} is damaged ({type(error).__name__}: {error}); search in another --out"
        ) from error
