"""How good a trained network's captions are, on any captions that training takes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from redense.files.folders import say
from redense.recipes.captions import readers, scores
from redense.recipes.captions.features import read_features
from redense.recipes.captions.models import NeuralTalk
from redense.recipes.captions.use import Captioner
from redense.recipes.inputs import Scores, choose_split
from redense.recipes.trained import restore


def evaluate(network: str, data: str, *, split: str | None = None) -> Scores:
    """BLEU-1 to 4, exact matches and the slower scores of ``data``.

    A network that was trained on a file of features reads those that lie beside the captions.

    Args:
        split: as for `choose_split`.

    Raises:
        FileNotFoundError, ValueError: no such network, data or split, or missing images or
            features.
    """
    folder = Path(network)
    trained, config = restore(folder, "captions")
    captioner = Captioner(cast("NeuralTalk", trained), config, folder)
    found = readers.read(data)
    parts: dict[str, list[readers.Picture]] = {}
    for picture in found.pictures:
        parts.setdefault(picture.split, []).append(picture)
    split = choose_split(parts, split, data)
    pictures = parts[split]
    if config["cnn"] is None and found.features is not None:
        columns = [picture.column for picture in pictures]
        features = read_features(found.features, 1 + max(columns))[columns]
    else:
        readers.check_images(pictures, "put them there, or correct the list")
        features = captioner.preprocess([picture.file for picture in pictures])
    said = captioner.predict(features)
    references = [[" ".join(words) for words in picture.captions] for picture in pictures]
    say(f"{len(pictures)} images of {split}")
    exact = {"exact": scores.exact(said, references)}
    return Scores(scores.bleu(said, references) | exact | scores.more(said, references))
