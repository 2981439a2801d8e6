"""Networks by name, and back from what a run or an export keeps of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from redense.files.weights import load_exactly, read_weights
from redense.recipes.speech.models import deepspeech1, deepspeech2

NETWORKS: Mapping[str, Any] = {
    "small": deepspeech2,
    "deepspeech1": deepspeech1,
    "deepspeech2": deepspeech2,
}
"""What builds a network of `redense.recipes.speech.options.SIZES`."""


def build(config: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a task's `config()`."""
    make = NETWORKS[config["architecture"]]
    network: nn.Module = make(config["bins"], len(config["alphabet"]) + 1, **config["sizes"])
    return network


def restore(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(trained network, its config) of a finished run's folder or an exported one.

    Raises:
        FileNotFoundError, ValueError: it is neither, or not one of speech.
    """
    weights = folder / "model.safetensors"
    file = folder / "network.json"
    if not file.is_file():
        file = folder / "config.json"
    if not weights.is_file() or not file.is_file():
        raise FileNotFoundError(
            f"{folder} is neither a finished run nor an export: it needs model.safetensors and "
            "network.json or "
            f"config.json; redense train speech --resume {folder} finishes a run"
        )
    config = json.loads(file.read_text("utf-8"))
    if config.get("architecture") not in NETWORKS or "alphabet" not in config:
        raise ValueError(
            f"{file} is not of a speech network: architecture {config.get('architecture')!r}"
        )
    network = build(config)
    load_exactly(network, read_weights(weights), str(weights), config["architecture"])
    return network.eval(), config
