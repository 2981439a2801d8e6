"""Kills at random moments, and what comes of them: ``python -m benchmarks.kills --kills 50``.

A command is started, killed (kill -9, SIGTERM, Ctrl-C of its process or of its whole group) at a
seeded moment, perhaps while it still imports, and started again. No process may be left, every file
must be whole, a signal must end with its code and without a traceback, and the second start must
come to the same weights and scores as a run that nobody killed. Counts go to
results/bench/kills.json.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from PIL import Image
from safetensors import safe_open

from redense.runs.checkpoints import read
from redense.runs.record import environment

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results/bench/kills.json"
COMMAND = (
    # a shell's '&' switches SIGINT off for what it starts
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from redense.cli import main; sys.exit(main())"
)
MANNERS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT to all")
_CODES = {
    "SIGKILL": (-9,),
    "SIGTERM": (143, -15),  # before and after the command itself the system's own way
    "SIGINT": (130, -2),
    "SIGINT to all": (130, -2),
}
_GONE = 30  # seconds that processes may take to end

TINY = ("--size", "8", "--batch", "8", "--accelerator", "cpu")
PLAN = ("--dense", "2", "--sparse", "2", "--redense", "1", "--sparsity", "0.5")
MINE = """
import torch
from torch import nn


def train(run):
    torch.manual_seed(run.seed)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    points = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
    labels = (points[:, 0] > 0).long()
    for _ in run.epochs(model, optimizer):
        for batch in torch.randperm(256).split(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(points[batch]), labels[batch]).backward()
            optimizer.step()
    score = float((model(points).argmax(1) == labels).float().mean())
    return {"valid": {"top1": score}, "test": lambda: {"top1": score}}
"""


@dataclass(frozen=True)
class Command:
    """What is killed.

    Args:
        arguments: of redense, in a folder of its own.
        out: what it writes there.
        again: arguments that go on with it, once ``out`` has a config.json; default the same.
        same: whether what comes out is the same to the byte; of a search, whose later draws depend
            on when it was killed, only the runs of the same plans.
    """

    name: str
    arguments: tuple[str, ...]
    out: str
    again: tuple[str, ...] = ()
    same: bool = True


COMMANDS = (
    Command(
        "train, in memory",
        ("train", "images", "--data", "pictures", *TINY, *PLAN, "--out", "run"),
        "run",
        ("train", "images", "--resume", "run"),
    ),
    Command(
        "train, loader processes",
        ("train", "images", "--data", "shards", *TINY, *PLAN, "--workers", "2", "--out", "run"),
        "run",
        ("train", "images", "--resume", "run"),
    ),
    Command(
        "data preparation (features of recordings), then train",
        (
            *("train", "speech", "--data", "recordings", "--width", "8", "--layers", "1"),
            *("--filters", "2", "--batch", "8", "--passes", "1", "--accelerator", "cpu"),
            *("--sparse-lr", "1", "--redense-lr", "0.1", *PLAN, "--out", "run"),
        ),
        "run",
        ("train", "speech", "--resume", "run"),
    ),
    Command(
        "prove, two jobs",
        ("prove", "mine.py:train", *PLAN, "--seeds", "3", "--jobs", "2", "--out", "study"),
        "study",
    ),
    Command(
        "search, two jobs",
        (
            *("search", "mine.py:train", "--dense", "2", "--epochs", "4", "--trials", "4"),
            *("--seeds", "1", "--confirm", "2", "--jobs", "2", "--anyway", "--out", "search"),
        ),
        "search",
        same=False,
    ),
    Command("export", ("export", "finished", "hub"), "hub"),
    Command("report", ("report", "finished", "--out", "page/report.html"), "page"),
)


@dataclass(frozen=True)
class Kill:
    """What became of one; ``faults`` is empty if all went well."""

    command: str
    manner: str
    moment: float
    ended_before: bool
    code: int
    faults: tuple[str, ...]


def prepare(base: Path) -> None:
    """The folder in which commands are started: data, a function, a finished run."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import write_pictures
    from trained_runs import write_speech

    base.mkdir(parents=True)
    write_pictures(base / "pictures", {"train": 240, "val": 30, "test": 30})
    _write_shards(base / "shards")
    write_speech(base / "recordings")
    (base / "mine.py").write_text(MINE)
    (base / "page").mkdir()
    assert _start(base, (*COMMANDS[0].arguments[:-1], "finished")).wait() == 0


def unkilled(command: Command, base: Path) -> tuple[float, Any]:
    """(seconds of processors, answer) of a command that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        desk = shutil.copytree(base, Path(folder) / "desk")
        before = _spent()
        process = _start(desk, command.arguments)
        process.communicate()
        seconds = _spent() - before
        if process.returncode != 0:
            raise RuntimeError(f"{command.name} ends with {process.returncode}")
        return seconds, _answer(command, desk)


def kill(command: Command, base: Path, manner: str, moment: float, wanted: Any) -> Kill:
    """Start ``command``, kill it once it has used ``moment`` seconds of processors (a busy machine
    changes nothing about where that is), start it again, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        desk = shutil.copytree(base, Path(folder) / "desk")
        process = _start(desk, command.arguments)
        while process.poll() is None and _used(process.pid) < moment:
            time.sleep(0.02)
        _send(process, manner)
        _, said = process.communicate(timeout=120)
        code = process.returncode
        before = code == 0
        faults = [*_left_over(process.pid), *_broken(desk)]
        if not before and code not in _CODES[manner]:
            faults.append(f"ended with {code}, not {_CODES[manner][0]}: {said[-300:]}")
        if "Traceback" in said:
            faults.append(f"a traceback: {said[-600:]}")
        goes_on = command.again and (desk / command.out / "config.json").exists()
        again = _start(desk, command.again if goes_on else command.arguments)
        _, said = again.communicate(timeout=600)
        if again.returncode != 0:
            faults.append(f"started again it ends with {again.returncode}: {said[-600:]}")
        else:
            faults += _differences(command, wanted, _answer(command, desk))
            faults += _broken(desk)
        faults += _left_over(again.pid)
    return Kill(command.name, manner, round(moment, 2), before, code, tuple(faults))


