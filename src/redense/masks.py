"""Which weights of a tensor are kept: pure functions from weights and a sparsity to bool masks,
True = kept.

Every mask has exactly ``round(sparsity * n)`` False elements; of the stacked matrices of fused
experts each has, since every one is a layer of its own. Among equal magnitudes the lower
index is pruned first, as a stable sort would have it. Sharded tensors (FSDP2) give masks sharded
alike; only counts cross the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from .plan import Sparsity, check_share, check_sparsity, in_percent
from .prunable import Prunable, picked_by
from .tensors.keys import GOLDEN, magnitude_keys, random_keys, scramble
from .tensors.packing import pack_bits
from .tensors.rows import whole_rows
from .tensors.selection import keep_largest
from .tensors.sharded import lay_out, placements, replicas, shard_of
from .tensors.threads import one_thread

MaskFunction = Callable[[Tensor, float], Tensor]
Criterion = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]


@one_thread
def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Keep the weights of largest magnitude: the paper's criterion, one tensor at a time.

    Args:
        weight: of any shape; float16, bfloat16, float32 or float64.
        sparsity: share to prune, in [0, 1).

    Returns:
        A bool tensor of ``weight``'s shape and layout, False for exactly ``round(sparsity *
        weight.numel())`` elements.

    >>> magnitude_mask(torch.tensor([0.1, -3.0, 2.0, -0.2]), 0.5)
    tensor([False,  True,  True, False])
    """
    pruned = round(check_share(sparsity) * weight.numel())
    return lay_out(keep_largest([magnitude_keys(weight)], pruned, weight.numel())[0], weight)


@one_thread
def random_mask(weight: Tensor, sparsity: float, *, seed: int = 0) -> Tensor:
    """Keep weights at random: the control that shows what magnitude itself contributes.

    The choice is a hash of ``seed``, the index and the weights' own bits, so that it is the same on
    every rank, differs from layer to layer and run to run, and touches no random generator.
    """
    pruned = round(check_share(sparsity) * weight.numel())
    return lay_out(keep_largest([random_keys(weight, seed)], pruned, weight.numel())[0], weight)


