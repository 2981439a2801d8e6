"""Where a search looks, as data: plans of one family, and controls over the same rates, lengths and
decays with nothing held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from redense.plan import DECAYS, MASKS, Phase, Plan, Sparsity, check_sparsity, matches
from redense.study.methods import Method

Side = Literal["plan", "control"]
SIDES: tuple[Side, ...] = ("plan", "control")
Shapes = Mapping[str, Sequence[int]]
"""Weights that may be held: their shapes by name, in the network's order."""

BEST = "best epoch"
SCORED = ("last epoch", BEST, "averaged")
"""Which of a control's weights are scored: the last epoch's, early stopping's, or the average over
the epochs behind the first phase (SWA)."""


SHARES = "each by its share"
"""The choice of layers that `Space.shares` adds."""

Layers = Mapping[str, tuple[str, ...] | Mapping[str, float]]
"""What is held, by the name of a choice of layers: patterns, or a share for each."""


class Chooser(Protocol):
    """What draws a trial's choices: Optuna's trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of a range."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several."""


@dataclass(frozen=True)
class Space:
    """What may be chosen; narrow a range to one value to leave it out of the search.

    Args:
        sparsity: share that is held.
        masks: of magnitude, global, random; a random one is drawn anew in every pass.
        layers: all, later half, fully connected, or patterns such as ``fc*`` with commas between.
        shares: a share for each pattern, as `redense sensitivity` measures it: one more choice of
            layers, at the drawn sparsity for the largest and at less for the others in proportion.
        passes: how often a sparse and a dense phase follow each other.
        sparse_share: share of a pass that is sparse.
        lr: rates of both phases as factors of the training's own.
        decays: course of the rate inside each phase: constant, linear, cosine, step.
        weight_decay: factors of the groups' own behind the shared phase; where no group has any, of
            1e-4.
        shrink: of a control that starts from a trained network, the share of it that is kept
            (shrink-and-perturb).
        scored: of a control: the last epoch's weights, the best epoch's, or averaged ones.

    >>> space = Space(masks=("random",), passes=(1, 3), layers=("all", "fc*"))
    """

    sparsity: tuple[float, float] = (0.1, 0.95)
    masks: tuple[str, ...] = ("magnitude", "global", "random")
    layers: tuple[str, ...] = ("all", "later half", "fully connected")
    passes: tuple[int, int] = (1, 6)
    sparse_share: tuple[float, float] = (0.25, 0.75)
    lr: tuple[float, float] = (0.03, 1.0)
    decays: tuple[str, ...] = ("constant", "linear", "cosine")
    weight_decay: tuple[float, float] = (0.1, 100.0)
    shrink: tuple[float, float] = (0.1, 1.0)
    scored: tuple[str, ...] = SCORED
    shares: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shares:
            check_sparsity(self.shares, of="shares: ")
        for item in fields(self):
            if item.name == "shares":
                continue
            value = getattr(self, item.name)
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                raise TypeError(f"{item.name} must be a list of values, got {value!r}")
            object.__setattr__(self, item.name, tuple(value))
        _check_range("sparsity", self.sparsity, above=0, below=1)
        _check_range("passes", self.passes, least=1)
        _check_range("sparse_share", self.sparse_share, above=0, below=1)
        _check_range("lr", self.lr, above=0)
        _check_range("weight_decay", self.weight_decay, above=0)
        _check_range("shrink", self.shrink, above=0, most=1)
        _check_known("masks", self.masks, MASKS)
        _check_known("decays", self.decays, tuple(DECAYS))
        _check_known("scored", self.scored, SCORED)

    def draw(self, side: Side, choose: Chooser, first: Plan, epochs: int, layers: Layers) -> Method:
        """The method of a trial.

        Args:
            first: the shared phase, an empty plan where a trained network is the start.
            epochs: the budget behind it.
            layers: what is held by name, see `resolve`; empty for a training whose loop is its own,
                which carries out a plan and nothing else.
        """
        most = min(self.passes[1], epochs // 2)
        passes = choose.suggest_int("passes", min(self.passes[0], most), most)
        share = _suggest(choose, "sparse_share", self.sparse_share, step=0.05)
        rates = [_suggest(choose, name, self.lr, log=True) for name in ("sparse_lr", "redense_lr")]
        decay = choose.suggest_categorical("decay", self.decays)
        factor = _suggest(choose, "weight_decay", self.weight_decay, log=True) if layers else 1.0
        if side == "control":
            scored = choose.suggest_categorical("scored", self.scored) if layers else SCORED[0]
            is_trained = layers and not first.phases
            shrink = _suggest(choose, "shrink", self.shrink, step=0.05) if is_trained else 1.0
            if scored == "averaged":
                averaged = Phase("averaged", epochs, lr=rates[0], decay=decay)
                return _behind(first, (averaged,), factor, average="averaged", shrink=shrink)
            phases = _passes(("early", "late"), passes, epochs, share, rates, decay)
            best = scored == BEST
            select = "best" if best else "last"
            return _behind(first, phases, factor, select=select, shrink=shrink)
        level = _suggest(choose, "sparsity", self.sparsity, step=0.05)
        sparsity: Sparsity = level
        mask = choose.suggest_categorical("mask", self.masks)
        held = choose.suggest_categorical("layers", tuple(layers)) if layers else None
        include = layers[held] if held else ()
        if isinstance(include, Mapping):
            largest = max(include.values())
            sparsity = {one: float(f"{level * s / largest:.3g}") for one, s in include.items()}
            include = ()
        phases = _passes(("sparse", "redense"), passes, epochs, share, rates, decay, sparsity, mask)
        return _behind(first, phases, factor, include=include)

    def resolve(self, weights: Shapes) -> Layers:
        """What is held by the name of a choice of layers, of a network's prunable weights.

        >>> shapes = {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 8)}
        >>> Space(layers=("all", "fully connected")).resolve(shapes)
        {'all': (), 'fully connected': ('fc.weight',)}
        """
        names = list(weights)
        known = {
            "all": names,
            "later half": names[len(names) // 2 :],
            "fully connected": [name for name, shape in weights.items() if len(shape) == 2],
        }
        chosen: dict[str, tuple[str, ...] | Mapping[str, float]] = {}
        for name in self.layers:
            held = known.get(name)
            if held is None:
                chosen[name] = tuple(name.split(","))
            elif held == names:
                chosen["all"] = ()
            elif held and tuple(held) not in chosen.values():
                chosen[name] = tuple(held)
        if self.shares:
            for pattern in self.shares:
                plain = (name.removeprefix("model.") for name in names)  # a task's network
                if not any(matches(name, pattern) for name in (*names, *plain)):
                    raise ValueError(f"shares: {pattern!r} matches no weight that may be held")
            chosen[SHARES] = self.shares
        return chosen or {"all": ()}

    def customary(
        self, side: Side, layers: Mapping[str, Any], decay: str = "constant"
    ) -> dict[str, Any]:
        """What people have without a search: one pass of the paper's, or training as before, with
        the shared phase's decay; a choice that the space leaves out is its nearest."""
        paper = {"passes": 1, "sparse_share": 0.5, "sparse_lr": 1.0, "redense_lr": 0.1}
        plain = {**paper, "redense_lr": 1.0}
        usual: dict[str, Any] = paper if side == "plan" else plain
        for name in ("sparse_lr", "redense_lr"):
            usual[name] = _nearest(usual[name], self.lr)
        usual["passes"] = _nearest(1, self.passes)
        usual["sparse_share"] = _nearest(0.5, self.sparse_share)
        usual["decay"] = _first(decay, self.decays)
        if layers:
            usual["weight_decay"] = _nearest(1.0, self.weight_decay)
        if side == "control":
            if layers:
                usual["scored"] = _first(SCORED[0], self.scored)
                usual["shrink"] = _nearest(1.0, self.shrink)
            return usual
        usual["sparsity"] = _nearest(0.3, self.sparsity)
        usual["mask"] = _first("magnitude", self.masks)
        return usual | ({"layers": _first("all", tuple(layers))} if layers else {})


def in_words(choices: Mapping[str, Any]) -> str:
    """A trial's choices, shorter.

    >>> in_words({"passes": 2, "sparse_share": 0.5, "sparse_lr": 1.0, "redense_lr": 0.1,
    ...           "decay": "cosine", "sparsity": 0.3, "mask": "random", "layers": "all"})
    'random 0.3 of all, 2 passes with 50 % sparse, cosine from x 1 and x 0.1'
    """
    rates = [f"x {choices[name]:.2g}" for name in ("sparse_lr", "redense_lr")]
    decayed = f", weight decay x {choices['weight_decay']:.2g}" if "weight_decay" in choices else ""
    kept = choices.get("shrink", 1.0)
    shrunk = f", {100 * kept:.0f} % of the trained network kept" if kept < 1 else ""
    if choices.get("scored") == "averaged":
        return f"averaged, {choices['decay']} from {rates[0]}{decayed}{shrunk}"
    count, share = choices["passes"], 100 * choices["sparse_share"]
    passes = f"{count} pass{'es' * (count > 1)}"
    if "sparsity" in choices:
        named = choices.get("layers")
        layers = f", {named}" if named == SHARES else f" of {named}" if named else ""
        what = f"{choices['mask']} {choices['sparsity']:.2g}{layers}"
        split = f"{passes} with {share:.0f} % sparse"
    else:
        what = choices.get("scored", "last epoch")
        split = f"{passes} split at {share:.0f} %"
    return f"{what}, {split}, {choices['decay']} from {' and '.join(rates)}{decayed}{shrunk}"


def _passes(
    names: tuple[str, str],
    passes: int,
    epochs: int,
    share: float,
    rates: Sequence[float],
    decay: str,
    sparsity: Sparsity = 0.0,
    mask: str = "magnitude",
) -> tuple[Phase, ...]:
    """Two phases a pass; the passes differ by at most one epoch."""
    phases = []
    for number in range(passes):
        whole = epochs // passes + (number < epochs % passes)
        early = min(max(round(share * whole), 1), whole - 1)
        suffix = f" {number + 1}" if passes > 1 else ""
        phases.append(Phase(names[0] + suffix, early, sparsity, rates[0], decay, mask))
        phases.append(Phase(names[1] + suffix, whole - early, 0.0, rates[1], decay))
    return tuple(phases)


def _behind(first: Plan, phases: tuple[Phase, ...], factor: float, **more: Any) -> Method:
    decays = (1.0,) * len(first.phases) + (factor,) * len(phases) if factor != 1 else ()
    return Method(Plan((*first, *phases)), weight_decay=decays, **more)


def _suggest(
    choose: Chooser,
    name: str,
    bounds: tuple[float, float],
    *,
    step: float | None = None,
    log: bool = False,
) -> float:
    """A number of two or three digits, as a person would write it."""
    low, high = bounds
    whole = step is not None and math.isclose((high - low) / step, round((high - low) / step))
    value = choose.suggest_float(name, low, high, step=step if whole else None, log=log)
    return float(f"{value:.2g}")


def _nearest(value: Any, bounds: tuple[Any, Any]) -> Any:
    return min(max(value, bounds[0]), bounds[1])


def _first(value: str, choices: Sequence[str]) -> str:
    return value if value in choices else choices[0]


def _check_range(
    name: str,
    bounds: Sequence[Any],
    *,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
    least: int | None = None,
) -> None:
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in bounds)
    if len(bounds) != 2 or not numbers:
        raise ValueError(f"{name} must be its least and its largest value, got {bounds!r}")
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{name} must go from a smaller to a larger number, got {low} to {high}")
    if least is not None and (low < least or not all(isinstance(x, int) for x in bounds)):
        raise ValueError(f"{name} must be whole numbers of at least {least}, got {low} to {high}")
    if above is not None and low <= above:
        raise ValueError(f"{name} must lie above {above}, got {low} to {high}")
    if most is not None and high > most:
        raise ValueError(f"{name} must be at most {most}, got {low} to {high}")
    if below is not None and high >= below:
        raise ValueError(f"{name} must lie below {below}, got {low} to {high}")


def _check_known(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    if wrong := [value for value in values if value not in known]:
        raise ValueError(f"{name} must be of {', '.join(known)}, got {wrong[0]!r}")
