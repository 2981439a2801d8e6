"""Every reader on damaged files: ``python -m benchmarks.fuzz --cases 5000``.

A case passes if the file is read or refused: with one line that names the file, or the value in it
that is wrong, in bounded time and memory, without running code; and what has a checksum is never
read as something else. Counts go to results/bench/fuzz.json; the same seed gives the same cases.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from benchmarks.fuzz_targets import TARGETS, RefusedError, Target, prepare
from redense.cli.flags import one_line
from redense.cli.main import MISTAKES
from redense.runs.record import environment

OUT = Path(__file__).parents[1] / "results/bench/fuzz.json"
GOOD = ("read", "refused")
LONGEST_LINE = 700
CPU_SECONDS = 25
SECONDS = 240  # of the wall: a machine may be busy
MEMORY = 4 << 30  # beyond what the process has when all is imported
CHUNK = 100  # cases to a process


@dataclass(frozen=True)
class Case:
    """What became of one damaged file; ``kind`` is one of `GOOD`, or the fault."""

    number: int
    target: str
    damage: str
    file: str
    kind: str
    said: str
    seconds: float


class _HangError(BaseException):
    """The processor time of a case is over."""


def run(base: Path, numbers: Sequence[int], seed: int) -> Iterator[Case]:
    """The cases of these numbers, in processes of their own: one that dies costs its case."""
    left = list(numbers)
    while left:
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            os.close(reader)
            _work(base, left[:CHUNK], seed, writer)
        os.close(writer)
        done = 0
        with os.fdopen(reader, "rb") as results:
            for line in _lines(results, process):
                yield Case(**json.loads(line))
                done += 1
        _, status = os.waitpid(process, 0)
        if done < len(left[:CHUNK]):
            number = left[done]
            target, damage, file = _drawn(base, number, seed)[:3]
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            kind = "hang" if killed else "crash"
            yield Case(number, target.name, damage.__name__, file, kind, f"status {status}", 0.0)
            done += 1
        left = left[done:]


def summary(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """Counts by kind, by target and by damage."""
    by_target = {target.name: Counter[str]() for target in TARGETS}
    for case in cases:
        by_target[case.target][case.kind] += 1
    return {
        "seed": seed,
        "cases": len(cases),
        "seconds": round(sum(case.seconds for case in cases)),
        "longest_seconds": round(max(case.seconds for case in cases), 1),
        "kinds": dict(Counter(case.kind for case in cases)),
        "targets": {name: dict(counts) for name, counts in by_target.items()},
        "damages": dict(Counter(case.damage for case in cases)),
        "faults": [asdict(case) for case in cases if case.kind not in GOOD],
        **environment(),
    }


def _lines(results: Any, process: int) -> Iterator[bytes]:
    """Lines of a process's results; one that gives none for too long is killed."""
    rest = b""
    while True:
        if not select.select([results], [], [], SECONDS)[0]:
            os.kill(process, signal.SIGKILL)
            return
        if not (read := os.read(results.fileno(), 65_536)):
            return
        *whole, rest = (rest + read).split(b"\n")
        yield from whole


