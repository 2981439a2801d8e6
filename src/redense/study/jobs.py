"""A study's jobs: every method over every seed, and which run each of them starts from.

Methods that begin alike share those epochs: a run starts from the phase checkpoint of the one it
branches from, which is exact, since every epoch's randomness comes from (seed, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from redense.runs.checkpoints import copy_apart, copy_whole, read, save_whole
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.study.methods import Method, shared_epochs


@dataclass(frozen=True)
class Job:
    """One run of a study; with a parent it starts after ``shared`` epochs of the parent's."""

    name: str
    config: RunConfig
    parent: str | None
    shared: int
    epochs: int


def plan_jobs(methods: Mapping[str, Method], seeds: Sequence[int], config: RunConfig) -> list[Job]:
    """A job per method and seed, each branching from the earlier one it shares most epochs with."""
    best = any(method.select == "best" for method in methods.values())
    config = replace(config, keep_best=best)
    # what selects an epoch comes last: where it fails, nothing that starts from it does
    shortest_first = sorted(
        methods.items(), key=lambda item: (len(item[1].plan), item[1].select == "best")
    )
    jobs = []
    for seed in seeds:
        done: dict[str, Method] = {}
        for name, method in shortest_first:
            shares = {other: shared_epochs(method, done[other]) for other in done}
            parent = max(shares, key=shares.__getitem__, default="")  # of several the simplest
            shared = shares.get(parent, 0)
            own = run_config(config, name, method, seed)
            epochs = len(method.plan) - shared
            jobs.append(
                Job(f"{name}--{seed}", own, f"{parent}--{seed}" if shared else None, shared, epochs)
            )
            done[name] = method
    return jobs


def run_config(config: RunConfig, name: str, method: Method, seed: int) -> RunConfig:
    """What one run of a method is asked for, over what all runs have in common."""
    return replace(
        config,
        method=name,
        seed=seed,
        plan=method.plan.to_records(),
        average=method.average,
        select=method.select,
        include=list(method.include) or config.include,
        weight_decay=list(method.weight_decay),
        shrink=method.shrink,
    )


def as_they_lie(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs, those without a parent whose parent is done and did not keep what they need."""

    def lies(job: Job) -> Job:
        parent = folder / str(job.parent)
        if job.parent is None or not (parent / "record.json").exists():
            return job
        if can_branch(RunFolder(parent), job.shared, best=job.config.select == "best"):
            return job
        return replace(job, parent=None, shared=0, epochs=job.shared + job.epochs)

    return [lies(job) for job in jobs]


def saved_share(jobs: Sequence[Job]) -> float:
    """Share of all runs' epochs that branching spares."""
    whole = sum(job.shared + job.epochs for job in jobs)
    return sum(job.shared for job in jobs) / whole if whole else 0.0


def can_branch(parent: RunFolder, epochs: int, *, best: bool = False) -> bool:
    """Whether the parent kept the phases of its first ``epochs`` epochs, and trained them without a
    look at what comes after; a function that loops by itself keeps none.

    Args:
        best: the child needs the best of those epochs' weights too.
    """
    if parent.alone.exists():
        return False
    plan = parent.config.to_plan()
    starts = zip(plan, plan.starts, strict=True)
    needed = [phase for phase, start in starts if start < epochs]
    if best and not parent.best_of(needed[-1].name).exists():
        return False
    return all(parent.phase_file(phase.name).exists() for phase in needed)


def branch(parent: RunFolder, child: RunFolder, epochs: int) -> None:
    """Let ``child`` start after ``epochs`` epochs of ``parent``, as if it had trained them itself.

    Raises:
        ValueError: the two plans, or what they train, differ before that epoch.
    """
    mine, theirs = child.config, parent.config
    plan, other = mine.to_plan(), theirs.to_plan()
    phases = [phase for phase, start in zip(plan, plan.starts, strict=True) if start < epochs]
    held = any(phase.sparsity for phase in phases)
    decays = mine.weight_decay[: len(phases)] or [1.0] * len(phases)
    other_decays = theirs.weight_decay[: len(phases)] or [1.0] * len(phases)
    alike = {
        "recipe": mine.recipe == theirs.recipe,
        "seed": mine.seed == theirs.seed,
        "options": all(
            mine.options[name] == theirs.options[name]
            for name in mine.options.keys() & theirs.options.keys()  # a version may know one more
        ),
        "include": mine.include == theirs.include or not held,
        "exclude": mine.exclude == theirs.exclude or not held,
        "weight decay": decays == other_decays,
        "shrink": mine.shrink == theirs.shrink,
        f"the first {epochs} epochs of the plan": phases == list(other.phases[: len(phases)])
        and sum(phase.length for phase in phases) == epochs,
    }
    if differing := [what for what, same in alike.items() if not same]:
        raise ValueError(
            f"{child.path} cannot branch from {parent.path}: {differing[0]} is not the same"
        )
    for phase in phases[:-1]:
        copy_apart(parent.phase_file(phase.name), child.phase_file(phase.name))
    best = parent.best_of(phases[-1].name)
    if mine.keeps_best and best.exists():
        copy_apart(best, child.best_of(phases[-1].name))
        copy_whole(child.best_of(phases[-1].name), child.best_file)
    checkpoint = read(parent.phase_file(phases[-1].name))
    walked = (
        checkpoint["phases"] if "phases" in checkpoint else checkpoint["callbacks"]["DSDCallback"]
    )
    walked["plan"] = plan.to_records()
    save_whole(checkpoint, child.phase_file(phases[-1].name))
    copy_whole(child.phase_file(phases[-1].name), child.epoch_file(epochs))
