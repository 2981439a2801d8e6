"""From a training function to a record: what it returns is checked, and written down."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from safetensors.torch import save_file

from redense.files.records import read_record
from redense.runs.checkpoints import write_text, write_whole
from redense.runs.lock import sole
from redense.runs.loop import DivergedError, own_numbers, seed_everything
from redense.runs.record import environment, mask_overlap, released
from redense.runs.run import Run
from redense.runs.task import Metric
from redense.runs.weights import weights_sha256, whole_weights

SPLITS = ("valid", "test")


class MethodError(ValueError):
    """A method asks for what the training function cannot do, whatever the seed."""


def carry_out(train: Callable[[Run], Any], run: Run) -> dict[str, Any]:
    """Call ``train`` and write its record, or read the record of a run that is done.

    Raises:
        BusyError: another process trains it.
        DivergedError: a score is NaN or infinite.
        TypeError, ValueError: what was returned is no score, or the plan was not walked.
    """
    if run.files.record.exists():
        return read_record(run.files.record)
    first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    with sole(run.folder) if first else nullcontext():
        return _train(train, run)


def evaluate_again(train: Callable[[Run], Any], run: Run) -> dict[str, dict[str, float]]:
    """Scores of a finished run, of every split that may be read: its last checkpoint is loaded, and
    nothing is trained. Only for a function that walks `Run.epochs` or `Run.steps`."""
    seed_everything(run.seed)
    run.evaluates = True
    return read_scores(train(run), reads_test=run.reads_test)


def _train(train: Callable[[Run], Any], run: Run) -> dict[str, Any]:
    seed_everything(run.seed)  # for a function that builds its model without a seed
    scores = read_scores(train(run), reads_test=run.reads_test)
    if not run.used:
        raise ValueError(
            "the function asked for neither run.epochs(), run.steps() nor run.plan, so every "
            "method would train alike: loop over run.epochs(model, optimizer)"
        )
    if not run.keeps_phases and (wanted := _beyond_a_plan(run)):
        raise MethodError(
            f"{run.config.method} {wanted}, which run.epochs() does and a loop of your own cannot "
            "know of: leave this method out, or loop over run.epochs(model, optimizer)"
        )
    if not run.finished:
        raise ValueError(
            f"the function returned after {len(run.rows)} of {len(run.plan)} epochs: let the loop "
            "over run.epochs() run to its end, without break"
        )
    _check_chosen(run, scores["valid"])
    record = _record(run, scores)
    if run.main:
        write_text(run.files.record, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return record


def _beyond_a_plan(run: Run) -> str:
    """What a method does that a loop of the user's own cannot know of; empty for a plan alone."""
    if run.config.average:
        return "averages weights"
    if run.config.select == "best":
        return "keeps the best epoch's weights"
    return "shrinks and perturbs the weights it starts from" if run.config.shrink < 1 else ""


def _check_chosen(run: Run, valid: Mapping[str, float]) -> None:
    """Refuse a score that is not of the epoch whose weights were kept."""
    name, row = run.selected_by, run.selected_row
    if not name or row is None or not valid:
        return
    judged = next(iter(valid))
    logged = own_numbers(run.rows[row])
    unnamed = judged == "score" and len(logged) == 1  # a bare number, and one logged number
    if judged != name and not unnamed:
        raise ValueError(
            f"early stopping chose by {name!r}, the first number that was logged, but {judged!r} "
            f"is judged: log it first, run.log({judged}=...)"
        )
    last = run.rows[-1][name]
    if valid[judged] == last != logged[name]:
        raise ValueError(
            f"{judged} is the last epoch's, {last}, but the weights are those of epoch "
            f"{run.rows[row]['epoch']}, which had {logged[name]}: compute the score behind the "
            "loop, from the model"
        )


