"""Which tensors of a model may be pruned: its weight matrices, and what the paper leaves alone."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from .plan import ByPattern, Plan, Sparsity, in_percent, matches, share_of
from .tensors.sharded import is_flattened

Selector = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
Patterns = Selector | Iterable[Selector]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_MATRICES = (_ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_NO_MATRIX = re.compile("embed|norm|codebook|quantiz", re.IGNORECASE)
_CENTRES = {"mean", "var_mean", "std_mean", "batch_norm", "layer_norm", "group_norm"}


class Prunable(dict[str, nn.Parameter]):
    """The weights that may be held, by name; printed, a table that says what is not and why."""

    def __init__(
        self,
        chosen: Mapping[str, nn.Parameter],
        rows: list[Row],
        stacks: frozenset[str],
        title: str,
        adapters: bool,
    ) -> None:
        super().__init__(chosen)
        self.rows = rows
        """Every tensor of the model, in its order."""
        self.stacks = stacks
        """Names of tensors that are several matrices, one per expert, each with its own mask."""
        self._title = title
        self._adapters = adapters

    def only(self, names: Iterable[str]) -> Prunable:
        """Those of these names."""
        chosen = {name: self[name] for name in names}
        return Prunable(chosen, self.rows, self.stacks, self._title, self._adapters)

    @property
    def skipped(self) -> dict[str, str]:
        """Why a tensor is not held, by name."""
        return {row.name: row.why for row in self.rows if row.why}

    @property
    def share(self) -> float:
        """How much of the model's matrix weights may be held; embeddings are not counted."""
        matrices = sum(row.count for row in self.rows if row.matrix)
        return sum(weight.numel() for weight in self.values()) / max(matrices, 1)

    def __str__(self) -> str:
        return "\n".join([*_table(self.rows, {}), *self._summary()])

    __repr__ = __str__

    def preview(self, plan: Plan) -> str:
        """The table with a column for each phase of ``plan`` that says what it holds of each
        weight, those that hold the same together under the first one's name. A share of all weights
        together (``mask="global"``) says it of none."""
        shares: dict[str, Sparsity] = {}
        for phase in plan:
            of_each = isinstance(phase.sparsity, ByPattern) or phase.mask != "global"
            if phase.sparsity and of_each and phase.sparsity not in shares.values():
                shares[phase.name] = phase.sparsity
        return "\n".join([*_table(self.rows, shares), *self._summary()])

    def __reduce__(self) -> tuple[type, tuple[dict[str, nn.Parameter]]]:
        return dict, (dict(self),)

    def _summary(self) -> Iterator[str]:
        held = sum(weight.numel() for weight in self.values())
        total = sum(row.count for row in self.rows)
        yield (
            f"{self._title}: {held:,} of {total:,} weights may be held ({held / total:.0%}), "
            f"{self.share:.0%} of its matrix weights without embeddings"
        )
        if self._adapters:
            yield "PEFT: what is held are the adapters; the base model's weights are frozen"
        if self.share < 0.5:
            yield (
                "warning: less than half of the matrix weights may be held; "
                "include=... names more, see the reasons above"
            )


@dataclass(frozen=True)
class Row:
    """One tensor of a model. ``why`` it is not held is empty where it is; a ``matrix`` has two
    dimensions or more and is neither embedding nor normalisation."""

    name: str
    layer: str
    shape: tuple[int, ...]
    why: str
    matrix: bool

    @property
    def count(self) -> int:
        """How many weights it has."""
        return torch.Size(self.shape).numel()


