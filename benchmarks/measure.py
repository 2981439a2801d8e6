"""Clocks, memory and the machine: what every measurement here uses and every record carries."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from redense.tensors import zeroing


def seconds(function: Callable[[], Any], device: str = "cpu") -> float:
    """How long one call takes, on a CUDA device until its work is done."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def spread(samples: list[float]) -> dict[str, float]:
    """Median, quartiles and minimum of some timings."""
    low, middle, high = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    )
    return {
        "median": middle,
        "quartile1": low,
        "quartile3": high,
        "min": min(samples),
        "n": len(samples),
    }


def peak(function: Callable[[], Any], device: str = "cpu") -> tuple[Any, int]:
    """What ``function`` returns, and by how many bytes the process (on Linux), or torch's memory on
    a CUDA device, grew at most while it ran."""
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return function(), torch.cuda.max_memory_allocated() - held
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is resident now
    result = function()
    return result, _status("VmHWM") - before


def resident() -> int:
    """Bytes of memory that this process has now, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def available() -> int:
    """Bytes of memory that the machine could still give."""
    return _kilobytes(Path("/proc/meminfo").read_text(), "MemAvailable")


def machine() -> dict[str, Any]:
    """Processor, versions, commit and how busy the machine is."""
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory": _kilobytes(Path("/proc/meminfo").read_text(), "MemTotal"),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel": zeroing.kernel is not None,
        "redense": _version("redense"),
        "commit": commit.stdout.strip(),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "source"


def _status(field: str) -> int:
    return _kilobytes(Path("/proc/self/status").read_text(), field)


def _kilobytes(table: str, field: str) -> int:
    return next(
        int(line.split()[1]) * 1024 for line in table.splitlines() if line.startswith(field + ":")
    )
