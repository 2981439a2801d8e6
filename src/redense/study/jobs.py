"""Run a study: every method over every seed, in processes of one thread, each run one folder with
one record.

Methods that begin alike share those epochs: a run starts from the phase checkpoint of the one it
branches from, which is exact, since every epoch's randomness comes from (seed, epoch) alone.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from redense.plan import Plan
from redense.recipes import RECIPES
from redense.runs.checkpoints import read, write_text, write_whole
from redense.runs.folder import RunFolder
from redense.study.methods import Method, shared_epochs
from redense.study.work import recipe_work

BACKENDS = ("loky", "dask", "ray")


@dataclass(frozen=True)
class Job:
    """One run of a study; with a parent it starts after ``shared`` epochs of the parent's."""

    name: str
    config: dict[str, Any]
    parent: str | None
    shared: int
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What came of a job: an error text, or nothing."""

    job: Job
    error: str | None


def plan_jobs(
    methods: Mapping[str, Method], seeds: Sequence[int], config: Mapping[str, Any]
) -> list[Job]:
    """A job per method and seed, each branching from the earlier one it shares most epochs with."""
    jobs = []
    for seed in seeds:
        done: dict[str, Method] = {}
        for name, method in sorted(
            methods.items(), key=lambda item: len(item[1].plan)
        ):  # shortest first: dense
            shared, parent = max(
                ((shared_epochs(method, other), key) for key, other in done.items()),
                default=(0, ""),
            )
            if method.select == "best":  # the weights of its own best epoch: it shares no epochs
                if config["recipe"]:
                    raise ValueError(
                        f"{name} is for a function of your own as yet, redense.prove(train, plan); "
                        "leave it out"
                    )
                shared, parent = 0, ""
            own = {
                "method": name,
                "seed": seed,
                "plan": method.plan.to_records(),
                "average": method.average,
            }
            if method.select != "last":
                own["select"] = method.select
            jobs.append(
                Job(
                    f"{name}--{seed}",
                    {**config, **own},
                    f"{parent}--{seed}" if shared else None,
                    shared,
                    len(method.plan) - shared,
                )
            )
            done[name] = method
    return jobs


def saved_share(jobs: Sequence[Job]) -> float:
    """Share of all runs' epochs that branching spares."""
    return sum(job.shared for job in jobs) / sum(job.shared + job.epochs for job in jobs)


def run_study(
    folder: Path,
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    backend: str = "loky",
    work: Callable[[RunFolder], None] | None = None,
) -> list[Outcome]:
    """Do every job that has no record yet; a crashed one is kept with its error and does not sink
    the others.

    Args:
        workers: processes at a time, one thread each.
        backend: joblib's: ``loky`` on this machine, ``dask`` or ``ray`` on the cluster that their
            usual environment variables or a running local cluster point to; the folder must then be
            on a shared disk.
    """
    outcomes: list[Outcome] = []
    bar = tqdm(total=sum(job.epochs for job in jobs), unit="epoch", disable=None, desc=folder.name)
    with bar, _backend(backend, workers):
        for wave in _waves(jobs):
            failed = {outcome.job.name for outcome in outcomes if outcome.error}
            orphans = [job for job in wave if job.parent in failed]
            outcomes += [
                Outcome(job, f"not run: {job.parent}, which it branches from, failed")
                for job in orphans
            ]
            tasks = (delayed(_run)(str(folder), job, work) for job in wave if job not in orphans)
            when = (
                "list" if backend == "ray" else "generator_unordered"
            )  # joblib's ray backend has no generators
            for outcome in Parallel(n_jobs=workers, return_as=when)(tasks):
                outcomes.append(outcome)
                bar.update(outcome.job.epochs)
                bar.set_postfix_str(f"{outcome.job.name} {'failed' if outcome.error else 'done'}")
    return outcomes


def open_study(folder: Path, config: Mapping[str, Any]) -> None:
    """Make ``folder`` this study's, or go on with it; another study's folder is refused."""
    file = folder / "study.json"
    text = json.dumps(config, indent=2) + "\n"
    if file.exists() and file.read_text("utf-8") != text:
        raise ValueError(
            f"{folder} holds a study with other settings (see {file}); choose another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write a study at {folder}: {error.strerror}; choose another --out"
        ) from error


