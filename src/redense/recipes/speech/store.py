"""Features on disk: computed once, in worker processes, and read as one memory-mapped array from
then on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from redense import datasets
from redense.files.typed import Count, Kind, Number, read_json
from redense.recipes.speech import features
from redense.recipes.speech.features import Extracted
from redense.recipes.speech.readers import Utterance

_FEW = 300  # recordings that this process does alone, sooner than workers would have started
_KIND = "log power, 20 ms Hann / 10 ms, 161 bins, 16 kHz, float16, 2"


class _Index(TypedDict):
    """Where each utterance's frames lie, at each speed; each has an entry in every list."""

    kind: str
    speeds: list[Number]
    places: list[list[tuple[Count, Count]]]
    sha256: list[str]
    bad: list[str | None]


INDEX = Kind(_Index, "index of features", "remove its folder: it is made anew")


@dataclass(frozen=True)
class Sounds:
    """Frames of many utterances in one array (rows, bins); some speeds each.

    ``starts`` and ``lengths`` are (utterances, speeds); ``sha256`` and ``bad`` have one entry an
    utterance, ``bad`` the reason why it has no frames.
    """

    rows: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    sha256: tuple[str, ...]
    bad: tuple[str | None, ...]

    def frames(self, number: int, speed: int = 0) -> NDArray[Any]:
        """(T, bins) of one utterance."""
        start = self.starts[number, speed]
        return self.rows[start : start + self.lengths[number, speed]]

    def pick(self, numbers: Sequence[int]) -> Sounds:
        """Some of them, over the same array."""
        chosen = np.asarray(numbers, dtype=np.int64)
        picked = (tuple(column[n] for n in numbers) for column in (self.sha256, self.bad))
        return Sounds(self.rows, self.starts[chosen], self.lengths[chosen], *picked)


def open_sounds(
    utterances: Sequence[Utterance], speeds: tuple[float, ...], longest: float, title: str
) -> Sounds:
    """Features of every utterance, extracted on first use and kept below
    `datasets.cache()`/features.

    The key is a hash over every file's path, size and time of change, and over how features are
    made.
    """
    key = _key(utterances, speeds, longest)
    root = datasets.cache() / "features"
    folder = root / key
    sounds = _kept(folder, len(utterances), len(speeds))
    if sounds is not None:
        return sounds
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{key}.lock"):
            sounds = _kept(folder, len(utterances), len(speeds))  # by another process meanwhile
            if sounds is None:
                shutil.rmtree(folder, ignore_errors=True)
                _write(folder, utterances, speeds, longest, title)
                sounds = _kept(folder, len(utterances), len(speeds))
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot keep features in {root}: {error.strerror}; set REDENSE_DATA to another folder",
        ) from error
    if sounds is None:
        raise OSError(f"features in {folder} cannot be read back; set REDENSE_DATA to another disk")
    return sounds


def _kept(folder: Path, utterances: int, speeds: int) -> Sounds | None:
    """What is kept in a folder; None where nothing is, or not all of it."""
    try:
        index = read_json(folder / "index.json", INDEX)
        table = np.asarray(index["places"], dtype=np.int64).reshape(utterances, speeds, 2)
        file = folder / "frames.f16"
        size = file.stat().st_size // (2 * features.BINS)
        columns = tuple(index["sha256"]), tuple(index["bad"])
    except (OSError, ValueError):  # made anew
        return None
    if {len(column) for column in columns} != {utterances}:
        return None
    if size != table[..., 1].sum() or (table.sum(2) > size).any():
        return None
    shape = (size, features.BINS)
    rows = np.memmap(file, np.float16, "r", shape=shape) if size else np.zeros(shape, np.float16)
    return Sounds(rows, table[..., 0], table[..., 1], *columns)


def _write(
    folder: Path,
    utterances: Sequence[Utterance],
    speeds: tuple[float, ...],
    longest: float,
    title: str,
) -> None:
    """Everything into a neighbour of ``folder``, renamed at the end; what a killed process left
    there goes."""
    work = folder.with_name(f".{folder.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    places: list[list[tuple[int, int]]] = []
    sums: list[str] = []
    bad: list[str | None] = []
    at = 0
    try:
        with (work / "frames.f16").open("wb") as file:
            found = tqdm(
                _extracted(utterances, speeds, longest),
                f"features of {title}",
                len(utterances),
                delay=2,
                leave=False,
                disable=None,
            )
            for one in found:
                mine = [(0, 0)] * len(speeds)
                if isinstance(one, Extracted):
                    for number, frames in enumerate(one.frames):
                        file.write(frames.tobytes())
                        mine[number] = (at, len(frames))
                        at += len(frames)
                places.append(mine)
                sums.append(one.sha256 if isinstance(one, Extracted) else "")
                bad.append(None if isinstance(one, Extracted) else one)
        content = {"kind": _KIND, "speeds": speeds, "places": places, "sha256": sums, "bad": bad}
        (work / "index.json").write_text(json.dumps(content), "utf-8")
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extracted(
    utterances: Sequence[Utterance], speeds: tuple[float, ...], longest: float
) -> Iterator[Extracted | str]:
    jobs = 1 if len(utterances) <= _FEW else -1
    tasks = (
        delayed(features.extract)(Path(u.audio), speeds, longest, u.duration, u.start)
        for u in utterances
    )
    yield from Parallel(n_jobs=jobs, return_as="generator")(tasks)


def _key(utterances: Iterable[Utterance], speeds: tuple[float, ...], longest: float) -> str:
    digest = hashlib.sha256(f"{_KIND} {speeds} {longest}".encode())
    for utterance in utterances:
        try:
            status = Path(utterance.audio).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):  # a name that no file can have
            state = "missing"
        part = f"{utterance.start} {utterance.duration}"
        digest.update(f"\n{utterance.audio} {part} {state}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]
