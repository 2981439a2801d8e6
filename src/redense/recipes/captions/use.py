"""What a user does with a trained network: what a picture shows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from redense.files.folders import Piped
from redense.files.pictures import Source
from redense.recipes.captions.decoding import beam_search, greedy
from redense.recipes.captions.features import Cnn, extract, kept_cnn, torchvision_cnn
from redense.recipes.captions.models import NeuralTalk
from redense.recipes.captions.word_cnn import word_cnn
from redense.recipes.inputs import answering, as_list
from redense.recipes.trained import restore


@dataclass(frozen=True)
class Captioner:
    """A trained network and the CNN that looks at pictures for it.

    Args:
        cnn_weights: file of the CNN's weights; default as in the run.
    """

    network: NeuralTalk
    config: Mapping[str, Any]
    folder: Path
    cnn_weights: str | None = None

    def preprocess(self, pictures: Source | Sequence[Source]) -> Tensor:
        """Features (N, F) of files or PIL images."""
        listed = as_list(pictures)
        if not listed:
            return torch.zeros(0, self.config["features"])
        features = extract(self.cnn, listed)
        if features.shape[1] != self.config["features"]:
            raise ValueError(
                f"the CNN gives {features.shape[1]} features, the network in {self.folder} reads "
                f"{self.config['features']}"
            )
        return features

    def predict(
        self, pictures: Source | Sequence[Source] | Tensor, beam: int | None = None
    ) -> list[str]:
        """What each picture, or row of features (N, F), shows: ``["a red square"]``."""
        features = pictures if isinstance(pictures, Tensor) else self.preprocess(pictures)
        reads = self.config["features"]
        if features.ndim != 2 or features.shape[1] != reads or not features.isfinite().all():
            raise ValueError(f"features are (N, {reads}) here, finite, got {_said(features)}")
        if not len(features):
            return []
        width = self.config["beam"] if beam is None else beam
        if width < 1:
            raise ValueError(f"beam must be at least 1, got {width}")
        most = self.config["most_words"]
        with answering(self.network):
            if width == 1:
                said = greedy(self.network, features, most)
            else:
                penalty = self.config["length_penalty"]
                said = beam_search(self.network, features, width, penalty, most)
        vocabulary = self.config["vocabulary"]
        return [" ".join(vocabulary[word - 1] for word in words) for words in said]

    @cached_property
    def cnn(self) -> Cnn:
        """The CNN of the run, its weights beside the network's if they are our own."""
        cnn = self.config["cnn"]
        if cnn is None:
            raise ValueError(
                f"{self.folder} was trained on a file of features, so it has no CNN to look at "
                "images with"
            )
        name, size, weights = cnn["name"], cnn["size"], cnn["weights"]
        upright = cnn.get("upright", True)  # an older run's are
        kept = self.folder / "cnn.safetensors"
        if name == "words":
            kept = Path(self.cnn_weights or kept)
            if not kept.is_file():
                raise FileNotFoundError(
                    f"{kept}: no such file; the run folder has it, --cnn-weights "
                    "RUN/cnn.safetensors"
                )
            return word_cnn(kept, upright)
        if self.cnn_weights is None and kept.is_file():
            return kept_cnn(name, kept, size, weights == "pretrained", upright)
        return torchvision_cnn(name, self.cnn_weights or weights, size, upright)


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}{'' if tensor.isfinite().all() else ' with NaN or infinity'}"


def caption(
    folder: Path,
    images: Iterable[Path | Piped],
    *,
    beam: int | None = None,
    cnn_weights: str | None = None,
) -> Iterator[tuple[Path | Piped, str | Exception]]:
    """(image, what it shows) one after the other; what is wrong with it where it cannot be read.

    Args:
        folder: a run of captions, finished or with its first phase done, or what `redense export`
            made of one. beam: sentences side by side; default as in the run.
        cnn_weights: file of the CNN's weights; default as in the run.

    Raises:
        FileNotFoundError, ValueError: no such network or CNN.
    """
    network, config = restore(folder, "captions")
    captioner = Captioner(cast("NeuralTalk", network), config, folder, cnn_weights)
    captioner.cnn.network.eval()  # what is wrong with it is wrong with every image
    for image in images:
        try:
            yield image, captioner.predict(image, beam)[0]
        except (ValueError, OSError) as error:
            yield image, error


def example(config: Mapping[str, Any], folder: str) -> str:
    """Lines of Python for the model card; a network that was trained on features is shown some."""
    if config["cnn"] is None:
        return f"""import torch

import redense

folder = {json.dumps(folder)}
network = redense.load(folder)
features = torch.zeros(1, {config["features"]})  # of the CNN that the training's features are of
print(network.predict(features))  # a caption per row
"""
    return f"""from PIL import Image

import redense

folder = {json.dumps(folder)}
network = redense.load(folder)
picture = Image.new("RGB", (320, 240), "white")  # or the name of a file
print(network.predict(picture))  # a caption per picture
"""
