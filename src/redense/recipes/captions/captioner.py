"""Captions for your own pictures, from a run folder or an exported network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.features import Cnn, extract, torchvision_cnn
from redense.recipes.captions.word_cnn import word_cnn
from redense.recipes.trained import restore


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
    network, config = restore(folder, "captions")
    if missing := [str(image) for image in images if not image.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} images are missing: {', '.join(missing[:3])}"
        )
    features = extract(_cnn(folder, config, cnn_weights), images)
    if features.shape[1] != config["features"]:
        raise ValueError(
            f"the CNN gives {features.shape[1]} features, the network in {folder} reads "
            f"{config['features']}"
        )
    width, most = beam or config["beam"], config["most_words"]
    if width == 1:
        said = greedy(network, features, most)
    else:
        said = beam_search(network, features, width, config["length_penalty"], most)
    return [" ".join(config["vocabulary"][word - 1] for word in words) for words in said]


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
