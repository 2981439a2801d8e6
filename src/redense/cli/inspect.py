"""``redense inspect``: how many zeros each tensor of a checkpoint holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from redense.cli.flags import Parser, add_path, parse

if TYPE_CHECKING:
    from redense.runs.inspection import TensorZeros


def inspect_command(arguments: list[str]) -> int:
    """Show how many zeros each tensor of a checkpoint holds."""
    parser = Parser("redense inspect", "Zeros per tensor of a .pt, .ckpt or .safetensors file.")
    add_path(
        parser, "file", "the checkpoint; a run folder for its newest one; a Hugging Face folder"
    )
    asked = parse(parser, arguments)
    from redense.runs.inspection import inspect

    _print(inspect(asked.file))
    return 0


def _print(tensors: Sequence[TensorZeros]) -> None:
    """One row per tensor, and the total; a terminal folds long names, a pipe gets them whole."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    table.add_column("tensor", overflow="fold")
    for title in ("shape", "dtype", "weights", "zeros", "sparsity"):
        table.add_column(title, justify="right", no_wrap=True)
    for tensor in tensors:
        shape = "x".join(map(str, tensor.shape))
        table.add_row(tensor.name, shape, tensor.dtype, *_counts(tensor.numel, tensor.zeros))
    table.add_section()
    weights = sum(tensor.numel for tensor in tensors)
    zeros = sum(tensor.zeros for tensor in tensors)
    table.add_row("all", "", "", *_counts(weights, zeros))
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def _counts(weights: int, zeros: int) -> tuple[str, str, str]:
    return f"{weights:,}", f"{zeros:,}", f"{100 * zeros / max(weights, 1):.2f} %"
