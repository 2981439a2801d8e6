"""Write a finished run's network as a plain dense checkpoint with a model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from redense.files.records import read_record
from redense.files.typed import TABLE, read_json
from redense.recipes import RECIPES
from redense.recipes.card import model_card
from redense.recipes.portable import FORMATS, program_of, write_portable
from redense.recipes.trained import restore
from redense.runs.checkpoints import copy_apart, make_folder, write_text
from redense.runs.folder import RunFolder

WEIGHTS = ("model.safetensors", "cnn.safetensors")
"""Of the network, and of the CNN of captions that stands beside it."""
FILES = (
    *WEIGHTS,
    "config.json",
    "README.md",
    *(f"{part}{ending}" for part in ("model", "cnn") for ending in FORMATS.values()),
)
"""All that an export may hold of ours."""


def export(
    run_path: Path, folder: Path, *, formats: Sequence[str] = (), verdict: str = ""
) -> list[Path]:
    """Write ``model.safetensors`` with the architecture's ordinary keys, ``config.json`` and a
    model card; all that they need lies in the run folder.

    >>> [file.name for file in export(Path("run"), Path("hub"), formats=["onnx"])]
    ['model.safetensors', 'config.json', 'README.md', 'model.onnx']

    Args:
        formats: of `redense.recipes.portable.FORMATS`, written beside and checked.
        verdict: of the study that the run is of, for the card.

    Raises:
        FileNotFoundError: no run, or one that is not finished.
        ValueError: the run's weights are damaged, ``folder`` holds what is not an export's, or a
            format cannot hold this network.
        ImportError: a format needs packages that are not there.
    """
    run = RunFolder(run_path)
    if not run.record.exists():
        raise FileNotFoundError(
            f"{run_path} is not finished, it has no record.json; "
            f"redense train {run.config.recipe} --resume {quote(str(run_path))} goes on"
        )
    network, config = restore(run.path)
    record = read_record(run.record)
    parts = RECIPES[config["recipe"]].portable(network, config, run.path) if formats else []
    programs = [program_of(part, form, str(folder)) for form in formats for part in parts]
    card = model_card(record, config, str(folder), programs=programs, verdict=verdict)
    config = {**config, "weights_sha256": record["weights_sha256"]}
    weights = [run.path / name for name in WEIGHTS if (run.path / name).is_file()]
    _check_target(folder)
    make_folder(folder, "an export", instead="another folder")
    for file in weights:
        copy_apart(file, folder / file.name)
    write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card)
    written = [*(file.name for file in weights), "config.json", "README.md"]
    for form in formats:
        written += [write_portable(part, form, folder, config).name for part in parts]
    for name in set(FILES) - set(written):  # of an older export, and no longer this network
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in written]


def _check_target(folder: Path) -> None:
    """An export may take the place of an older one, and of nothing else."""
    there = [name for name in FILES if (folder / name).exists()]
    if there and not is_export(folder):
        raise ValueError(
            f"{folder / there[0]} is not of an export and would be overwritten; choose another "
            "folder, or move it away"
        )


def is_export(folder: Path) -> bool:
    """Whether a folder's config.json is what `export` writes."""
    try:
        config = read_json(folder / "config.json", TABLE)
    except (OSError, ValueError):
        return False
    return {"recipe", "architecture"} <= config.keys()
