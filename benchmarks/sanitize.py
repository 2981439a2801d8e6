"""The C kernel under AddressSanitizer and UBSan on odd tensors: ``python -m benchmarks.sanitize``.

The kernel is compiled with GCC's sanitizers, and a process that they watch zeroes 10,000 tensors of
`benchmarks.odd_tensors`: a byte touched outside of one ends it. Each case is made twice, once for
the door to the kernel and once for plain torch, and all bytes of both, neighbours included, must
come out the same; so must a gradient that the compiled hook zeroes and one that Python's does, and
the mask that the kernel's passes choose of a tensor and the one that plain torch's do. That the
sanitizers watch is shown by a read past a mask's end, which they must catch. Counts go to
results/bench/sanitize.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.odd_tensors import KINDS, Case, Draws
from redense.masks import magnitude_mask
from redense.runs.record import environment
from redense.tensors import codes, selection, zeroing
from redense.tensors.watching import PlainWatch

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results/bench/sanitize.json"
SOURCES = sorted((ROOT / "src/redense/tensors").glob("*.c"))
FLAGS = (
    *("-O2", "-g", "-fno-omit-frame-pointer", "-fopenmp", "-fPIC", "-shared"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
REFUSALS = (RuntimeError, NotImplementedError, ValueError, KeyError, TypeError)

Kernel = Callable[[int, int, int, int, int], None]


def compile_kernel(folder: Path) -> Path:
    """The kernel with sanitizers, in ``folder``."""
    library = folder / "_kernels.so"
    headers = f"-I{sysconfig.get_path('include')}"
    subprocess.run(["gcc", *FLAGS, headers, *map(str, SOURCES), "-o", str(library)], check=True)
    return library


def watch(library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this module in a process that the sanitizers watch, with the kernel of ``library``."""
    first = (_of_gcc("libasan.so"), _of_gcc("libstdc++.so"))
    # Python keeps memory until it ends, and torch frees some by another allocator's call
    unwatched = "detect_leaks=0:alloc_dealloc_mismatch=0"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.sanitize", "--kernel", str(library), *arguments],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": " ".join(first), "ASAN_OPTIONS": unwatched},
        capture_output=True,
        text=True,
        check=False,
    )


def load_module(library: Path) -> Any:
    """A compiled kernel."""
    loader = ExtensionFileLoader("_kernels", str(library))
    spec = spec_from_file_location("_kernels", library, loader=loader)
    if spec is None:
        raise ImportError(f"{library} is no extension module")
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def run_cases(kernel: Kernel, cases: int, seed: int) -> dict[str, Any]:
    """How many cases went which way, and those that came out otherwise than in plain torch."""
    names = list(KINDS)
    kinds: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    differences = []
    for number in range(cases):
        kind = names[number % len(names)]
        torch.set_num_threads(1 + number % 3)
        bytes_, way = zero(KINDS[kind](Draws(seed, number)), kernel)
        wanted, _ = zero(KINDS[kind](Draws(seed, number)), None)
        kinds[kind] += 1
        ways[way] += 1
        if bytes_ != wanted:
            differences.append(f"case {number}, {kind}, {way}")
    return {"kinds": dict(kinds), "ways": dict(ways), "differences": differences}


def run_watches(watch: type[PlainWatch], cases: int, seed: int) -> list[str]:
    """Cases that come out otherwise as a gradient that the compiled Watch zeroes than as one that
    Python does."""
    names = list(KINDS)
    zeroing.kernel = None
    return [
        f"case {number}, {name}, as a gradient"
        for number, name in ((number, names[number % len(names)]) for number in range(cases))
        if as_gradient(KINDS[name](Draws(seed, number)), watch)
        != as_gradient(KINDS[name](Draws(seed, number)), PlainWatch)
    ]


def as_gradient(case: Case, watch: type[PlainWatch]) -> bytes:
    """All bytes after two backward passes that gave this gradient."""

    class Held(watch):  # type: ignore[misc, valid-type]
        def zero_gradient(self, gradient: Tensor) -> None:
            self.kept.zero_(gradient)
            self.trust_gradient(gradient)

    weight: Any = SimpleNamespace(grad=case.tensor)
    try:
        held = Held(weight, zeroing.Kept(case.mask))
        held(weight)
        held(weight)
        said = f"{held.gradient_was_changed()}"
    except REFUSALS:
        said = "refused"
    return b"".join([said.encode(), *map(_bytes_of, case.memory)])


