"""Write a finished run's network as a plain dense checkpoint with a model card."""

from __future__ import annotations

import json
from pathlib import Path

from redense.files.records import read_record
from redense.files.typed import TABLE, read_json
from redense.recipes.card import model_card
from redense.recipes.trained import restore
from redense.runs.checkpoints import copy_apart, make_folder, write_text
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
    record = read_record(run.record)
    card = model_card(record, config, str(folder))
    config = {**config, "weights_sha256": record["weights_sha256"]}
    weights = [run.path / name for name in WEIGHTS if (run.path / name).is_file()]
    _check_target(folder)
    make_folder(folder, "an export", instead="another folder")
    for file in weights:
        copy_apart(file, folder / file.name)
    write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
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
        config = read_json(folder / "config.json", TABLE)
    except (OSError, ValueError):
        return False
    return {"recipe", "architecture"} <= config.keys()
