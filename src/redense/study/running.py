"""Carry out a study's jobs: each one as soon as its parent is done, several at a time, each run one
folder with one record."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from redense.runs.checkpoints import write_text
from redense.runs.folder import RunFolder
from redense.runs.lock import BusyError, sole
from redense.runs.outcome import MethodError
from redense.study.jobs import Job, branch, can_branch
from redense.study.workers import open_workers

Work = Callable[[RunFolder], None]
"""Trains the run of a folder to its record."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Args:
        error: why it failed; None if it did not.
        busy: another process trains it.
        skipped: it was not even begun.
        of: the job whose error it is, where that is another one's.
        method_fails: its method will fail with every seed.
    """

    job: Job
    error: str | None
    busy: bool = False
    skipped: bool = False
    of: str | None = None
    method_fails: bool = False


class Progress(Protocol):
    """What is told of every finished job."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, outcome: Outcome) -> None:
        """Count a run as finished."""


def run_study(
    folder: Path,
    jobs: Sequence[Job],
    work: Work,
    *,
    workers: int = 1,
    backend: str = "loky",
    then: Callable[[Outcome], Sequence[Job]] = lambda outcome: (),
    progress: Progress | None = None,
    gives_up: bool = False,
) -> list[Outcome]:
    """Do every job that has no record yet; one that fails, or whose worker is killed, does not sink
    the others.

    When a worker is killed, the runs that were under way go on from their checkpoints one at a
    time, so that the one that cannot be trained (memory, say) is known and costs itself alone.

    Args:
        work: trains one run; it travels to the workers by pickle.
        workers: processes at a time, one thread each.
        backend: see `redense.study.workers.open_workers`.
        then: which jobs a finished one brings about; a search asks for the next trial here.
        progress: what is told of finished jobs instead of a bar over ``jobs``.
        gives_up: stop where nothing was ever finished and the first few runs, of several methods,
            fail for one and the same reason: the others would too.
    """
    root = str(folder.absolute())  # a worker may stand elsewhere
    gives_up = gives_up and not any((folder / j.name / "record.json").exists() for j in jobs)
    outcomes: list[Outcome] = []
    waiting = sorted(jobs, key=lambda job: -job.epochs)
    suspects: list[Job] = []
    under_way: dict[Future[Outcome], Job] = {}
    bar = progress or _Progress(folder, jobs, workers)
    with open_workers(backend, workers) as pool, bar as told:

        def finish(outcome: Outcome) -> None:
            outcomes.append(outcome)
            told.show(outcome)
            waiting.extend(then(outcome))
            if outcome.method_fails:
                for job in [one for one in waiting if _is_of(one, outcome)]:
                    waiting.remove(job)
                    finish(Outcome(job, outcome.error, skipped=True, of=outcome.job.name))
            elif gives_up and not outcome.skipped and (cause := _fail_alike(outcomes)):
                while waiting:
                    said = "not run: all before it failed alike"
                    finish(Outcome(waiting.pop(), said, skipped=True, of=cause))

        def take(job: Job, future: Future[Outcome], *, alone: bool = False) -> bool:
            """Sort a finished job where it belongs; whether it got anywhere."""
            lost = future.exception()
            if lost is not None and not alone:
                suspects.append(job)
                return True
            outcome = future.result() if lost is None else _killed(folder, job, lost)
            if outcome.busy:
                waiting.append(job)
                return False
            finish(outcome)
            return True

        while waiting or under_way or suspects:
            if suspects and not under_way:
                pool.renew()
                job = suspects.pop()
                take(job, pool.submit(_run, root, job, work), alone=True)
                continue
            if not suspects:
                while orphans := _take_orphans(folder, waiting, outcomes):
                    for orphan in orphans:
                        finish(orphan)
                unfinished = {job.name for job in (*waiting, *under_way.values())}
                ready = [job for job in waiting if job.parent not in unfinished]
                for job in ready[: workers - len(under_way)]:
                    waiting.remove(job)
                    under_way[pool.submit(_run, root, job, work)] = job
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            moved = [take(under_way.pop(future), future) for future in finished]
            if under_way or not moved or any(moved):
                continue
            time.sleep(1)  # another process trains all that is left
    return outcomes


_ENOUGH = 3


def _fail_alike(outcomes: Sequence[Outcome]) -> str | None:
    """The first of a study's runs, if all that were tried raised one and the same error; that
    training diverges, or its process is killed, is no such thing."""
    tried = [outcome for outcome in outcomes if not outcome.skipped]
    methods = {outcome.job.config.method for outcome in tried}
    error = tried[0].error or ""
    if len(tried) < _ENOUGH or len(methods) < 2 or error.startswith(("DivergedError", _KILLED)):
        return None
    return tried[0].job.name if error and all(one.error == error for one in tried) else None


