"""Captions for your own pictures, from a run folder or an exported network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from redense.files.records import read_json
from redense.files.weights import load_exactly, read_weights
from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.features import Cnn, extract, torchvision_cnn
from redense.recipes.captions.models import NeuralTalk
from redense.recipes.captions.word_cnn import word_cnn
from redense.runs.checkpoints import read


def caption(
    folder: Path, images: Sequence[Path], *, beam: int | None = None, cnn_weights: str | None = None
) -> list[str]:
    """Say what each image shows.

    Args:
        folder: a run of captions, finished or with its first phase done, or what `redense export`
            made of one. beam: sentences side by side; default as in the run.
        cnn_weights: file of the CNN's weights; default as in the run.

    Raises:
        FileNotFoundError, ValueError: no such network, CNN or image, or a CNN of another width.
    """
    config, weights = _network(folder)
    if missing := [str(image) for image in images if not image.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} images are missing: {', '.join(missing[:3])}"
        )
    model = NeuralTalk(len(config["vocabulary"]) + 1, config["features"], config["hidden"]).eval()
    load_exactly(model, weights, str(folder), "the network")
    features = extract(_cnn(folder, config, cnn_weights), images)
    if features.shape[1] != config["features"]:
        raise ValueError(
            f"the CNN gives {features.shape[1]} features, the network in {folder} reads "
            f"{config['features']}"
        )
    width, most = beam or config["beam"], config["most_words"]
    if width == 1:
        said = greedy(model, features, most)
    else:
        said = beam_search(model, features, width, config["length_penalty"], most)
    return [" ".join(config["vocabulary"][word - 1] for word in words) for words in said]


def _network(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The network's config and weights."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; it takes a run of captions or an exported one"
        )
    exported = not (folder / "network.json").exists()
    file = folder / ("config.json" if exported else "network.json")
    config: dict[str, Any] = read_json(file) if file.exists() else {}
    if config.get("architecture") != "neuraltalk":
        raise ValueError(
            f"{folder} holds no caption network; it takes a run of captions with at least one "
            "phase done"
        )
    if (folder / "model.safetensors").exists():
        return config, read_weights(folder / "model.safetensors")
    newest = max((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    state = read(newest)["state_dict"]
    return config, {
        name.removeprefix("model."): part
        for name, part in state.items()
        if name.startswith("model.")
    }


def _cnn(folder: Path, config: dict[str, Any], weights: str | None) -> Cnn:
    cnn = config["cnn"]
    if cnn is None:
        raise ValueError(
            f"{folder} was trained on a file of features, so it has no CNN to look at images with"
        )
    if cnn["name"] != "words":
        return torchvision_cnn(cnn["name"], weights or cnn["weights"], cnn["size"])
    file = Path(weights) if weights else folder / "cnn.safetensors"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; the run folder has it, --cnn-weights RUN/cnn.safetensors"
        )
    return word_cnn(file)
