"""The trials' test scores, read once the contrast is confirmed: what a smaller search would have
found, judged by data that no choice was made on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from redense.files.records import read_record
from redense.files.typed import Kind, Number, read_json
from redense.runs.checkpoints import write_text
from redense.runs.folder import RunFolder
from redense.study.work import FunctionWork
from redense.study.workers import open_workers

_SCORES = Kind(dict[str, Number], "table of test scores", "delete it, and it is made anew")


def judged_scores(
    folders: Iterable[Path], work: FunctionWork, *, workers: int, backend: str
) -> dict[str, float]:
    """The judged metric on the test split, by the name of a run's folder; a score that was read
    before is not read again. None at all where some run gives none: the function has no test split,
    or its scores follow from more than the network.

    Each run's last checkpoint is loaded and nothing is trained.
    """
    files = {folder.name: folder.absolute() / "test.json" for folder in folders}
    left = [file for file in files.values() if not file.exists()]
    if left:
        print(f"{len(left)} runs of trials are scored on the test split now", file=sys.stderr)
    with open_workers(backend, workers) as pool:
        waited: list[Future[Any]] = [pool.submit(_evaluate, file, work) for file in left]
        for future in tqdm(waited, "test scores", unit="run", delay=2, leave=False, disable=None):
            future.result()
    scores: dict[str, dict[str, float]] = {
        name: read_json(file, _SCORES) for name, file in files.items()
    }
    metrics = {name: _metric(file.parent) for name, file in files.items()}
    if not all(scores.values()):
        return {}
    return {name: test[metrics[name]] for name, test in scores.items()}


def _evaluate(file: Path, work: FunctionWork) -> None:
    """In a worker: one run's scores on the test split into ``file``; none where the function does
    not come to the validation scores that it had, since it reckons some of them in its loop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = RunFolder(file.parent)
    try:
        scores = work.evaluate(folder)
    except Exception:
        scores = {"valid": {}, "test": {}}
    finally:
        torch.set_num_threads(threads)
    agrees = scores["valid"] == read_record(folder.record)["valid"]
    write_text(file, json.dumps(scores["test"] if agrees else {}) + "\n")


def _metric(folder: Path) -> str:
    return str(read_record(folder / "record.json")["metric"]["name"])