def prunable(
    model: nn.Module, include: Patterns | None = None, exclude: Patterns | None = None
) -> Prunable:
    """Name the weights that a sparse phase may hold at zero; ``print`` shows them as a table.

    By default: trainable weight matrices of convolution, linear, bilinear, recurrent and attention
    layers and of other libraries' layers whose matrix is called ``weight`` (GPT-2's ``Conv1D``),
    and the stacked matrices of fused experts; except the first convolution, as in the paper. Never
    a bias, a normalisation, an embedding, a scale of one weight per channel or a tensor with fewer
    than two dimensions. Depthwise convolutions are held like others: their rows are short, so
    sparsities above a half empty many. A weight shared by several modules is named once; one shared
    with an embedding is left out.

    Args:
        include: replaces the default choice. Names or shell patterns over parameter names
            (``"layer3.*"``, ``"*.weight_hh_l?"``), module types (``nn.Linear``) or functions
            ``(name, weight) -> bool``, one or several: every matrix that one of them picks, of any
            module, the first convolution and parameters of your own included.
        exclude: the same, left out after that.

    Raises:
        ValueError: ``include`` is empty, a pattern picks no such weight, or none is left; a layer's
            weight is computed from the parameters that are there (weight_norm, standardised
            convolutions), so that zeros in them would not be zeros of the weight.
        NotImplementedError: FSDP1 has flattened the weights.

    >>> list(prunable(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
    ['0.weight', '2.weight']
    """
    if any(is_flattened(parameter) for parameter in model.parameters()):
        raise NotImplementedError(
            f"{type(model).__name__} is sharded by FullyShardedDataParallel (FSDP1), which lays "
            "the weights of several layers end to end; shard it with fully_shard (FSDP2): "
            "ModelParallelStrategy in Lightning, fsdp_version=2 in Accelerate and the Trainer"
        )
    weights = list(_weights(model))
    candidates = {weight.name: weight for weight in weights if weight.eligible}
    included, excluded = patterns("include", include), patterns("exclude", exclude) or ()
    for argument, selectors in (("include", included or ()), ("exclude", excluded)):
        for selector in selectors:
            if not any(weight.fits(selector) for weight in candidates.values()):
                raise ValueError(
                    f"{argument}={_shown(selector)} matches no prunable weight; "
                    f"{_hint(selector, model, candidates)}"
                )
    rows, chosen = [], {}
    for weight in weights:
        why = weight.why
        if included is not None and weight.eligible:
            why = "" if weight.fits_any(included) else "not in include"
        if not why and weight.fits_any(excluded):
            why = "excluded"
        if not why:
            chosen[weight.name] = weight.parameter
        shape = tuple(weight.parameter.shape)
        layer = type(weight.owner).__name__
        rows.append(Row(weight.name, layer, shape, why, weight.matrix))
    if included is None:
        _refuse_computed([weight for weight in weights if weight.name in chosen])
    if not chosen:
        raise ValueError(
            f"no prunable weight in {type(model).__name__}: it needs a trainable weight of a "
            "convolution (after the first), linear or recurrent layer; include='*' takes every "
            "trainable matrix"
        )
    stacks = frozenset(weight.name for weight in weights if weight.stack)
    title = type(model).__name__
    adapters = any(type(module).__module__.startswith("peft.") for module in model.modules())
    return Prunable(chosen, rows, stacks, title, adapters)


