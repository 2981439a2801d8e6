"""Write a finished run's network as a plain dense checkpoint with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redense.files.records import read_record
from redense.plan import Plan
from redense.recipes.trained import restore
from redense.runs.checkpoints import copy_apart, write_text
from redense.runs.folder import RunFolder

WEIGHTS = ("model.safetensors", "cnn.safetensors")
"""Of the network, and of the CNN of captions that stands beside it."""


def export(run_path: Path, folder: Path) -> list[Path]:
    """Write ``model.safetensors`` with the architecture's ordinary keys, ``config.json`` and a
    model card; all that they need lies in the run folder.

    >>> [file.name for file in export(Path("run"), Path("hub"))]
    ['model.safetensors', 'config.json', 'README.md']

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: the run's weights are damaged, or ``folder`` holds what is not an export's.
    """
    run = RunFolder(run_path)
    if not run.record.exists():
        raise FileNotFoundError(
            f"{run_path} is not finished, it has no record.json; "
            f"redense train {run.config.recipe} --resume {run_path} goes on"
        )
    _, config = restore(run.path)
    own = {"recipe": run.config.recipe, **config}
    record = read_record(run.record)
    card = model_card(record, Plan.from_records(record["plan"]))
    weights = [run.path / name for name in WEIGHTS if (run.path / name).is_file()]
    _check_target(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to {folder}: {error.strerror}; choose another folder"
        ) from error
    for file in weights:
        copy_apart(file, folder / file.name)
    write_text(folder / "config.json", json.dumps(own, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card)
    return [
        folder / name for name in (*(file.name for file in weights), "config.json", "README.md")
    ]


def _check_target(folder: Path) -> None:
    """An export may take the place of an older one, and of nothing else."""
    there = [name for name in (*WEIGHTS, "config.json", "README.md") if (folder / name).exists()]
    if there and not _is_export(folder):
        raise ValueError(
            f"{folder / there[0]} is not of an export and would be overwritten; choose another "
            "folder, or move it away"
        )


def _is_export(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"recipe", "architecture"} <= config.keys()


def model_card(record: dict[str, Any], plan: Plan) -> str:
    """A README for model hubs: what it is, how it was trained, the run's numbers, how to load
    it."""
    metric, data = record["metric"]["name"], record["data"]
    rows = "\n".join(
        f"| {p['name']} | {p['epochs']} | {p['rate']:.3g} | {100 * p['sparsity']:.0f} % | "
        f"{p['train_loss']:.4f} "
        f"| {p['valid']['loss']:.4f} | {p['valid'][metric]:.2f} |"
        for p in record["phases"]
    )
    test = (
        ", ".join(f"{name} {value:.2f}" for name, value in record["test"].items())
        or "no test split"
    )
    network = record["options"].get("model", record["recipe"])
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""---
library_name: pytorch
tags: [dense-sparse-dense, redense]
---
# {network} on {data["name"]}, trained {", ".join(phase.name for phase in plan)}

A dense network: no mask, no wrapper, the architecture's ordinary keys. It was trained by
[Dense-Sparse-Dense training](https://arxiv.org/abs/1607.04381) with redense.

| phase | epochs | rate | sparsity | train loss | validation loss | validation {metric} |
|---|---|---|---|---|---|---|
{rows}

Test, read once after training: {test}. One run, seed {record["seed"]}: it says how good this
network is, not whether the sparse phase is the reason; `redense prove` compares methods at equal
budget.

```python
from safetensors.torch import load_file
model.load_state_dict(load_file("model.safetensors"))  # strict; config.json names the architecture

model = redense.load(".")  # or let redense build it
```

Data: {data["name"]}, {data["sizes"]}, sha256 {data["sha256"]}. Trained in
{record["seconds"]:.0f} s with {versions}, commit {record["commit"]}.
Weights' sha256: {record["weights_sha256"]}.
"""
