"""Which tensors of a model may be pruned: its weight matrices, and what the paper leaves alone."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

Patterns = str | Sequence[str]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_MATRICES = (_ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def prunable(
    model: nn.Module, include: Patterns | None = None, exclude: Patterns | None = None
) -> dict[str, nn.Parameter]:
    """Name the weights that a sparse phase may hold at zero.

    By default: trainable weight matrices of convolution, linear, bilinear, recurrent and attention layers, except the
    first convolution, as in the paper. Never a bias, a normalisation, an embedding or a tensor with fewer than two
    dimensions. A weight shared by several modules is named once; one shared with an embedding is left out.

    Args:
        include: shell patterns over parameter names (``"layer3.*"``, ``"*.weight_hh_l?"``) that replace the default
            choice: every matrix that matches, of any module, the first convolution and parameters of your own included.
        exclude: patterns that are left out after that.

    Raises:
        ValueError: a pattern matches no such weight, or none is left.

    >>> list(prunable(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
    ['0.weight', '2.weight']
    """
    candidates = dict(_candidates(model))
    included, excluded = _patterns(include), _patterns(exclude)
    for argument, patterns in (("include", included), ("exclude", excluded)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise ValueError(
                    f"{argument}={pattern!r} matches no prunable weight; {_hint(pattern, model, candidates)}"
                )
    chosen = {
        name: weight
        for name, (weight, default) in candidates.items()
        if (any(fnmatchcase(name, pattern) for pattern in included) if included else default)
        and not any(fnmatchcase(name, pattern) for pattern in excluded)
    }
    if not chosen:
        raise ValueError(
            f"no prunable weight in {type(model).__name__}: it needs a trainable weight of a convolution (after the "
            f"first), linear or recurrent layer; include='*' takes every trainable matrix"
        )
    return chosen


def _candidates(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Parameter, bool]]]:
    """(name, (weight, whether it is chosen by default)) of every trainable matrix, shared ones once."""
    first_convolution = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
    owners: dict[int, list[tuple[str, nn.Module, nn.Parameter]]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(id(parameter), []).append((name, module, parameter))
    for owned in owners.values():
        name, _, weight = owned[0]
        if isinstance(weight, UninitializedParameter):
            raise ValueError(f"{name} has no shape yet; run one batch through the lazy module first")
        modules = [module for _, module, _ in owned]
        embedding = next((name for name, module, _ in owned if isinstance(module, _EMBEDDINGS)), None)
        if embedding is not None:
            if len(owned) > 1:
                tied = next((name for name, module, _ in owned if not isinstance(module, _EMBEDDINGS)), owned[1][0])
                warnings.warn(f"{tied} is tied to the embedding {embedding}: it is not pruned", stacklevel=3)
        elif weight.ndim >= 2 and weight.requires_grad and not isinstance(modules[0], _NORMS):
            leaf = name.rpartition(".")[2]
            if "bias" not in leaf:
                default = isinstance(modules[0], _MATRICES) and first_convolution not in modules
                yield name, (weight, default)


def _patterns(patterns: Patterns | None) -> tuple[str, ...]:
    return () if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _hint(pattern: str, model: nn.Module, candidates: dict[str, tuple[nn.Parameter, bool]]) -> str:
    if left_out := [name for name, _ in model.named_parameters() if fnmatchcase(name, pattern)]:
        return f"{left_out[0]} is a bias, a normalisation, an embedding, frozen, or has one dimension: never pruned"
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.3) or list(candidates)[:3]
    return f"near names: {', '.join(near)}" if near else "the model has none"
