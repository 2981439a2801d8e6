"""``redense preview``: which weights of a model a sparse phase may hold, before any training."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redense.cli.flags import Parser, add_flag, parse

LIBRARIES = ("torchvision", "timm", "transformers")


def preview_command(arguments: list[str]) -> int:
    """Show what may be held of a model, what not and why."""
    parser = Parser("redense preview", "Which weights of a model a sparse phase may hold, and why.")
    parser.add_argument(
        "model",
        help="resnet50 (torchvision, timm), a Hugging Face name or a checkpoint folder with its "
        "config.json; timm:resnet50 where two libraries have one",
    )
    add_flag(parser, "include", str, "", "patterns that replace the default choice, with commas")
    add_flag(parser, "exclude", str, "", "patterns that are left out, with commas")
    add_flag(parser, "plan", Path | None, None, "a plan file: what each of its phases would hold")
    asked = parse(parser, arguments)
    from redense.masks import check_choosable
    from redense.prunable import prunable
    from redense.recipes.schedule import read_plan

    plan = None if asked.plan is None else read_plan(asked.plan)
    model = _build(asked.model)
    weights = prunable(model, _listed(asked.include), _listed(asked.exclude))
    if plan is None:
        print(weights)
        return 0
    for phase in plan:
        check_choosable(weights, phase.sparsity, phase.mask)
    print(f"{weights.preview(plan)}\n\n{plan}")
    return 0


def _listed(text: str) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text else None


def _build(name: str) -> Any:
    """The named model; a table needs names and shapes only."""
    library, colon, rest = name.partition(":")
    asked = [library] if colon and library in LIBRARIES else LIBRARIES
    name = rest if colon and library in LIBRARIES else name
    tried = []
    for library in asked:
        if find_spec(library) is None:
            tried.append(f"{library} is not installed")
            continue
        model = _without_memory(_FROM[library], name)
        if model is not None:
            return model
        tried.append(f"{library} has none")
    if Path(name).is_file():
        raise ValueError(
            f"{name} holds tensors but no layers, whose kinds decide what may be held; name the "
            "model or a Hugging Face folder, or print(redense.prunable(model)) in Python"
        )
    raise ValueError(f"there is no model {name!r}: {', '.join(tried)}")


def _without_memory(build: Callable[[str], Any], name: str) -> Any:
    """A model whose weights have no values, or a whole one if its widths are computed by torch
    (RegNet)."""
    import torch

    try:
        with torch.device("meta"):
            return build(name)
    except NotImplementedError:
        return build(name)


def _from_torchvision(name: str) -> Any:
    models = import_module("torchvision.models")
    return models.get_model(name, weights=None) if name in models.list_models() else None


def _from_timm(name: str) -> Any:
    timm = import_module("timm")
    return timm.create_model(name) if timm.is_model(name) else None


def _from_transformers(name: str) -> Any:
    """The class that the config names, which may have a head; of a bare config the plain model."""
    transformers = import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError):
        return None
    named = (config.architectures or [None])[0]
    if named is not None and hasattr(transformers, named):
        return getattr(transformers, named)(config)
    return transformers.AutoModel.from_config(config)


_FROM = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "transformers": _from_transformers,
}
