"""The picture of how the smallest weights are found, from a shipped network's largest layer:
``python -m benchmarks.selection`` writes docs/selection.svg."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from redense.tensors import selection
from redense.tensors.keys import magnitude_keys

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/selection.svg"
LAYER = "hidden.weight"
SPARSITY = 0.3
BLUE, GREY, RED = "#1b6ca8", "#999999", "#c0392b"


def picture(weight: Tensor, path: Path) -> None:
    """Above all magnitudes with the sample's bracket, below that bracket with its steps."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "redense"  # the same bytes each time
    from matplotlib import pyplot as plt

    keys = magnitude_keys(weight)
    held = round(SPARSITY * keys.numel)
    low, high, _ = selection._bracket([keys], held, keys.numel)
    grid = selection._Grid.over(low, high, 1.0)
    steps = [_magnitude(grid.first_key(selection._FIRST + n)) for n in range(128)]
    magnitudes = weight.abs().flatten().sort().values
    threshold = float(magnitudes[held - 1])

    figure, (whole, near) = plt.subplots(2, 1, figsize=(8, 5), layout="constrained")
    edges = torch.linspace(0, float(magnitudes[int(0.995 * len(magnitudes))]), 121).tolist()
    _bars(whole, magnitudes, edges, threshold)
    whole.axvspan(_magnitude(low), _magnitude(high), color=RED, alpha=0.3, lw=0)
    whole.set_title(
        f"{keys.numel:,} weights: a sample of 8,192 says that the one at {SPARSITY:.0%} lies "
        "in red",
        loc="left",
        fontsize=10,
    )
    shown = [step for step in steps if _magnitude(low) <= step <= _magnitude(high)]
    _bars(near, magnitudes, shown, threshold)
    inside = sum(shown[0] <= value < shown[-1] for value in magnitudes.tolist())
    (step,) = (n for n in range(len(shown) - 1) if shown[n] <= threshold < shown[n + 1])
    near.axvspan(shown[step], shown[step + 1], color=RED, alpha=0.3, lw=0)
    near.set_title(
        f"the red part in {len(shown) - 1} steps ({inside:,} weights): counting finds the step, "
        "and only its weights are ranked",
        loc="left",
        fontsize=10,
    )
    near.set_xlabel(f"|w| of {LAYER}; grey is held at zero, blue is kept")
    for axes in (whole, near):
        axes.set_ylabel("weights")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bars(axes: Any, magnitudes: Tensor, edges: list[float], threshold: float) -> None:
    counts = torch.histogram(magnitudes, torch.tensor(edges)).hist.tolist()
    colours = [GREY if edge < threshold else BLUE for edge in edges[:-1]]
    widths = [right - left for left, right in pairwise(edges)]
    axes.bar(edges[:-1], counts, widths, align="edge", color=colours)
    axes.set_xlim(edges[0], edges[-1])


def _magnitude(key: int) -> float:
    """A float's bits without the sign are its key."""
    return float(torch.tensor(key, dtype=torch.int32).view(torch.float32))


if __name__ == "__main__":
    picture(load_file(ROOT / "models/fashion-mnist-dsd/model.safetensors")[LAYER], OUT)
