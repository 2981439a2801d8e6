"""Run the measurements, each in its own process; print one table and write a JSON record a
measurement."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .plot import plot_growth

STEPS = {
    "VGG-16, batch 4 at 64 px": 4,
    "3 x Linear(4096), batch 32": 6,
    "ResNet-50, batch 8 at 112 px": 5,
}
"""Workloads and their rounds: fewer where a step takes about a second."""
PARTS = ("steps", "hooks", "masks", "growth", "memory", "compiled", "sharded", "peers")

Row = tuple[str, str, str, str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write ``<out>/<part>.json`` and docs/growth.svg (of a quick measurement beside its
    record), print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes and few rounds: does it run, under 2 minutes",
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=PARTS, help=f"of {','.join(PARTS)}"
    )
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument(
        "--peers", type=Path, help="the Python of an environment with fasterai, nncf and torchao"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for part in options.only:
        start = time.monotonic()
        runs: list[dict[str, Any]] = []
        for run in _run(part, options.quick, options.peers):
            runs.append(
                run
            )  # written as they come: some take minutes, and Ctrl-C then loses one at most
            record = {"part": part, "quick": options.quick, "runs": runs}
            (options.out / f"{part}.json").write_text(json.dumps(record, indent=1) + "\n")
            rows += (found := list(ROWS[part](run)))
            print(table(found), file=sys.stderr, flush=True)
        if part == "growth":
            plot_growth(runs, (options.out if options.quick else Path("docs")) / "growth.svg")
        print(f"{part}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    machine = runs[0]["machine"]
    print(
        f"\n{machine['processor']}, {machine['cores']} cores, {machine['capability']}, "
        f"torch {machine['torch']}, Python {machine['python']}, redense {machine['redense']} at "
        f"{machine['commit']}\n"
    )
    print(table([("what", "who", "median", "quartiles", "against"), *rows]))


def _run(part: str, quick: bool, peers: Path | None) -> Iterator[dict[str, Any]]:
    small = "3 x Linear(512), batch 32"
    models = [small] if quick else list(STEPS)
    if part == "steps":
        for model in models:
            for optimizer in ("SGD", "AdamW"):
                for threads in (1, 2):
                    rounds = 3 if quick else STEPS[model]
                    yield _child(threads, "steps", model, optimizer, "--rounds", str(rounds))
    elif part == "hooks":
        for model in (*models, "transformer, 300 matrices"):
            for threads in (1, 2):
                rounds = "3" if quick else "7"
                yield _child(threads, "hooks", model, "SGD", "--rounds", rounds)
    elif part == "masks":
        for threads in (1, 2):
            yield _child(
                threads,
                "masks",
                "choose",
                "--workload",
                models[0],
                "--slow-rounds",
                "3" if threads == 1 else "1",
            )
    elif part == "growth":
        sizes = [10 ** (power / 2) for power in range(10, 15 if quick else 19)]
        listed = ",".join(str(int(size)) for size in sizes)
        for threads in (1, 2, 4, 8, 16):
            if threads == 1 or threads <= (os.cpu_count() or 1):
                yield _child(threads, "masks", "grow", "--sizes", listed)
    elif part == "memory":
        yield _child(1, "masks", "hold", "--workload", models[0])
    elif part == "compiled":
        yield from _child(1, "compiled", "--backend", "aot_eager" if quick else "inductor")
    elif part == "sharded":
        yield _child(1, "sharded", "--sizes", "1e5,1e6" if quick else "1e5,1e6,1e7")
    elif part == "peers":
        for peer in ("fasterai", "NNCF", "torchao PAT"):
            for model in [small] if quick else list(STEPS)[1:]:
                yield _child(1, "peers", model, "SGD", peer, python=peers or Path(sys.executable))
    else:
        raise ValueError(f"--only takes {', '.join(PARTS)}, got {part!r}")


def _child(threads: int, module: str, *arguments: str, python: Path = Path(sys.executable)) -> Any:
    """What a measurement printed; waiting threads sleep, since on busy cores spinning ones slow
    everything down."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [str(python), "-W", "ignore", "-m", f"benchmarks.{module}", *arguments]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# rows of the table