def _work(base: Path, numbers: Sequence[int], seed: int, writer: int) -> None:
    """In a process of its own."""
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        _limit_memory()
        signal.signal(signal.SIGPROF, _hang)
        warnings.simplefilter("ignore")
        for number in numbers:
            case = _try(base, work, number, seed)
            os.write(writer, json.dumps(asdict(case)).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _limit_memory() -> None:
    has = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, has + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _hang(number: int, frame: FrameType | None) -> None:
    raise _HangError


def _drawn(base: Path, number: int, seed: int) -> tuple[Target, Any, str, Random]:
    """The target, the damage and the file of a case."""
    draw = Random(f"{seed} {number}")
    target = draw.choices(TARGETS, [target.share for target in TARGETS])[0]
    folder = base / target.folder
    listed = {file for pattern in target.files for file in folder.glob(pattern) if file.is_file()}
    file = draw.choice(sorted(listed))
    return target, draw.choice(target.damages), str(file.relative_to(folder)), draw


def _try(base: Path, work: Path, number: int, seed: int) -> Case:
    target, damage, name, draw = _drawn(base, number, seed)
    folder = _copy_of(base, work, target)
    file = folder / name
    content = (base / target.folder / name).read_bytes()
    try:
        damaged = damage(content, draw)
    except Exception:
        damaged = b""  # not of the kind that this damage knows
    file.write_bytes(damaged)
    since = time.perf_counter()
    kind, said = _judge(base, target, folder, file, damaged)
    seconds = time.perf_counter() - since
    if any((place / "canary").exists() for place in (work, folder, Path.cwd())):
        kind = "code run"
    os.chdir(work)
    if target.writes:
        shutil.rmtree(folder)
    else:
        file.write_bytes(content)
    return Case(number, target.name, damage.__name__, name, kind, said[:1000], seconds)


def _copy_of(base: Path, work: Path, target: Target) -> Path:
    """The target's folder, a fresh one where readers write, under its own top's name."""
    top = target.folder.split("/")[0]
    if target.writes or not (work / top).exists():
        shutil.rmtree(work / top, ignore_errors=True)
        shutil.copytree(base / top, work / top)
    os.chdir(work)
    return work / target.folder


def _judge(base: Path, target: Target, folder: Path, file: Path, damaged: bytes) -> tuple[str, str]:
    """(kind, what was said)."""
    out, err = StringIO(), StringIO()
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            answer = target.reader(folder, file)
    except _HangError:
        return "hang", traceback.format_exc()
    except MemoryError:
        return "memory", traceback.format_exc()
    except RefusedError:
        said = err.getvalue().strip().splitlines()[-1].removeprefix("redense: error: ")
    except MISTAKES as error:
        said = one_line(error)
    except (Exception, SystemExit):
        return "traceback", traceback.format_exc()
    else:
        if target.exact and answer != _undamaged(base, target, file.relative_to(folder)):
            return "silent", f"{answer}"
        return "read", ""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if len(said) > LONGEST_LINE:
        return "long", said
    told = f"{err.getvalue()}{said}"
    return ("refused" if _names(told, file, damaged) else "nameless"), said


_KNOWN: dict[tuple[str, str], Any] = {}


def _undamaged(base: Path, target: Target, name: Path) -> Any:
    key = target.name, str(name)
    if key not in _KNOWN:
        with tempfile.TemporaryDirectory() as fresh, redirect_stdout(StringIO()):
            folder = shutil.copytree(base / target.folder, Path(fresh) / target.folder)
            _KNOWN[key] = target.reader(folder, folder / name)
    return _KNOWN[key]


def _names(said: str, file: Path, damaged: bytes) -> bool:
    """Whether a line names the file, or a value that stands in it."""
    run = file.parent.name if "--" in file.parent.name else file.name
    if file.name in said or run in said:
        return True
    quoted = re.findall(r"'((?:[^'\\]|\\.)+)'|(/[^\s:;,)]{3,})", said)
    text = damaged.decode("utf-8", "replace")
    return any(one and one in text for pair in quoted for one in pair)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases and write their counts; 1 where one failed."""
    parser = argparse.ArgumentParser(description="Every reader on damaged files.")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a target's name")
    parser.add_argument("--base", type=Path, help="folder of undamaged files, made if missing")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        base = asked.base or Path(made) / "base"
        if not base.exists():
            prepare(base)
        numbers = range(asked.first, asked.first + asked.cases)
        chosen = [n for n in numbers if asked.only in _drawn(base, n, asked.seed)[0].name]
        cases: list[Case] = []
        for case in run(base.absolute(), chosen, asked.seed):
            cases.append(case)
            if case.kind not in GOOD:
                print(f"{case.number}: {case.target}, {case.damage}, {case.file}: {case.kind}")
                print(
                    f"    {case.said.strip().splitlines()[-1][:300] if case.said else ''}",
                    flush=True,
                )
    content = summary(cases, asked.seed)
    asked.out.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(f"{len(cases)} cases: {content['kinds']}")
    return 1 if content["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
