"""Networks by name, and back from what a run or an export keeps of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_model
from torch import nn

from redense.recipes.speech.models import deepspeech1, deepspeech2

_PAPER: dict[str, Any] = {"cell": "rnn"}
NETWORKS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "small": (deepspeech2, {"width": 256, "layers": 2, "filters": 8, "stride": 3, "cell": "rnn"}),
    "deepspeech1": (deepspeech1, {**_PAPER, "width": 1024, "stride": 1}),
    "deepspeech2": (
        deepspeech2,
        {**_PAPER, "width": 1760, "layers": 7, "filters": 32, "stride": 2},
    ),
}
"""Name to (function, its arguments' defaults)."""


def build(config: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a task's `config()`."""
    make, _ = NETWORKS[config["architecture"]]
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
    load_model(network, str(weights))
    return network.eval(), config