def _is_of(job: Job, outcome: Outcome) -> bool:
    return job.config.method == outcome.job.config.method


def _take_orphans(folder: Path, waiting: list[Job], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Remove from ``waiting`` the jobs whose parent failed in the epochs that they share, where
    they would fail too, and the jobs that would have started from those."""
    failed = {outcome.job.name for outcome in outcomes if outcome.error}
    skipped = {outcome.job.name: outcome.of for outcome in outcomes if outcome.skipped}
    orphans = []
    for job in sorted(waiting, key=lambda job: job.shared):  # parents come before their children
        if job.parent is None:
            continue
        if job.parent in skipped or (
            job.parent in failed and _began_in_vain(folder / job.parent, job.shared)
        ):
            waiting.remove(job)
            skipped[job.name] = cause = skipped.get(job.parent) or job.parent
            said = f"not run: {cause} failed in the epochs that both share"
            orphans.append(Outcome(job, said, skipped=True, of=cause))
    return orphans


def _began_in_vain(parent: Path, shared: int) -> bool:
    """Whether a failed run came to some checkpoint, but not to the end of the shared epochs."""
    began = any(parent.glob("checkpoints/*.ckpt"))
    return began and not can_branch(RunFolder(parent), shared)


def _killed(folder: Path, job: Job, lost: BaseException) -> Outcome:
    """A job whose worker died under it when nothing else ran."""
    (folder / job.name).mkdir(parents=True, exist_ok=True)
    write_text(folder / job.name / "error.txt", f"{_KILLED}\n{type(lost).__name__}: {lost}\n")
    return Outcome(job, _KILLED)


_KILLED = "its process was killed, by the system for want of memory, say"


def _run(root: str, job: Job, work: Work) -> Outcome:
    """In a worker: train one job to its record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(root) / job.name
    try:
        with sole(folder):
            if not (folder / "record.json").exists():
                work(_open(root, job))
            (folder / "error.txt").unlink(missing_ok=True)
    except BusyError:
        return Outcome(job, None, busy=True)
    except (Exception, SystemExit) as error:  # a function may call sys.exit
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise  # Lightning's answer to Ctrl-C
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "error.txt", traceback.format_exc())
        method_fails = isinstance(error, MethodError)
        return Outcome(job, f"{type(error).__name__}: {error}", method_fails=method_fails)
    finally:
        torch.set_num_threads(threads)  # one job at a time runs in the caller's own process
    return Outcome(job, None)


def _open(root: str, job: Job) -> RunFolder:
    """The job's run, new or gone on with, started from its parent's checkpoint where it has one."""
    folder = Path(root) / job.name
    exists = (folder / "config.json").exists()
    run = RunFolder(folder) if exists else RunFolder.create(folder, job.config)
    if job.parent is None or run.newest() is not None:
        return run
    folder = Path(root) / job.parent
    if not (folder / "config.json").exists():
        return run
    parent = RunFolder(folder)
    if can_branch(parent, job.shared, best=run.config.select == "best"):
        branch(parent, run, job.shared)
    return run


class _Progress:
    """A bar over the epochs to train; without a terminal, a line per finished run."""

    def __init__(self, folder: Path, jobs: Sequence[Job], workers: int) -> None:
        left = [job for job in jobs if not (folder / job.name / "record.json").exists()]
        self._left = {job.name: job.epochs for job in left}
        self._runs, self._epochs, self._workers = len(left), sum(self._left.values()), workers
        self._since = time.perf_counter()
        self._bar = tqdm(total=self._epochs, unit="epoch", disable=None, desc=folder.name)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, outcome: Outcome) -> None:
        """Count a run as finished."""
        epochs = self._left.pop(outcome.job.name, None)
        if epochs is None:
            return
        said = f"{outcome.job.name} {'failed' if outcome.error else 'done'}"
        self._bar.update(epochs)
        self._bar.set_postfix_str(said)
        if self._bar.disable:
            done = self._runs - len(self._left)
            print(f"{said}, {done} of {self._runs} runs{self._time_left()}", file=sys.stderr)

    def _time_left(self) -> str:
        left = sum(self._left.values())
        spent = self._epochs - left
        if not left or not spent:
            return ""
        minutes = (time.perf_counter() - self._since) * left / spent / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"
