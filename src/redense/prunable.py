"""Which tensors of a model may be pruned: its weight matrices, and what the paper leaves alone."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

Patterns = str | Sequence[str]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_MATRICES = (_ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def prunable(
    model: nn.Module, include: Patterns | None = None, exclude: Patterns | None = None
) -> dict[str, nn.Parameter]:
    """Name the weights that a sparse phase may hold at zero.

    By default: trainable weight matrices of convolution, linear, bilinear, recurrent and attention
    layers, except the first convolution, as in the paper. Never a bias, a normalisation, an
    embedding or a tensor with fewer than two dimensions. A weight shared by several modules is
    named once; one shared with an embedding is left out.

    Args:
        include: shell patterns over parameter names (``"layer3.*"``, ``"*.weight_hh_l?"``) that
            replace the default choice: every matrix that matches, of any module, the first
            convolution and parameters of your own included.
        exclude: patterns that are left out after that.

    Raises:
        ValueError: a pattern matches no such weight, or none is left; a layer's weight is computed
            from the parameters that are there (weight_norm), so that zeros in them would not be
            zeros of the weight.

    >>> list(prunable(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
    ['0.weight', '2.weight']
    """
    candidates = dict(_candidates(model))
    included, excluded = _patterns(include), _patterns(exclude)
    for argument, patterns in (("include", included), ("exclude", excluded)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise ValueError(
                    f"{argument}={pattern!r} matches no prunable weight; "
                    f"{_hint(pattern, model, candidates)}"
                )
    chosen = {
        name: weight
        for name, (weight, default) in candidates.items()
        if (any(fnmatchcase(name, pattern) for pattern in included) if included else default)
        and not any(fnmatchcase(name, pattern) for pattern in excluded)
    }
    if not included and (parts := [name for name in chosen if _is_part(model, name)]):
        layer = [name for name in parts if name.rpartition(".")[0] == parts[0].rpartition(".")[0]]
        raise ValueError(
            f"{parts[0]} is not a weight but a part that one is computed from (weight_norm, "
            "spectral_norm or "
            f"torch.nn.utils.prune); undo that first, pass exclude={layer}, or name the parts to "
            "hold with include"
        )
    if not chosen:
        raise ValueError(
            f"no prunable weight in {type(model).__name__}: it needs a trainable weight of a "
            "convolution (after the "
            f"first), linear or recurrent layer; include='*' takes every trainable matrix"
        )
    return chosen


def _candidates(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Parameter, bool]]]:
    """(name, (weight, whether it is chosen by default)) of every trainable matrix, shared ones
    once."""
    first_convolution = next(
        (module for module in model.modules() if isinstance(module, _ConvNd)), None
    )
    owners: dict[int, list[tuple[str, nn.Module, nn.Parameter]]] = {}
    for prefix, module in model.named_modules():
        owner = module
        if isinstance(module, ParametrizationList):  # "fc.parametrizations.weight" belongs to "fc"
            owner = model.get_submodule(prefix.partition("parametrizations.")[0].rstrip("."))
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(id(parameter), []).append((name, owner, parameter))
    for owned in owners.values():
        name, _, weight = owned[0]
        if isinstance(weight, UninitializedParameter):
            raise ValueError(
                f"{name} has no shape yet; run one batch through the lazy module first"
            )
        modules = [module for _, module, _ in owned]
        embedding = next(
            (name for name, module, _ in owned if isinstance(module, _EMBEDDINGS)), None
        )
        if embedding is not None:
            if tied := next(
                (name for name, module, _ in owned if not isinstance(module, _EMBEDDINGS)), None
            ):
                warnings.warn(
                    f"{tied} is tied to the embedding {embedding}: it is not pruned", stacklevel=3
                )
        elif (
            weight.ndim >= 2
            and weight.requires_grad
            and not any(isinstance(module, _NORMS) for module in modules)
        ):
            leaf = name.rpartition(".")[2]
            if "bias" not in leaf:
                default = (
                    any(isinstance(module, _MATRICES) for module in modules)
                    and first_convolution not in modules
                )
                yield name, (weight, default)


def _is_part(model: nn.Module, name: str) -> bool:
    prefix, _, leaf = name.rpartition(".")
    module, (whole, _, part) = model.get_submodule(prefix), leaf.rpartition("_")
    old_style = part in ("g", "v", "orig") and isinstance(
        getattr(module, whole, None), torch.Tensor
    )
    return isinstance(module, ParametrizationList) or old_style


def _patterns(patterns: Patterns | None) -> tuple[str, ...]:
    return () if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _hint(pattern: str, model: nn.Module, candidates: dict[str, tuple[nn.Parameter, bool]]) -> str:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    left_out = [name for name in parameters if fnmatchcase(name, pattern)]
    if left_out:
        same = next(
            (name for name, (weight, _) in candidates.items() if weight is parameters[left_out[0]]),
            None,
        )
        if same is not None:
            return f"{left_out[0]} is tied to {same}: use that name"
        return (
            f"{left_out[0]} is a bias, a normalisation, an embedding, frozen, or has one "
            "dimension: never pruned"
        )
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.3) or list(candidates)[:3]
    return f"near names: {', '.join(near)}" if near else "the model has none"