def records(folder: Path) -> list[dict[str, Any]]:
    """Every finished run's record below ``folder``, in order of method and seed."""
    found = [
        json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*--*/record.json"))
    ]
    return sorted(found, key=lambda record: (record["method"], record["seed"]))


def _run(root: str, job: Job, work: Callable[[RunFolder], None] | None) -> Outcome:
    """In a worker: train one job to its record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = Path(root) / job.name
    try:
        if not (folder / "record.json").exists():
            if (folder / "config.json").exists():
                run = RunFolder(folder)
            else:
                run = RunFolder.create(
                    folder, job.config, str(Plan.from_records(job.config["plan"]))
                )
            if job.parent is not None and run.newest() is None and _can_branch(root, job):
                branch(RunFolder(Path(root) / job.parent), run, job.shared)
            (work or recipe_work)(run)
        (folder / "error.txt").unlink(missing_ok=True)
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "error.txt", traceback.format_exc())
        return Outcome(job, f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads)  # one job at a time runs in the caller's own process
    return Outcome(job, None)


def branch(parent: RunFolder, child: RunFolder, epochs: int) -> None:
    """Let ``child`` start after ``epochs`` epochs of ``parent``, as if it had trained them itself.

    Raises:
        ValueError: the two plans, or what they train, differ before that epoch.
    """
    mine, theirs = child.config, parent.config
    plan, other = Plan.from_records(mine["plan"]), Plan.from_records(theirs["plan"])
    phases = [phase for phase, start in zip(plan, plan.starts, strict=True) if start < epochs]
    differing = [
        key
        for key in ("recipe", "seed", "options", "include", "exclude")
        if mine[key] != theirs[key]
    ]
    if (
        differing
        or phases != list(other.phases[: len(phases)])
        or sum(phase.length for phase in phases) != epochs
    ):
        what = differing[0] if differing else f"the first {epochs} epochs of the plan"
        raise ValueError(f"{child.path} cannot branch from {parent.path}: {what} is not the same")
    for phase in phases[:-1]:
        source = parent.phase_file(phase.name)
        write_whole(
            child.phase_file(phase.name),
            lambda partial, source=source: shutil.copyfile(source, partial),
        )
    checkpoint = read(parent.phase_file(phases[-1].name))
    walked = (
        checkpoint["phases"] if "phases" in checkpoint else checkpoint["callbacks"]["DSDCallback"]
    )
    walked["plan"] = plan.to_records()
    write_whole(child.phase_file(phases[-1].name), lambda partial: torch.save(checkpoint, partial))
    if mine["recipe"]:
        task, _ = RECIPES[mine["recipe"]].load()
        if hasattr(task, "branched"):
            task.branched(parent.path, child.path, [phase.name for phase in phases])
    shutil.copyfile(child.phase_file(phases[-1].name), child.epoch_file(epochs))


def _can_branch(root: str, job: Job) -> bool:
    """Whether the parent kept checkpoints: a function that loops by itself keeps none."""
    parent = RunFolder(Path(root) / str(job.parent))
    phases = Plan.from_records(parent.config["plan"])
    starts = zip(phases, phases.starts, strict=True)
    needed = [phase for phase, start in starts if start < job.shared]
    return all(parent.phase_file(phase.name).exists() for phase in needed)


def _waves(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs whose parents are done, the longest first, again and again."""
    left, done = list(jobs), set()
    while left:
        wave = [job for job in left if job.parent is None or job.parent in done]
        yield sorted(wave, key=lambda job: -job.epochs)
        done |= {job.name for job in wave}
        left = [job for job in left if job not in wave]


@contextmanager
def _backend(name: str, workers: int) -> Iterator[None]:
    """joblib's engine; loky's workers get one OpenMP thread each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cluster: AbstractContextManager[Any] = nullcontext()
    if name == "dask":
        try:
            from dask.distributed import Client
        except ImportError as error:
            raise ImportError(
                "--backend dask needs dask: pip install 'dask[distributed]'"
            ) from error
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        cluster = (
            Client(address)
            if address
            else Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        )
    elif name == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise ImportError("--backend ray needs ray: pip install ray") from error
        register_ray()
    elif name != "loky":
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    inner = {"inner_max_num_threads": 1} if name == "loky" else {}
    with cluster, parallel_config(backend=name, n_jobs=workers, **inner):
        yield
