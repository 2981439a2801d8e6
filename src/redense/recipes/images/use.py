"""What a user does with a trained network: the class of a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from redense.files.pictures import Source, middle, read_picture
from redense.recipes.images import models
from redense.recipes.images.folders import Files, StreamedData, resized
from redense.recipes.images.streams import Collate, crops
from redense.recipes.inputs import answering, as_list

_AT_ONCE = 64


@dataclass(frozen=True)
class Classifier:
    """A trained network and the pictures that it expects.

    >>> from PIL import Image
    >>> network = redense.load("hub")  # has its methods
    >>> network.preprocess(Image.new("RGB", (64, 48))).shape
    torch.Size([1, 3, 8, 8])
    """

    network: nn.Module
    config: Mapping[str, Any]
    folder: Path

    def preprocess(self, pictures: Source | Sequence[Source]) -> Tensor:
        """Pixels (B, channels, size, size) of files or PIL images: as in evaluation, a centre crop,
        normalised."""
        expected = seen_by(self.config)
        cropped = crops(expected, "centre")
        mode = "L" if expected.channels == 1 else "RGB"
        items: list[tuple[Tensor, int] | str] = []
        for picture in as_list(pictures):
            whole = read_picture(picture, mode, upright=expected.upright)
            seen = np.array(cropped(middle(whole)))
            items.append((torch.from_numpy(seen).view(*seen.shape[:2], -1), 0))
        pixels, _ = cast("tuple[Tensor, Tensor]", Collate(expected)(items))
        return pixels

    def predict(self, pictures: Source | Sequence[Source], top: int = 5) -> list[dict[str, float]]:
        """The likeliest classes of each picture with their shares (softmax), the first one first:
        ``[{"cat": 0.91, "dog": 0.06}]``."""
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        listed, classes = as_list(pictures), self.config["classes"]
        device = next(self.network.parameters()).device
        answers = []
        for start in range(0, len(listed), _AT_ONCE):
            pixels = self.preprocess(listed[start : start + _AT_ONCE]).to(device)
            with answering(self.network):
                logits, _ = models.logits_and_auxiliary(self.network(pixels))
            shares, numbers = logits.softmax(1).cpu().topk(min(top, len(classes)))
            for row, chosen in zip(shares.tolist(), numbers.tolist(), strict=True):
                named = [classes[number] for number in chosen]
                answers.append(dict(zip(named, row, strict=True)))
        return answers


def seen_by(config: Mapping[str, Any], size: int | None = None) -> StreamedData:
    """What evaluation does to pictures for the network of this config."""
    none, side = Files(()), size or config["size"]
    resize = config["resize"] if side == config["size"] else resized(side)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return StreamedData(
        "",
        tuple(config["classes"]),
        none,
        none,
        none,
        side,
        resize,
        mean,
        std,
        config["channels"],
        config.get("upright", True),  # an older run's are
    )


def example(config: Mapping[str, Any], folder: str) -> str:
    """Lines of Python for the model card: with redense, and without where torchvision has the
    architecture."""
    with_redense = f"""from PIL import Image

import redense

folder = {json.dumps(folder)}
network = redense.load(folder)
picture = Image.new("RGB", (320, 240), "white")  # or the name of a file
print(network.predict(picture))  # [{{class: share}}], the five likeliest
print(network(network.preprocess(picture)).shape)  # an ordinary network: logits
"""
    name = config["architecture"]
    if name in models.SMALL:
        return with_redense
    settings = models.settings(name, len(config["classes"]), config["size"])
    arguments = "".join(f", {key}={value!r}" for key, value in settings.items())
    return f"""{with_redense}
# without redense
from safetensors.torch import load_file
from torchvision.models import get_model

plain = get_model("{name}"{arguments})
plain.load_state_dict(load_file(f"{{folder}}/model.safetensors"))  # strict
"""
