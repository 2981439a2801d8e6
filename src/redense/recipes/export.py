"""Write a finished run's network as a plain dense checkpoint with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from redense.files.records import read_record
from redense.files.weights import load_exactly, read_weights
from redense.plan import Plan
from redense.recipes import RECIPES, build_task
from redense.runs.checkpoints import write_text, write_whole
from redense.runs.folder import RunFolder


def export(run_path: Path, folder: Path) -> list[Path]:
    """Write ``model.safetensors`` with the architecture's ordinary keys, ``config.json`` and a
    model card.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
    """
    run = RunFolder(run_path)
    if not run.record.exists():
        raise FileNotFoundError(
            f"{run_path} is not finished, it has no record.json; "
            f"redense train {run.config.recipe} --resume {run_path} goes on"
        )
    record = read_record(run.record)
    plan = Plan.from_records(record["plan"])
    config = build_task(run.config).config()
    files = [folder / "model.safetensors", folder / "config.json", folder / "README.md"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write to {folder}: {error.strerror}; choose another folder"
        ) from error
    write_whole(files[0], lambda partial: shutil.copyfile(run.model, partial))
    for extra in run.path.glob(
        "cnn.safetensors"
    ):  # the captions' CNN, which stands beside the network
        write_whole(
            folder / extra.name, lambda partial, extra=extra: shutil.copyfile(extra, partial)
        )
        files.append(folder / extra.name)
    write_text(files[1], json.dumps({"recipe": record["recipe"], **config}, indent=2) + "\n")
    write_text(files[2], model_card(record, plan))
    return files


def load(folder: str | Path) -> nn.Module:
    """The trained network of a folder that `export` wrote, in evaluation mode.

    >>> network = redense.load("hub/")

    Raises:
        FileNotFoundError, ValueError: no such folder, or not an export.
    """
    file = Path(folder) / "config.json"
    if not file.is_file() or not (Path(folder) / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{folder} needs config.json and model.safetensors; redense export makes them"
        )
    config = json.loads(file.read_text("utf-8"))
    if (recipe := config.get("recipe")) == "captions":
        from redense.recipes.captions.models import NeuralTalk

        network: nn.Module = NeuralTalk(
            len(config["vocabulary"]) + 1, config["features"], config["hidden"]
        )
        weights = file.with_name("model.safetensors")
        load_exactly(network, read_weights(weights), str(weights), "neuraltalk")
        return network.eval()
    if recipe == "images":
        from redense.recipes.images.weights import restore
    elif recipe == "speech":
        from redense.recipes.speech.networks import restore
    else:
        raise ValueError(
            f"{file} is not of an export: recipe is {recipe!r}, known are {', '.join(RECIPES)}"
        )
    return restore(Path(folder))[0]


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