def read_scores(result: Any, *, reads_test: bool = True) -> dict[str, dict[str, float]]:
    """Scores by split and metric from what a training function returned.

    A bare number is a validation score called ``score``; a dictionary of numbers is validation's;
    with the keys ``valid`` and ``test`` each split has its own, where a function is called only if
    the split may be read.

    >>> read_scores({"valid": {"top1": 81.5}, "test": lambda: {"top1": 80.9}})
    {'valid': {'top1': 81.5}, 'test': {'top1': 80.9}}
    """
    splits = result if isinstance(result, Mapping) and set(result) & set(SPLITS) else None
    if splits is None:
        return {"valid": _metrics("what train(run) returned", result), "test": {}}
    if unknown := [key for key in splits if key not in SPLITS]:
        raise ValueError(
            f"train(run) returned a split {unknown[0]!r}; it may return valid and test"
        )
    scores: dict[str, dict[str, float]] = {"valid": {}, "test": {}}
    for split, value in splits.items():
        if split == "test" and not reads_test:
            continue
        given = value() if callable(value) else value
        if isinstance(given, Mapping) and not given and split == "test":
            continue
        scores[split] = _metrics(split, given)
    judged = next(iter(scores["valid"]), None)
    if judged is not None and scores["test"] and judged not in scores["test"]:
        raise ValueError(
            f"train(run) returned valid's {judged!r}, which is judged, and of test only "
            f"{', '.join(scores['test'])}: return the same metric of both"
        )
    return scores


def _metrics(where: str, value: Any) -> dict[str, float]:
    listed = value if isinstance(value, Mapping) else {"score": value}
    if not listed:
        raise ValueError(f"{where} holds no score; return a number or a dictionary of numbers")
    return {str(name): _number(where, name, given) for name, given in listed.items()}


def _number(where: str, name: object, value: Any) -> float:
    if value is None or isinstance(value, (str, bytes, bool)):
        raise TypeError(
            f"{where}: {name} must be a number, got {value!r}; end the function with "
            "return accuracy, or return {'valid': {'top1': accuracy}}"
        )
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: {name} must be a number, got {type(value).__name__}") from error
    if not math.isfinite(number):
        raise DivergedError(f"{where}: {name} is {number}: training has diverged")
    return number


def _record(run: Run, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Everything that a reader needs; of several ranks the first one writes it."""
    config, plan = run.config, run.plan
    weights = {}
    if run.network is not None:  # of a sharded network each rank gives its part
        weights = {name: value.clone() for name, value in whole_weights(run.network).items()}
    if not run.main:
        return {}
    if weights:
        write_whole(run.files.model, lambda partial: save_file(weights, str(partial)))
    first = next(iter(scores["valid"] or scores["test"]))
    metric = run.metric or Metric(first, config.higher_is_better)
    row = run.selected_row
    return {
        "recipe": config.recipe,
        "function": config.function,
        "method": config.method,
        "seed": config.seed,
        "plan": plan.to_records(),
        "phases": _phases(run) if run.rows else [],
        "metric": asdict(metric),
        "released": released(run.files, plan) if run.keeps_phases else [],
        "mask_overlap": mask_overlap(run.files, plan) if run.keeps_phases else [],
        "data": run.data,
        "options": config.options,
        "selection": run.selection,
        "selected_epoch": None if row is None else run.rows[row]["epoch"],
        **environment(),
        "precision": config.precision,
        "seconds": run.seconds,
        "cost": {"epochs": len(plan), "examples": run.examples},
        "prunable": run.prunable,
        "branched": run.branches,
        "history": run.rows,
        "weights_sha256": weights_sha256(weights) if weights else None,
        "valid": dict(scores["valid"]),
        "test": dict(scores["test"]),
    }


def _phases(run: Run) -> list[dict[str, Any]]:
    """A row per phase: its first epoch's rate, its last epoch's scores."""
    phases = []
    written = run.plan.to_records()
    for phase, start, as_data in zip(run.plan, run.plan.starts, written, strict=True):
        rows = [row for row in run.rows if start < row["epoch"] <= start + phase.length]
        numbers = own_numbers(rows[-1])
        losses = {name: numbers.pop(name) for name in ("train_loss",) if name in numbers}
        phases.append(
            {
                "name": phase.name,
                "epochs": phase.length,
                "rate": rows[0]["rate"],
                "sparsity": as_data["sparsity"],
                "sparsity_measured": rows[-1]["sparsity"],
                **losses,
                "valid": {name.removeprefix("valid_"): value for name, value in numbers.items()},
            }
        )
    return phases