def drawn(number: int, seed: int, seconds: Mapping[str, float]) -> tuple[Command, str, float]:
    """The command, the manner and the moment of one kill; each command in turn."""
    draw = Random(f"{seed} {number}")
    command = COMMANDS[number % len(COMMANDS)]
    return command, draw.choice(MANNERS), draw.uniform(0.02, 0.98) * seconds[command.name]


def _start(desk: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """In a session of its own, by which all its processes are found."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=desk,
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "REDENSE_DATA": str(desk / "cache"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _spent() -> float:
    """Seconds of processors of all that this process started and that has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _used(process: int) -> float:
    """Seconds of processors of a process and those that it started."""
    try:
        root = psutil.Process(process)
        return sum(sum(one.cpu_times()[:4]) for one in (root, *root.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0.0


def _send(process: subprocess.Popen[str], manner: str) -> None:
    if process.poll() is not None:
        return
    if manner == "SIGINT to all":  # a terminal's
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, manner))


def _left_over(session: int) -> list[str]:
    """Processes that are still there after a while; they are ended, for the next kill's sake."""
    deadline = time.monotonic() + _GONE
    while (found := _of_session(session)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for one in found:
        one.kill()
    return [f"left over after {_GONE} s: {' '.join(one.cmdline()[-3:])[:200]}" for one in found]


def _of_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _broken(desk: Path) -> list[str]:
    """Files that are not whole; what is written beside them, to be renamed, does not count."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".ckpt": read,
        ".json": lambda file: json.loads(file.read_text("utf-8")),
        ".safetensors": _open_tensors,
    }
    faults = []
    for file in desk.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(desk).parts)
        if hidden or file.suffix not in readers:
            continue
        try:
            readers[file.suffix](file)
        except Exception as error:
            faults.append(f"{file.relative_to(desk)} is not whole: {error}")
    return faults


def _open_tensors(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118
            opened.get_tensor(name)


def _answer(command: Command, desk: Path) -> dict[str, Any]:
    """What came out: weights and scores by run, or files' hashes."""
    out = desk / command.out
    answer = {}
    for file in sorted(out.rglob("record.json")):
        record = json.loads(file.read_text("utf-8"))
        scores = {name: record[name] for name in ("plan", "weights_sha256", "valid", "test")}
        answer[str(file.parent.relative_to(desk))] = scores
    if not answer:
        for file in sorted(out.iterdir()):
            answer[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return answer


def _differences(command: Command, wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    if command.same and wanted.keys() != found.keys():
        return [f"other results: {sorted(wanted.keys() ^ found.keys())}"]
    shared = wanted.keys() & found.keys()
    if not command.same:
        shared = {name for name in shared if wanted[name]["plan"] == found[name]["plan"]}
    if not shared:
        return ["no result is the same"]
    return [f"{name} came out otherwise" for name in sorted(shared) if wanted[name] != found[name]]


def _write_shards(folder: Path) -> None:
    """Parquet, which is streamed by processes that decode."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    noise = np.random.default_rng(0)
    for split, many in (("train", 240), ("validation", 24)):
        encoded = []
        for _ in range(many):
            content = io.BytesIO()
            Image.fromarray(noise.integers(0, 255, (8, 8, 3), np.uint8)).save(content, "PNG")
            encoded.append(content.getvalue())
        table = pa.table({"image": encoded, "label": [number % 3 for number in range(many)]})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=60)
    (folder / "classes.txt").write_text("a\nb\nc\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, and write the counts; 1 where one left something behind."""
    parser = argparse.ArgumentParser(description="Kills at random moments.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill")
    parser.add_argument("--only", default="", help="part of a command's name")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    kills: list[Kill] = []
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        base = Path(made) / "base"
        prepare(base)
        chosen = [one for one in COMMANDS if asked.only in one.name]
        known = {one.name: unkilled(one, base) for one in chosen}
        seconds = {one.name: known[one.name][0] if one in chosen else 1.0 for one in COMMANDS}
        for number in range(asked.first, asked.first + asked.kills):
            command, manner, moment = drawn(number, asked.seed, seconds)
            if command not in chosen:
                continue
            one = kill(command, base, manner, moment, known[command.name][1])
            kills.append(one)
            print(one, flush=True)
    asked.out.write_text(json.dumps(summary(kills, asked.seed, since), indent=1) + "\n", "utf-8")
    return 1 if any(one.faults for one in kills) else 0


def summary(kills: Sequence[Kill], seed: int, since: float) -> dict[str, Any]:
    """Counts by command and manner."""
    return {
        "seed": seed,
        "kills": len(kills),
        "seconds": round(time.perf_counter() - since),
        "ended_before_the_kill": sum(one.ended_before for one in kills),
        "commands": dict(Counter(one.command for one in kills)),
        "manners": dict(Counter(one.manner for one in kills)),
        "faults": [asdict(one) for one in kills if one.faults],
        "moments": [asdict(one) for one in kills],
        **environment(),
    }


if __name__ == "__main__":
    sys.exit(main())