def run_choices(kernel: Any, cases: int, seed: int) -> dict[str, Any]:
    """Masks of how many cases were chosen by the kernel's passes, and which came out otherwise than
    by plain torch's."""
    names = list(KINDS)
    selection._FEW = 1 << 4  # every stage, on small tensors
    chosen = 0
    differences = []
    for number in range(cases):
        name = names[number % len(names)]
        sparsity = (1 + number % 9) / 10
        codes.kernel = kernel
        bytes_ = choice(KINDS[name](Draws(seed, number)), sparsity)
        codes.kernel = None
        wanted = choice(KINDS[name](Draws(seed, number)), sparsity)
        chosen += not wanted.startswith(b"refused")
        if bytes_ != wanted:
            differences.append(f"case {number}, {name}, a mask")
    return {"masks chosen": chosen, "differences": differences}


def choice(case: Case, sparsity: float) -> bytes:
    """All bytes of a case, and those of the mask that is chosen of its tensor."""
    with suppress(*REFUSALS), torch.no_grad():
        case.tensor.detach().nan_to_num_()
    try:
        mask = magnitude_mask(case.tensor, sparsity)
    except REFUSALS:
        return b"refused"
    return b"".join(map(_bytes_of, (mask, *case.memory)))


def zero(case: Case, kernel: Kernel | None) -> tuple[bytes, str]:
    """All bytes afterwards, and which way the tensor went; without a kernel, plain torch's."""
    calls = []

    def counted(*numbers: int) -> None:
        calls.append(numbers)
        if kernel is not None:
            kernel(*numbers)

    zeroing.kernel = None if kernel is None else counted
    try:
        zeroing.zero_pruned_(case.tensor, case.mask)
    except REFUSALS:
        way = "refused"
    else:
        way = "by the kernel" if calls else "by plain torch"
    return b"".join([way[:1].encode(), *map(_bytes_of, case.memory)]), way


def read_past_the_end(kernel: Kernel) -> None:
    """What a faulty door to the kernel would do: one element more than a mask has bits."""
    tensor, bits = torch.ones(65), torch.full((8,), 255, dtype=torch.uint8)
    kernel(tensor.data_ptr(), bits.data_ptr(), 65, 4, 1)


def _bytes_of(memory: Tensor) -> bytes:
    whole = memory.clone(memory_format=torch.contiguous_format)
    return whole.view(-1).view(torch.uint8).numpy().tobytes()


def _of_gcc(name: str) -> str:
    asked = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _watched(library: Path, cases: int, seed: int) -> int:
    """The part that the sanitizers watch."""
    warnings.simplefilter("ignore")  # torch's, of what is odd
    module = load_module(library)
    if cases:
        counts = run_cases(module.zero_by_bits, cases, seed)
        counts["differences"] += run_watches(module.Watch, cases, seed)
        choices = run_choices(module, cases, seed)
        counts["differences"] += choices.pop("differences")
        counts |= choices
        print(json.dumps(counts))
    else:
        read_past_the_end(module.zero_by_bits)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Zero the cases and write their counts; 1 where a sanitizer or a comparison complains."""
    parser = argparse.ArgumentParser(description="The C kernel under sanitizers.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--kernel", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.kernel is not None:
        return _watched(asked.kernel, asked.cases, asked.seed)
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        library = compile_kernel(Path(folder))
        faulty = watch(library, "--cases", "0")
        done = watch(library, "--cases", str(asked.cases), "--seed", str(asked.seed))
    counts = json.loads(done.stdout) if done.returncode == 0 else {}
    record = {
        "cases": asked.cases,
        "seed": asked.seed,
        "seconds": round(time.perf_counter() - since),
        "a read past the end is caught": "heap-buffer-overflow" in faulty.stderr,
        "sanitizers": done.stderr[-3000:],
        **counts,
        "compiler": _version_of_gcc(),
        "flags": " ".join(FLAGS),
        **environment(),
    }
    asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"{asked.cases} cases: {counts.get('ways')} {counts.get('differences')} {done.stderr}")
    caught = record["a read past the end is caught"]
    return 0 if caught and counts and not counts["differences"] and not done.stderr else 1


def _version_of_gcc() -> str:
    said = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
