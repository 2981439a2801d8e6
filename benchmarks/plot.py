"""Pictures of records: growth of time and memory with the number of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_growth(record: Mapping[str, Any], path: Path) -> None:
    """Time and memory of one mask against the tensor's size, both axes logarithmic; a straight line
    is linear."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = [point for point in record["points"] if "not_run" not in point]
    sizes = [point["weights"] for point in points]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, label, color in (
        ("seconds", "a mask", "#1b6ca8"),
        ("read", "one read, w.sum()", "#999999"),
    ):
        middle = [point[key]["median"] for point in points]
        left.loglog(sizes, middle, "o-", color=color, label=label)
        low = [point[key]["quartile1"] for point in points]
        left.fill_between(
            sizes, low, [point[key]["quartile3"] for point in points], color=color, alpha=0.25, lw=0
        )
    left.set(xlabel="fp32 weights in one tensor", ylabel="seconds", title="Time")
    left.legend(frameon=False)
    right.semilogx(sizes, [point["peak_bytes_a_weight"] for point in points], "o-", color="#1b6ca8")
    right.axhline(1, color="#999999", lw=1)
    right.set(
        xlabel="fp32 weights in one tensor",
        ylabel="bytes a weight",
        title="Memory at peak, the mask included",
    )
    right.set_ylim(0, max(2.0, *(point["peak_bytes_a_weight"] * 1.1 for point in points)))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    machine = record["machine"]
    figure.suptitle(
        f"magnitude_mask at 30 %, {machine['processor']}, {record['threads']} thread, torch "
        f"{machine['torch']}",
        fontsize=10,
    )
    figure.savefig(path)
    plt.close(figure)
