"""Pictures of records: growth of time and memory with the number of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#e09f3e", "#6d597a")


def plot_growth(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time and memory of one mask against the tensor's size, both axes logarithmic; a straight line
    is linear. A line for each number of threads."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    first = [point for point in runs[0]["points"] if "not_run" not in point]
    lines = [("read", first, "one read, w.sum(), one thread", "#999999")]
    for run, colour in zip(runs, _COLOURS, strict=False):
        done = [point for point in run["points"] if "not_run" not in point]
        lines.append(("seconds", done, f"a mask, {_threads(run)}", colour))
        right.semilogx(
            [point["weights"] for point in done],
            [point["peak_bytes_a_weight"] for point in done],
            "o-",
            color=colour,
            label=_threads(run),
        )
    for key, points, label, colour in lines:
        sizes = [point["weights"] for point in points]
        middle, low, high = (
            [point[key][of] for point in points] for of in ("median", "quartile1", "quartile3")
        )
        left.loglog(sizes, middle, "o-", color=colour, label=label)
        left.fill_between(sizes, low, high, color=colour, alpha=0.25, lw=0)
    left.set(xlabel="fp32 weights in one tensor", ylabel="seconds", title="Time")
    left.legend(frameon=False)
    right.axhline(1, color="#999999", lw=1)
    right.set(
        xlabel="fp32 weights in one tensor",
        ylabel="bytes a weight",
        title="Memory at peak, the mask included",
    )
    right.set_ylim(0, max(2.0, right.get_ylim()[1]))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    machine = runs[0]["machine"]
    figure.suptitle(
        f"magnitude_mask at 30 %, {machine['processor']}, {machine['cores']} cores, torch "
        f"{machine['torch']}",
        fontsize=10,
    )
    figure.savefig(path)
    plt.close(figure)


def _threads(run: Mapping[str, Any]) -> str:
    return f"{run['threads']} thread{'s' * (run['threads'] > 1)}"
