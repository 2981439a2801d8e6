"""Weights from elsewhere: torchvision's published ones, a checkpoint's, a finished run's or an
export's."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as zoo

from redense.recipes.images import models

_PREFIXES = ("", "model.", "module.", "_orig_mod.")  # a run of ours, DataParallel, torch.compile


def start_from(network: nn.Module, name: str, source: str) -> None:
    """Load ``pretrained`` weights or those of a file into the network called ``name``.

    Raises:
        FileNotFoundError: no such file, or torchvision's weights are not in the local cache;
            nothing is downloaded. ValueError: keys or shapes are not the network's; the first few
            of each are listed.
    """
    file = published(name) if source == "pretrained" else Path(source)
    load_exactly(network, read_weights(file), f"{file}", name)
    if source == "pretrained" and hasattr(network, "transform_input"):
        network.transform_input = (
            True  # torchvision's GoogLeNet and Inception weights expect pixels in [-1, 1]
        )


def published(name: str) -> Path:
    """The file of torchvision's weights in the hub's cache: the classical recipe's (V1) where there
    are several."""
    if name not in zoo.list_models(zoo):
        raise ValueError(
            f"torchvision publishes no weights of {name}; it does of resnet50 and others"
        )
    kinds = zoo.get_model_weights(name)
    weights = getattr(kinds, "IMAGENET1K_V1", next(iter(kinds)))
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not file.is_file():
        raise FileNotFoundError(
            f"torchvision's weights of {name} are not in {file}; put {weights.url} there, or name "
            "a file that has them"
        )
    return file


def read_weights(file: Path) -> dict[str, Tensor]:
    """Tensors by key of a .safetensors, .pt, .pth or .ckpt file; nothing but tensors is ever
    unpickled.

    Raises:
        FileNotFoundError, ValueError: no such file, or none that holds weights.
    """
    if not file.is_file():
        raise FileNotFoundError(f"weights {str(file)!r}: no such file")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} is no whole checkpoint of plain tensors ({reason}); it is not loaded"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"{file} holds no tensors by name")
    return weights


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], source: str, name: str) -> None:
    """Copy ``weights`` in if keys and shapes are the network's own, else list what is not; nothing
    is guessed."""
    own = network.state_dict()
    prefix = max(_PREFIXES, key=lambda p: sum(p + key in weights for key in own))
    missing = [
        key
        for key in own
        if prefix + key not in weights and not key.endswith(".num_batches_tracked")
    ]
    unexpected = [
        key for key in weights if key.removeprefix(prefix) not in own or not key.startswith(prefix)
    ]
    shapes = [
        f"{key} {tuple(weights[prefix + key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if prefix + key in weights and weights[prefix + key].shape != tensor.shape
    ]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        told = "; ".join(
            f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in wrong.items() if keys
        )
        raise ValueError(f"{source} does not fit {name} with its {len(own)} tensors; {told}")
    network.load_state_dict({key: weights.get(prefix + key, tensor) for key, tensor in own.items()})


def restore(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(trained network, its config) of a finished run's folder or an exported one.

    Raises:
        FileNotFoundError, ValueError: it is neither, or not one of images.
    """
    weights, file = folder / "model.safetensors", folder / "network.json"
    file = file if file.is_file() else folder / "config.json"
    if not weights.is_file() or not file.is_file():
        raise FileNotFoundError(
            f"{folder} is neither a finished run nor an export: it needs model.safetensors and "
            "network.json or "
            f"config.json; redense train images --resume {folder} finishes a run"
        )
    config = json.loads(file.read_text("utf-8"))
    if "classes" not in config or "architecture" not in config:
        raise ValueError(
            f"{file} is not of an image network; it needs the keys architecture and classes"
        )
    network = models.build(
        config["architecture"], len(config["classes"]), config["channels"], config["size"]
    )
    load_exactly(network, load_file(weights), str(weights), config["architecture"])
    if config.get("transform_input"):
        network.transform_input = True  # type: ignore[assignment]
    return network.eval(), config


def _few(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
