"""A trained network as it is kept, in the folder of a run or of an export; the one way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from redense.files.records import read_record
from redense.files.typed import Kind, read_json, short
from redense.files.weights import check_exactly, load_exactly, read_weights
from redense.recipes import RECIPES
from redense.recipes.hub import local
from redense.runs.folder import RunFolder
from redense.runs.weights import weights_sha256


class Config(TypedDict, total=False):
    """config.json of a run or an export, as far as it says which of them it is."""

    recipe: str
    plan: list[Any]
    weights_sha256: str | None


_WEIGHTS = "model.safetensors"
_CONFIG = Kind(Config, "config of a run or an export", "restore it from where it came")


class TrainedNetwork(nn.Module):
    """How `load` gives a network: as its architecture has it, and with these beside."""

    config: dict[str, Any]
    """What rebuilds it."""
    classes: tuple[str, ...]
    """Of pictures; empty for a network that says words."""
    preprocess: Callable[[Any], Any]
    """From a file, or several, or what is in memory, to the network's input."""
    predict: Callable[[Any], list[Any]]
    """From the same to an answer for each."""


def load(folder: str | Path) -> TrainedNetwork:
    """The trained network of a run, of an export, or of Hugging Face's hub (``owner/name``), in
    evaluation mode, which knows what to do with files.

    >>> network = redense.load("hub")  # or "ada/colours"
    >>> network.classes
    ('blue', 'green', 'red')

    ``network.predict("photo.png")`` is ``[{"red": 0.71, "blue": 0.2, ...}]`` of a classifier,
    ``["a red square"]`` of a captioner, and ``network.predict("speech.wav")`` is ``["hello"]``.

    Raises:
        FileNotFoundError, ValueError: it is none of them, or damaged.
    """
    path = local(folder)
    plain, config = restore(path)
    user = RECIPES[config["recipe"]].user(plain, config, path)
    network = cast("TrainedNetwork", plain)
    network.config, network.classes = config, tuple(config.get("classes", ()))
    network.preprocess, network.predict = user.preprocess, user.predict
    return network


def restore(folder: Path, recipe: str = "") -> tuple[nn.Module, dict[str, Any]]:
    """(trained network, what rebuilds it) of a run or an export.

    >>> network, config = restore(Path("hub"))
    >>> config["classes"]
    ['blue', 'green', 'red']

    Of a run that is not finished the newest checkpoint counts.

    Args:
        recipe: the only one whose networks are taken; default any.

    Raises:
        FileNotFoundError, ValueError: it is neither, or of another recipe, or damaged: which file,
            and what is wrong with it.
    """
    kind, file = _description(folder)
    if recipe not in ("", kind):
        raise ValueError(f"{folder} holds a network of {kind}, not of {recipe}")
    config = read_json(file, RECIPES[kind].description())
    source, weights = _weights(folder)
    name = str(config["architecture"])
    try:
        with torch.device("meta"):  # nothing is allocated before the weights are known to fit
            planned = RECIPES[kind].network(config).state_dict()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{file} describes no network: {error}; restore it from where it came"
        ) from error
    check_exactly(planned, weights, str(source), f"{name} of {file.name}")
    network = RECIPES[kind].network(config)
    load_exactly(network, weights, str(source), name)
    if source.name == _WEIGHTS:
        _check_sum(folder, source, {key: weights[key] for key in planned if key in weights})
    known = {name: value for name, value in config.items() if name != "weights_sha256"}
    return network.eval(), {"recipe": kind, **known}


def recipe_of(folder: Path) -> str:
    """The name of the recipe that trained the network of a run or an export."""
    return _description(folder)[0]


def described(file: Path) -> dict[str, Any] | None:
    """What rebuilds the network of a file of weights, where that lies in a run's folder or an
    export's; None of any other file.

    >>> described(Path("run/checkpoints/dense.ckpt"))["architecture"]
    'small'
    """
    folder = file.absolute().parent
    try:
        kind, description = _description(folder.parent if folder.name == "checkpoints" else folder)
    except (FileNotFoundError, ValueError):
        return None
    return {"recipe": kind, **read_json(description, RECIPES[kind].description())}


def _description(folder: Path) -> tuple[str, Path]:
    """(recipe, the file that says what the network is)."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; it takes a run, or what redense export wrote of one"
        )
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} is neither a run nor an export: it has no config.json; redense train makes "
            "runs, redense export needs one"
        )
    content = read_json(file, _CONFIG)
    if "plan" not in content:
        if content.get("recipe") not in RECIPES:
            raise ValueError(
                f"{file} is not of an export: recipe is {content.get('recipe')!r}, known are "
                f"{', '.join(RECIPES)}"
            )
        return content["recipe"], file
    run = RunFolder(folder)
    recipe, file = run.config.recipe, folder / "network.json"
    if not recipe:
        raise ValueError(
            f"{folder} was trained by your function {run.config.function}, which alone can build "
            "its network; its weights are in model.safetensors"
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no network.json, which a training leaves at its start; copy the folder "
            f"whole, or redense train {recipe} --resume {quote(str(folder))} goes on"
        )
    return recipe, file


def _weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    file = folder / _WEIGHTS
    if file.is_file():
        return file, read_weights(file)
    finished, begun = (folder / "record.json").exists(), (folder / "checkpoints").is_dir()
    newest = RunFolder(folder).newest() if begun and not finished else None
    if newest is None:
        raise FileNotFoundError(f"{file}: no such file; copy the folder whole")
    file, content = newest
    of_network = {
        name: value for name, value in content["state_dict"].items() if name.startswith("model.")
    }
    return file, of_network


def _check_sum(folder: Path, file: Path, weights: Mapping[str, Tensor]) -> None:
    """Whether the file's weights, in the network's order and as precise as they were trained, are
    those that the run ended with, where a record or an export says which: the format itself has no
    checksum."""
    record, export = folder / "record.json", folder / "config.json"
    if record.is_file():
        said_in, wanted = record, read_record(record)["weights_sha256"]
    else:
        said_in, wanted = export, read_json(export, _CONFIG).get("weights_sha256")
    found = weights_sha256(weights)
    if wanted not in (None, found):
        raise ValueError(
            f"{file} is not what the training ended with: its weights_sha256 is {found}, and "
            f"{said_in.name} says {short(wanted)}; copy the folder again"
        )
