"""The record of a run: everything that a reader needs to believe a number, as one JSON file."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import redense
from redense.plan import Plan
from redense.runs.checkpoints import read
from redense.runs.folder import RunFolder
from redense.tensors.packing import unpack


def environment() -> dict[str, Any]:
    """Commit, versions and hardware of this process."""
    names = ("torch", "torchvision", "lightning", "transformers", "torchmetrics", "numpy")
    installed = [name for name in names if find_spec(name) is not None]
    return {
        "commit": _commit(),
        "versions": {"redense": redense.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in installed},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def masks_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The masks that a run's checkpoint holds, by weight name; empty outside sparse phases."""
    phases = checkpoint["phases"] if "phases" in checkpoint else _lightnings(checkpoint)
    packed = phases.get("masks", {})
    return {name: unpack(bits, checkpoint["state_dict"][name]) for name, bits in packed.items()}


def _lightnings(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scheduler's state in a checkpoint of Lightning's."""
    phases: Mapping[str, Any] = checkpoint["callbacks"].get("DSDCallback", {})
    return phases


def growth(sparse: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, float]:
    """How far the weights that a sparse phase held have grown since: from its checkpoint and a
    later one.

    Returns:
        released: how many weights; mean_released and mean_survivors: mean |w|; moved: share that is
            no longer zero.
    """
    masks = masks_of(sparse)
    weights = {name: end["state_dict"][name].abs().double() for name in masks}
    free = torch.cat([weights[name][~mask] for name, mask in masks.items()])
    kept = torch.cat([weights[name][mask] for name, mask in masks.items()])
    return {
        "released": free.numel(),
        "mean_released": float(free.mean()),
        "mean_survivors": float(kept.mean()),
        "moved": float((free > 0).double().mean()),
    }


def overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, float]:
    """How far two sparse phases hold the same weights, by layer, from their checkpoints.

    Intersection over union of the held weights: 1 the same ones, 0 none in common; two masks of
    sparsities s and t that know nothing of each other meet in s t / (s + t - s t). Layers that only
    one of them holds are left out.
    """
    before, after = masks_of(first), masks_of(second)
    found = {}
    for name in before:
        if name in after and (either := int((~before[name] | ~after[name]).sum())):
            found[name.removeprefix("model.")] = int((~before[name] & ~after[name]).sum()) / either
    return found


def released(run: RunFolder, plan: Plan) -> list[dict[str, Any]]:
    """For each sparse phase with a phase after it: how far the weights it held had grown by that
    one's end."""
    found = []
    for held, free in zip(plan.phases, plan.phases[1:], strict=False):
        if held.sparsity and not free.sparsity:
            grown = growth(read(run.phase_file(held.name)), read(run.phase_file(free.name)))
            found.append({"phase": held.name, "until": free.name, **grown})
    return found


def mask_overlap(run: RunFolder, plan: Plan) -> list[dict[str, Any]]:
    """For each sparse phase with a sparse one after a release: `overlap` of the two by layer."""
    phases, found = plan.phases, []
    held = [index for index, phase in enumerate(phases) if phase.sparsity]
    for one, two in pairwise(held):
        if two - one > 1:
            files = (run.phase_file(phases[index].name) for index in (one, two))
            layers = overlap(*(read(file) for file in files))
            found.append({"phase": phases[one].name, "with": phases[two].name, "layers": layers})
    return found


def _commit() -> str | None:
    where = Path(redense.__file__).parent
    if "site-packages" in where.parts or "dist-packages" in where.parts:
        return None  # an installed copy: whatever repository lies around it is not ours
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=where,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