@one_thread
def global_magnitude_masks(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Keep the largest magnitudes of all tensors taken together; layers end with different
    sparsity.

    The count is exact over the whole: ``round(sparsity * total)``; ties go to the earlier tensor,
    then the lower index.
    """
    total = sum(weight.numel() for weight in weights.values())
    pruned = round(check_share(sparsity) * total)
    _check_one_type(weights)
    keys = {name: _named(name, magnitude_keys, weight) for name, weight in weights.items()}
    try:
        kept = keep_largest(list(keys.values()), pruned, total)
    except ValueError:
        for name, source in keys.items():  # say which tensor it was
            _named(
                name, keep_largest, [source], min(1, weights[name].numel()), weights[name].numel()
            )
        raise
    return {name: lay_out(flat, weights[name]) for name, flat in zip(keys, kept, strict=True)}


def layerwise(function: MaskFunction) -> Criterion:
    """The criterion that asks ``function(weight, sparsity) -> mask`` about each tensor alone, and
    about each matrix of a stack."""

    def choose(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        stacks = weights.stacks if isinstance(weights, Prunable) else frozenset()
        masks = {}
        for name, weight in weights.items():
            chooser = partial(_stacked, function) if name in stacks else function
            masks[name] = _named(name, chooser, weight, sparsity)
        return masks

    return choose


CRITERIA: dict[str, Criterion] = {
    "magnitude": layerwise(magnitude_mask),
    "random": layerwise(random_mask),
    "global": global_magnitude_masks,
}


def build_masks(
    weights: Mapping[str, Tensor], sparsity: Sparsity, mask: str | MaskFunction = "magnitude"
) -> dict[str, Tensor]:
    """One mask per weight: by a name of `CRITERIA` or by any function ``(weight, sparsity) ->
    mask``.

    With a sparsity for each pattern (see `redense.plan.ByPattern`) what no pattern picks, or one
    with 0, has no mask; ``global`` then ranks the weights of each pattern among themselves.

    A tensor of which nothing is kept cuts the network in two, and where weights are equal (a layer
    that starts from zero) those of the lower index go, row after row: each is a warning.
    """
    choose = _criterion(mask)
    chosen: dict[str, Tensor] = {}
    for part, share in _parts(weights, sparsity):
        chosen |= choose(part, share)
    masks = {name: chosen[name] for name in weights if name in chosen}
    for name, made in masks.items():
        _check_mask(name, made, weights[name])
    _warn_of_whole_rows(masks, weights, sparsity, mask)
    return masks


def check_choosable(
    weights: Mapping[str, Tensor], sparsity: Sparsity, mask: str | MaskFunction
) -> None:
    """Raise now, in one error, what choosing masks of ``weights`` would raise after a dense phase:
    an unknown name, a pattern without effect, types without magnitudes, unsupported sharding,
    several types at once."""
    _criterion(mask)
    if not sparsity:
        return
    parts = [part for part, _ in _parts(weights, sparsity)]
    look = magnitude_keys if isinstance(mask, str) else shard_of
    refused: dict[str, Exception] = {}
    for name, weight in (entry for part in parts for entry in part.items()):
        try:
            look(weight)
        except (TypeError, NotImplementedError) as refusal:
            refused[name] = refusal
    if refused:
        first, error = next(iter(refused.items()))
        others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise type(error)(f"{first}{others}: {error}; pass exclude={list(refused)}") from error
    if mask == "global":
        for part in parts:
            _check_one_type(part)


def _parts(
    weights: Mapping[str, Tensor], sparsity: Sparsity
) -> list[tuple[Mapping[str, Tensor], float]]:
    """The weights of each pattern with its share."""
    check_sparsity(sparsity)
    if not isinstance(sparsity, Mapping):
        return [(weights, sparsity)]
    parts: list[tuple[Mapping[str, Tensor], float]] = []
    for pattern, names in picked_by(sparsity, weights).items():
        if isinstance(weights, Prunable):
            part: Mapping[str, Tensor] = weights.only(names)
        else:
            part = {name: weights[name] for name in names}
        if sparsity[pattern]:
            parts.append((part, sparsity[pattern]))
    return parts


def _stacked(function: MaskFunction, weight: Tensor, sparsity: float) -> Tensor:
    """(experts, rows, columns): one mask per matrix. A rank has whole matrices, since shards are of
    the first dimension."""
    matrices = shard_of(weight)[0]
    masks = [function(matrix, sparsity) for matrix in matrices]
    kept = torch.stack(masks) if masks else torch.ones_like(matrices, dtype=torch.bool)
    return lay_out(kept.flatten(), weight)


def _criterion(mask: str | MaskFunction) -> Criterion:
    if not isinstance(mask, str):
        return layerwise(mask)
    if mask not in CRITERIA:
        raise ValueError(f"mask must be one of {', '.join(CRITERIA)} or a function, got {mask!r}")
    return CRITERIA[mask]


def _check_mask(name: str, mask: object, weight: Tensor) -> None:
    shape = tuple(weight.shape)
    wanted = f"{name}: a mask must be a bool tensor of the weight's shape {shape}"
    if not isinstance(mask, Tensor):
        raise TypeError(f"{wanted}, got {type(mask).__name__}")
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise TypeError(f"{wanted}, got {mask.dtype} {tuple(mask.shape)}")
    if placements(mask) != placements(weight):
        raise TypeError(
            f"{name}: a mask must be sharded as its weight is, {placements(weight)}, "
            f"got {placements(mask)}"
        )


def _check_one_type(weights: Mapping[str, Tensor]) -> None:
    kinds = {weight.dtype for weight in weights.values()}
    if len(kinds) > 1:
        raise TypeError(
            f"global magnitudes need weights of one dtype, got {', '.join(sorted(map(str, kinds)))}"
        )


def _warn_of_whole_rows(
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    sparsity: Sparsity,
    mask: str | MaskFunction,
) -> None:
    stacks = weights.stacks if isinstance(weights, Prunable) else frozenset()
    emptied: list[str] = []
    tied: dict[str, int] = {}
    for name, made in masks.items():
        kept, rows = whole_rows(made, weights[name], name in stacks)
        if made.numel() and not kept:
            emptied.append(name)
        if rows and kept and mask != "random":
            tied[name] = rows
    if emptied:
        warnings.warn(
            f"nothing is left of {', '.join(emptied)} at a sparsity of {in_percent(sparsity)}: no "
            f"signal passes there; pass exclude={emptied} or a lower sparsity",
            stacklevel=4,
        )
    if tied:
        counted = ", ".join(f"{rows} of {name}" for name, rows in tied.items())
        warnings.warn(
            f"whole rows are held, {counted}: their weights equal others that are kept, and among "
            "equal ones the lower index goes first; begin with a dense phase or pass "
            f"exclude={list(tied)}",
            stacklevel=4,
        )


def check_agreement(masks: Mapping[str, Tensor], group: Any = None) -> None:
    """Raise RuntimeError, on every rank of ``group``, if ranks that hold the same weights hold
    different masks.

    One 64-bit hash per tensor crosses the network: over ``group`` for plain tensors (DDP), over the
    replicated dimensions of its mesh for a sharded one.
    """
    if not dist.is_initialized() or dist.get_world_size(group) == 1 or not masks:
        return
    hashed: dict[Any, dict[str, Tensor]] = {}
    for name, mask in masks.items():
        for same in replicas(mask, group):
            hashed.setdefault(same, {})[name] = _hash(mask)
    differ = torch.zeros(
        len(masks), dtype=torch.int64, device=shard_of(next(iter(masks.values())))[0].device
    )
    names = list(masks)
    for same, hashes in hashed.items():
        lowest = torch.stack(list(hashes.values()))
        highest = lowest.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN, group=same)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=same)
        differ[[names.index(name) for name in hashes]] += (lowest != highest).long()
    dist.all_reduce(differ, group=group)
    if different := [name for name, unequal in zip(names, differ.tolist(), strict=True) if unequal]:
        raise RuntimeError(
            f"ranks disagree on the mask of {different[0]!r} and of {len(different) - 1} more: "
            "their weights differ; "
            f"broadcast the model from rank 0 before the sparse phase"
        )


def _hash(mask: Tensor) -> Tensor:
    packed = pack_bits(shard_of(mask)[0])
    words = torch.nn.functional.pad(packed, (0, -packed.numel() % 8)).view(torch.int64)
    return scramble(
        words.add_(torch.arange(1, words.numel() + 1, device=words.device).mul_(GOLDEN))
    ).sum()


def _named(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(f"{name}: {error}") from error