def _ratios(run: Mapping[str, Any]) -> Iterator[Row]:
    what = f"step, {run['workload']}, {run['optimizer']}, {run['threads']} thr."
    for name, row in run["contenders"].items():
        yield (
            what,
            name,
            _ms(row["seconds"]),
            _range(row["seconds"]),
            f"{row['ratio']['median']:.3f} x dense",
        )


def _hook_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    what = f"hooks, {run['workload']}, {run['threads']} thr."
    for name, taken in run["seconds"].items():
        against = "" if name == "neg_" else f"{run['ratio']['median']:.2f} x neg_"
        yield (what, name, _ms(taken), _range(taken), against)


def _peer_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    if "not_run" in run:
        yield (
            f"step, {run['workload']}, {run['optimizer']}",
            run["peer"],
            "not run",
            "",
            run["not_run"][:60],
        )
    else:
        yield from _ratios(run)


def _mask_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    what = (
        f"masks, {run['workload'].split(',')[0]}, {run['weights'] / 1e6:.0f} M, "
        f"{run['threads']} thr."
    )
    ours = {
        "torch l1_unstructured": run["rows"]["redense layerwise"]["seconds"]["median"],
        "torch global_unstructured": run["rows"]["redense global"]["seconds"]["median"],
    }
    read = run["rows"]["w.sum(), one read"]["seconds"]["median"]
    for name, row in run["rows"].items():
        taken = row["seconds"]["median"]
        against = (
            f"{taken / ours[name]:.1f} x ours" if name in ours else f"{taken / read:.1f} reads"
        )
        yield (
            what,
            name,
            _ms(row["seconds"]),
            _range(row["seconds"]),
            f"{against}, {row['peak_bytes_a_weight']:.2f} B/w",
        )


def _growth_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    for point in run["points"]:
        what = f"one mask, {point['weights']:,} weights, {run['threads']} thr."
        if "not_run" in point:
            yield (what, "redense", "not run", "", point["not_run"])
        else:
            each = point["seconds"]["median"] / point["weights"] * 1e9
            exact = "exact" if point["exact"] else "NOT EXACT"
            against = f"{each:.2f} ns/w, {point['peak_bytes_a_weight']:.2f} B/w, {exact}"
            yield (what, "redense", _ms(point["seconds"]), _range(point["seconds"]), against)


def _memory_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    for key in ("masks", "peak_building", "grown_held", "grown_released"):
        yield (f"memory, {run['workload']}", key, f"{run[key]:.3f} B/w", "", "over the dense model")


def _compiled_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    for phase in run["phases"]:
        counts = ", ".join(
            f"{phase[key]} {key}" for key in ("graphs", "graph_breaks", "recompiled")
        )
        yield (f"compiled {run['what']}, {run['backend']}", phase["phase"], "", "", counts)


def _sharded_rows(run: Mapping[str, Any]) -> Iterator[Row]:
    for row in run["rows"]:
        what = f"sharded, {run['ranks']} ranks, {row['weight_bytes']:,} B of weights"
        yield (
            what,
            row["kind"],
            f"{row['sent_bytes']:,} B",
            "",
            f"sent by a rank, {row['collectives']} collectives",
        )


ROWS = {
    "steps": _ratios,
    "hooks": _hook_rows,
    "masks": _mask_rows,
    "growth": _growth_rows,
    "memory": _memory_rows,
    "compiled": _compiled_rows,
    "sharded": _sharded_rows,
    "peers": _peer_rows,
}


def _ms(timing: Mapping[str, float]) -> str:
    return f"{timing['median'] * 1e3:.1f} ms"


def _range(timing: Mapping[str, float]) -> str:
    return f"{timing['quartile1'] * 1e3:.1f}-{timing['quartile3'] * 1e3:.1f} (n={timing['n']})"


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
