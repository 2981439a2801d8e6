"""One tensor of more than 2^31 weights: its mask is exact, packed, unpacked and applied.

    python -m benchmarks.huge

Every row is the same memory, so that only masks and bits take any: less than 6 GB. Not a matter of
speed, and too large for the tests; written to results/bench/huge.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from redense import magnitude_mask
from redense.tensors.packing import pack, unpack
from redense.tensors.zeroing import zero_pruned_

from .measure import available, machine, peak

ROWS, COLUMNS = (1 << 11) + 1, 1 << 20
SPARSITY = 0.3
NEEDED = 7 << 30


def main() -> None:
    """Measure and write the record."""
    if available() < NEEDED:
        raise SystemExit(f"needs {NEEDED >> 30} GB of free memory, there are {available() >> 30}")
    torch.set_num_threads(1)
    steps: dict[str, Any] = {}

    def step(name: str, function: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        result, grown = peak(function)
        steps[name] = {"seconds": time.perf_counter() - start, "peak_bytes": grown}
        print(name, steps[name], flush=True)
        return cast("Tensor", result)

    row = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(0)).float() + 1
    weight = row.expand(ROWS, COLUMNS)
    mask = step("choose", lambda: magnitude_mask(weight, SPARSITY))
    pruned = round(SPARSITY * weight.numel())
    exact = _zeros(mask) == pruned and _as_sorted(mask, row, pruned)
    packed = step("pack", lambda: pack(mask))
    same = torch.equal(step("unpack", lambda: unpack(packed, mask)), mask)
    ones = torch.ones(ROWS, COLUMNS, dtype=torch.int8)
    step("zero", lambda: zero_pruned_(ones, mask))
    zeroed = torch.equal(ones.view(torch.bool), mask)
    record = {
        "weights": weight.numel(),
        "sparsity": SPARSITY,
        "pruned": pruned,
        "exact count, ties to the lower index": exact,
        "packed and unpacked to the same mask": same,
        "zeroed where the mask says": zeroed,
        "steps": steps,
        "machine": machine(),
    }
    Path("results/bench/huge.json").write_text(json.dumps(record, indent=1) + "\n")
    if not (exact and same and zeroed):
        raise SystemExit(json.dumps(record, indent=1))


def _zeros(mask: Tensor) -> int:
    return sum(row.numel() - int(row.count_nonzero()) for row in mask)


def _as_sorted(mask: Tensor, row: Tensor, pruned: int) -> bool:
    """Whether the mask is what sorting says: equal columns go whole, one of them down to a row."""
    order = row.argsort()
    whole, rest = divmod(pruned, ROWS)
    expected = torch.ones(COLUMNS, dtype=torch.bool)
    expected[order[:whole]] = False
    for number, found in enumerate(mask):
        expected[order[whole]] = number >= rest
        if not torch.equal(found, expected):
            return False
    return True


if __name__ == "__main__":
    main()