def picked_by(patterns: Iterable[str], weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names that each pattern picks of the weights that may be held; the first that matches a
    name counts.

    Raises:
        ValueError: for the patterns that pick none, each with its reason or with near names.

    >>> picked_by(["layer2.*", "*"], prunable(model))
    {'layer2.*': ['layer2.weight'], '*': ['layer1.weight']}
    """
    picked: dict[str, list[str]] = {pattern: [] for pattern in patterns}
    for name in weights:
        first = next((pattern for pattern in picked if matches(name, pattern)), None)
        if first is not None:
            picked[first].append(name)
    idle = [pattern for pattern, names in picked.items() if not names]
    if idle:
        reasons = [_why_idle(pattern, picked, weights) for pattern in idle]
        raise ValueError(f"sparsity has a pattern without effect: {'; '.join(reasons)}")
    return picked


def _why_idle(
    pattern: str, picked: Mapping[str, Sequence[str]], weights: Mapping[str, Tensor]
) -> str:
    taken = next((name for name in weights if matches(name, pattern)), None)
    if taken is not None:
        first = next(other for other, names in picked.items() if taken in names)
        return f"{first!r} stands before {pattern!r} and matches the same weights"
    rows = weights.rows if isinstance(weights, Prunable) else []
    left_out = next((row for row in rows if matches(row.name, pattern)), None)
    if left_out is not None:
        return (
            f"{pattern!r} matches {left_out.name}, which is not to be held ({left_out.why}); "
            "include=... says what is"
        )
    return f"{pattern!r} matches no weight; {_near(pattern, weights)}"


def patterns(argument: str, given: Patterns | None) -> tuple[Selector, ...] | None:
    """What was given for ``include`` or ``exclude`` as a tuple, a generator read once; an empty
    ``include`` is an error, since it would hold nothing or everything."""
    if given is None:
        return None
    several: tuple[Selector, ...]
    if isinstance(given, (str, type)) or not isinstance(given, Iterable):
        several = (given,)
    else:
        several = tuple(given)
    for selector in several:
        if not isinstance(selector, str) and not callable(selector):
            raise TypeError(
                f"{argument} must be a pattern, a module type or a function (name, weight) -> "
                f"bool, got {selector!r}"
            )
    if argument == "include" and not several:
        raise ValueError(
            f"include={given!r} is empty and would hold nothing; pass include=None for the "
            "default choice, or a pattern such as 'layer3.*'"
        )
    return several


@dataclass(frozen=True)
class _Weight:
    """A parameter, the module it belongs to, and why it is not held by default (empty if it is)."""

    name: str
    parameter: nn.Parameter
    owner: nn.Module
    why: str
    matrix: bool
    eligible: bool
    computed: str
    stack: bool

    def fits(self, selector: Selector) -> bool:
        if isinstance(selector, str):
            return matches(self.name, selector)
        if isinstance(selector, type):
            return isinstance(self.owner, selector)
        return bool(selector(self.name, self.parameter))

    def fits_any(self, selectors: Iterable[Selector]) -> bool:
        return any(self.fits(selector) for selector in selectors)


def _weights(model: nn.Module) -> Iterator[_Weight]:
    """Every parameter once, with its verdict."""
    first_convolution = next((m for m in model.modules() if isinstance(m, _ConvNd)), None)
    for owned in _owners(model).values():
        name, owner, parameter = owned[0]
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(
                f"{name} has no shape yet; run one batch through the lazy module first"
            )
        holder = next((m for _, m, _ in owned if isinstance(m, _MATRICES)), owner)
        layers = [module for _, module, _ in owned]
        why = _never(name, parameter, layers)
        if why == _EMBEDDING:
            _warn_of_ties(owned)
        eligible = not why
        matrix = parameter.ndim >= 2 and why in ("", _FROZEN) and not _is_scale(name, parameter)
        if eligible:
            why = _by_default(name, parameter, holder)
        if eligible and first_convolution in layers:
            why = "the first convolution"
        computed, stack = _computed(name, holder), _is_stack(name, parameter, holder)
        yield _Weight(name, parameter, holder, why, matrix, eligible, computed, stack)


def _owners(model: nn.Module) -> dict[int, list[tuple[str, nn.Module, nn.Parameter]]]:
    owners: dict[int, list[tuple[str, nn.Module, nn.Parameter]]] = {}
    for prefix, module in model.named_modules():
        owner = module
        if isinstance(module, ParametrizationList):  # "fc.parametrizations.weight" belongs to "fc"
            owner = model.get_submodule(prefix.partition("parametrizations.")[0].rstrip("."))
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(id(parameter), []).append((name, owner, parameter))
    return owners


_EMBEDDING = "an embedding, or tied to one"
_FROZEN = "frozen"


def _never(name: str, parameter: nn.Parameter, layers: Sequence[nn.Module]) -> str:
    """Why a tensor is held under no circumstances; empty if it may be."""
    if any(isinstance(module, _EMBEDDINGS) for module in layers):
        return _EMBEDDING
    if any(isinstance(module, _NORMS) for module in layers):
        return "a normalisation"
    if "bias" in name.rpartition(".")[2]:
        return "a bias"
    if parameter.ndim < 2:
        return "one dimension"
    return "" if parameter.requires_grad else _FROZEN


def _by_default(name: str, parameter: nn.Parameter, layer: nn.Module) -> str:
    """Why a matrix is not held unless it is included; empty if it is."""
    kind, leaf = type(layer).__name__, name.rpartition(".")[2]
    if _is_scale(name, parameter):
        return "a scale, one weight per channel"
    if isinstance(layer, _MATRICES):
        return ""
    if _is_stack(name, parameter, layer):
        return ""
    if leaf == "weight" and not _NO_MATRIX.search(kind):
        return ""
    return f"a parameter of {kind}"


def _is_stack(name: str, parameter: nn.Parameter, layer: nn.Module) -> bool:
    """Whether a tensor is the matrices of fused experts, (experts, rows, columns)."""
    if isinstance(layer, _MATRICES) or parameter.ndim != 3:
        return False
    return "expert" in f"{name}.{type(layer).__name__}".lower()


def _is_scale(name: str, parameter: nn.Parameter) -> bool:
    """(64, 1, 1, 1) has one weight per channel, (64, 1, 3, 3) nine, and a linear layer's (1, 64) is
    a row of 64."""
    leaf = name.rpartition(".")[2]
    wide = sum(size > 1 for size in parameter.shape) >= 2
    linear = parameter.ndim == 2 and "weight" in leaf and not leaf.endswith("_g")
    return not wide and not linear and len(parameter) == parameter.numel()


def _computed(name: str, layer: nn.Module) -> str:
    """What makes a layer's weight out of this parameter, if it is not the weight itself."""
    leaf = name.rpartition(".")[2]
    whole, _, part = leaf.rpartition("_")
    if ".parametrizations." in f".{name}":
        return "a parametrization: weight_norm, spectral_norm"
    if part in ("g", "v", "orig") and isinstance(getattr(layer, whole, None), torch.Tensor):
        return "weight_norm, spectral_norm or torch.nn.utils.prune"
    return "its forward, which takes the mean off" if _standardises(type(layer)) else ""


def _standardises(layer: type[nn.Module]) -> bool:
    """Whether a layer of another library takes the mean off its weight in forward, as StdConv2d
    does: what its own methods call says so."""
    if not issubclass(layer, (_ConvNd, nn.Linear)):
        return False
    called: set[str] = set()
    for parent in layer.__mro__:
        if parent.__module__.startswith("torch.nn.modules."):
            break
        for method in vars(parent).values():
            if isfunction(method) and method.__name__ != "__init__":
                called.update(method.__code__.co_names)
    return "weight" in called and bool(called & _CENTRES)


def _refuse_computed(chosen: Sequence[_Weight]) -> None:
    """All layers whose weight is computed, in one error."""
    parts = [weight for weight in chosen if weight.computed]
    if not parts:
        return
    first, names = parts[0], [part.name for part in parts]
    others = f" (and {len(parts) - 1} more)" if len(parts) > 1 else ""
    raise ValueError(
        f"{first.name}{others} is not a weight but a part that one is computed from, by "
        f"{type(first.owner).__name__} ({first.computed}), so its zeros would be none; undo "
        f"that first, pass exclude={names}, or name the parts to hold with include"
    )


def _warn_of_ties(owned: Sequence[tuple[str, nn.Module, nn.Parameter]]) -> None:
    embedding = next(name for name, module, _ in owned if isinstance(module, _EMBEDDINGS))
    tied = [name for name, module, _ in owned if not isinstance(module, _EMBEDDINGS)]
    if tied:
        warnings.warn(
            f"{tied[0]} is tied to the embedding {embedding}: it is not pruned", stacklevel=5
        )


def _table(rows: Iterable[Row], shares: Mapping[str, Sparsity]) -> list[str]:
    """Equal rows of numbered blocks are one line: ``layer.*.weight`` twelve times. ``shares`` are
    of phases, by name, a column each."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", row.name)
        shape = " x ".join(map(str, row.shape)) or "one number"
        held = tuple(
            "-" if row.why else in_percent(share_of(row.name, share)) for share in shares.values()
        )
        groups.setdefault((pattern, row.layer, shape, held, row.why), []).append(row)
    lines = [("", "weight", "layer", "shape", "times", "weights", *shares, "why not")]
    for (pattern, layer, shape, held, why), same in groups.items():
        name = same[0].name if len(same) == 1 else pattern
        times = f"{len(same)}" if len(same) > 1 else ""
        count = f"{sum(row.count for row in same):,}"
        lines.append(("-" if why else "held", name, layer, shape, times, count, *held, why))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return list(text)


def _shown(selector: Selector) -> str:
    return repr(selector) if isinstance(selector, str) else getattr(selector, "__name__", "?")


def _hint(selector: Selector, model: nn.Module, candidates: dict[str, _Weight]) -> str:
    if not isinstance(selector, str):
        return f"print(redense.prunable(model)) shows all tensors of {type(model).__name__}"
    parameters = dict(model.named_parameters(remove_duplicate=False))
    left_out = [name for name in parameters if name == selector or fnmatchcase(name, selector)]
    if left_out:
        meant = parameters[left_out[0]]
        same = [name for name, weight in candidates.items() if weight.parameter is meant]
        if same:
            return f"{left_out[0]} is tied to {same[0]}: use that name"
        return (
            f"{left_out[0]} is a bias, a normalisation, an embedding, frozen, or has one "
            "dimension: never pruned"
        )
    return _near(selector, candidates)


def _near(pattern: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
    return f"near names: {', '.join(near)}" if near else "the model has none"
