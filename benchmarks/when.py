"""When does it help? A row for each plan of each committed study, from its records alone.

``python -m benchmarks.when`` writes the tables and draws the pictures of docs/when.md anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.when_pictures import Line, draw_budgets, draw_differences
from redense.search.space import SIDES
from redense.study.folder import records
from redense.study.methods import CONTROL, MATCHED, is_proved, own_controls, simplicity
from redense.study.stats import Difference, paired_difference
from redense.study.summary import Summary, summarize_records

RESULTS = Path(__file__).parent.parent / "results"
CONTROLS = ("lower_lr", "full_lr", "longer", "early_stop", "shrink_perturb", "swa")
"""What plans are set against; of equal budget, nothing held."""

STUDIES = {
    "images": "small net with batch-norm, 5,000 images, clean labels",
    "images-converged": "the same net, 2,000 images, clean labels, 30 + 30 epochs",
    "vgg-clean": "VGG-like net without batch-norm, 1,000 images, clean labels",
    "vgg-noise20": "the same, 20 % of the labels wrong",
    "vgg-noise40": "the same, 40 % of the labels wrong",
    "warm-start": "the same net, trained on 1,000 images, gone on with on 2,000",
    "warm-scratch": "those 2,000 images from scratch: no plan, what `warm-start` stands beside",
    "fine-tune": "small net, trained on one artist's emoji, fine-tuned on 500 of another's",
    "captions-converged": "NeuralTalk on emoji drawings, 30 + 20 epochs, the paper's rates",
    "digits-12": "DeepSpeech 2, small, on strings of spoken digits, 16 + 10 epochs",
    "digits-deepspeech1": "DeepSpeech 1, 384 units, on the same strings, 20 + 16 epochs",
    "digits-deepspeech1-long": "the same, its dense phase twice as long, 40 + 16 epochs",
    "fashion-mnist": "VGG-like net with batch-norm and dropout, all 55,000 images, 8 + 8 epochs",
    "fashion-mnist-erased": "the same on pictures with pieces missing, 8 + 16 epochs",
    "fashion-mnist-24": "the same, 24 epochs in one course, and 12 behind it at 0.3 and 0.1",
    "images-default": "the recipe's default: small net, 10,000 images, 2 + 6 epochs",
    "images-default-first": "the default that was tried first, 4 + 4 epochs, the last 2 at 0.3",
    "emoji-default": "the default on colour drawings of emoji, 32 px, 9 groups",
    "captions": "NeuralTalk on emoji drawings, skin tones among them",
    "speech": "DeepSpeech 2, small, on game dialogue",
}
"""Every study by its folder, in words."""

SEARCHES = {
    "search-noise40": "small net, 1,000 images, 40 % of the labels wrong",
    "few-noise40": "the first five trials of each of the same",
    "search-noise20": "VGG-like net without batch-norm, 1,000 images, 20 % wrong",
    "few-noise20": "the first five trials of each of the same",
    "search-vgg-noise40": "the same network, 40 % wrong",
    "few-vgg-noise40": "the first five trials of each of the same",
    "search-vgg-clean": "the same network, clean labels",
    "search-emoji-noise40": "small net, emoji in nine groups in colour, 32 px, 40 % wrong",
    "search-images-converged": "small net with batch-norm, 2,000 images, clean labels",
    "search-warm-start": "the same network, trained on 1,000 images, gone on with on 2,000",
    "search-fine-tune": "small net, one artist's emoji, fine-tuned on 500 of another's",
    "search-captions": "NeuralTalk on emoji drawings, 30 + 20 epochs; BLEU-4",
    "search-digits": "DeepSpeech 1 on strings of spoken digits, 20 + 16 epochs; word errors",
    "search-label-noise": "as `search-noise40`, at a constant rate in the shared phase",
    "search-noise20-first": "as `search-noise20`, at a constant rate in the shared phase",
}
"""Every search by its folder, in words."""

TUNED = {
    "images-converged": "search-images-converged",
    "vgg-clean": "search-vgg-clean",
    "vgg-noise20": "search-noise20",
    "vgg-noise40": "search-vgg-noise40",
    "warm-start": "search-warm-start",
    "fine-tune": "search-fine-tune",
    "captions-converged": "search-captions",
    "digits-deepspeech1": "search-digits",
}
"""The search on a study's own network, data and seeds, whose tuned control its plans meet too."""

FAULTY = ("search-label-noise", "search-noise20-first")
"""Those whose shared phase kept its rate to the end, which favoured plans."""

SOUND = tuple(name for name in SEARCHES if name not in FAULTY)

_TRIALS = ("1", "2", "5", "10", "20")

PAGE = Path(__file__).parent.parent / "docs" / "when.md"
MARKS = "<!-- made by python -m benchmarks.when -->\n\n", "\n\n<!-- end -->"
SEARCH_MARKS = "<!-- searches, made by python -m benchmarks.when -->\n\n", "\n\n<!-- end -->"


@dataclass(frozen=True)
class Row:
    """One plan of one study: its score, and what it gains over controls (positive is better)."""

    study: str
    plan: str
    seeds: int
    score: float
    to_matched: Difference
    best: str
    to_best: Difference
    to_tuned: Difference | None
    others: Mapping[str, Difference]
    loss: Difference | None


@dataclass(frozen=True)
class Regime:
    """One study: whether its dense phase has converged, what it cost, and a row for each plan."""

    name: str
    words: str
    summary: Summary
    hours: float
    rows: tuple[Row, ...]

    @property
    def is_trained_out(self) -> bool:
        """Whether it says anything of the paper's claim."""
        converged = self.summary.convergence
        return converged is None or converged.is_converged


@dataclass(frozen=True)
class Searched:
    """One search: what it found, and how its plan and its control did on fresh seeds."""

    found: Mapping[str, Any]
    plan: Mapping[int, float]
    control: Mapping[int, float]
    to_control: Difference
    to_matched: Difference | None


def regime(name: str, words: str, folder: Path | None = None) -> Regime:
    """Of the records of one study."""
    kept = records(folder or RESULTS / name)
    summary = summarize_records(kept)
    controls = [control for control in CONTROLS if control in summary.scores]
    best = (max if summary.higher_is_better else min)(
        controls, key=lambda control: mean(summary.scores[control].values())
    )
    plans = [
        label
        for label in sorted(summary.scores, key=simplicity)
        if is_proved(label) or label.startswith("random_dsd")
    ]
    return Regime(
        name=name,
        words=words,
        summary=summary,
        hours=_seconds(kept) / 3600,
        rows=tuple(_row(name, label, summary, kept, best, controls) for label in plans),
    )


def tables(regimes: list[Regime]) -> str:
    """The page's two tables, as markdown."""
    head = ("study", "converged before?", "seeds", "hours of one core, by the clock")
    lines = [head, ("---",) * len(head), *map(_about, regimes)]
    columns = ("study", "plan", "score", "minus matched control", "minus best control")
    columns = (
        *columns,
        "minus the best *tuned* control",
        "minus SWA",
        "minus early stopping",
        "loss minus matched control's",
    )
    rows = [columns, ("---",) * len(columns)]
    rows += [_cells(one, row) for one in regimes for row in one.rows]
    return "\n\n".join("\n".join(f"| {' | '.join(x)} |" for x in part) for part in (lines, rows))


def committed() -> dict[str, Regime]:
    """Those of the studies whose records are here."""
    here = [name for name in STUDIES if (RESULTS / name / "study.json").exists()]
    return {name: regime(name, STUDIES[name]) for name in here}


def searches() -> str:
    """Two tables of the searches: what they confirmed, and score against tuning budget."""
    head = ("search", "trials of each", "the plan", "the best tuned control", "difference", "p")
    head = (*head, "minus its own matched control")
    confirmed = [head, ("---",) * len(head)]
    columns = ("expected test score after so many trials", "0, customary", *_TRIALS, "all")
    expected = [columns, ("---",) * len(columns)]
    for name, words in SEARCHES.items():
        one = searched(name)
        means = (f"{mean(side.values()):.2f}" for side in (one.plan, one.control))
        alone = "not run" if one.to_matched is None else _interval(one.to_matched)
        cells = (*means, _interval(one.to_control), _p_value(one.to_control.p_value), alone)
        tried = sum(trial["side"] == "plan" for trial in one.found["tried"])
        confirmed.append((f"`{name}`: {words}", f"{tried}", *cells))
        expected += _expected(name, one.found["budget"])
    parts = (confirmed, expected)
    return "\n\n".join("\n".join(f"| {' | '.join(x)} |" for x in part) for part in parts)


def searched(name: str) -> Searched:
    """Of the records of one search."""
    found = json.loads((RESULTS / name / "found.json").read_text("utf-8"))
    scores = summarize_records(
        records(RESULTS / name / "confirm"), control="control", baseline="control"
    ).scores

    def against(control: str) -> Difference:
        return _paired(scores["plan"], scores[control], higher_is_better=found["higher_is_better"])

    return Searched(
        found=found,
        plan=scores["plan"],
        control=scores["control"],
        to_control=against("control"),
        to_matched=against(MATCHED) if MATCHED in scores else None,
    )


def _expected(name: str, budget: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A search's rows of score against tuning budget."""
    rows = []
    for side in SIDES:
        curve = budget["curves"][side]
        values = [*(curve.get(trials) for trials in _TRIALS), curve[max(curve, key=int)]]
        cells = ("–" if value is None else f"{value:.2f}" for value in values)
        rows.append((f"`{name}`, {side}s", f"{budget['usual'][side]:.2f}", *cells))
    return rows


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def draw(regimes: Iterable[Regime], folder: Path) -> None:
    """The page's two pictures: plans beside controls, and score against tuning budget."""
    out = [one for one in regimes if one.is_trained_out]
    groups = {
        "plans and controls at customary settings": [
            Line(f"{row.study}  {row.plan}", row.to_matched, row.to_best, row.to_tuned)
            for one in out
            for row in one.rows
        ],
        "what searches found, beside the best tuned control": [
            Line(name, one.to_matched, None, one.to_control)
            for name, one in ((name, searched(name)) for name in SOUND)
        ],
    }
    draw_differences(groups, folder / "when.png")
    draw_budgets({name: searched(name).found for name in SOUND}, folder / "when-budgets.png")


def main() -> None:
    """Write the tables between their marks on the page, and the pictures beside it."""
    regimes = list(committed().values())
    draw(regimes, PAGE.parent)
    text = PAGE.read_text("utf-8")
    for marks, made in ((MARKS, tables(regimes)), (SEARCH_MARKS, searches())):
        begin, end = marks
        before, _, rest = text.partition(begin)
        _, there, after = rest.partition(end)
        if not there:
            raise SystemExit(f"{PAGE} has no {begin.strip()} with an end")
        text = before + begin + made + end + after
    PAGE.write_text(text, "utf-8")


def _seconds(kept: Sequence[Mapping[str, Any]]) -> float:
    """What the runs took; the epochs that one had from an earlier one of its seed it did not train
    itself."""
    done: dict[int, list[Mapping[str, Any]]] = {}
    took = 0.0
    for record in sorted(
        kept, key=lambda one: (one["cost"]["epochs"], one["method"] == "early_stop")
    ):
        earlier = done.setdefault(record["seed"], [])
        shared = 0
        if record["branched"]:
            shared = max((_shared(record["plan"], other["plan"]) for other in earlier), default=0)
        took += record["seconds"] * (1 - shared / max(1, record["cost"]["epochs"]))
        earlier.append(record)
    return took


def _shared(plan: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> int:
    """Epochs of the first phases that two plans have in common, the last one's left out."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(plan[:-1], other, strict=False))
    return sum(phase["length"] for phase, _ in alike)


def _row(
    study: str,
    label: str,
    summary: Summary,
    kept: list[dict[str, Any]],
    best: str,
    controls: list[str],
) -> Row:
    mine = summary.scores[label]
    matched = own_controls(summary.scores, CONTROL).get(label, CONTROL)

    def against(control: str) -> Difference:
        return _paired(mine, summary.scores[control], higher_is_better=summary.higher_is_better)

    losses: dict[str, dict[int, float]] = {}
    for record in kept:
        if "loss" in record[summary.split]:
            scores = losses.setdefault(record["method"], {})
            scores[record["seed"]] = record[summary.split]["loss"]
    has_loss = losses and summary.metric != "loss"
    return Row(
        study=study,
        plan=label,
        seeds=len(mine),
        score=mean(mine.values()),
        to_matched=against(matched),
        best=best,
        to_best=against(best),
        to_tuned=_to_tuned(study, mine),
        others={name: against(name) for name in ("swa", "early_stop") if name in controls},
        loss=_paired(losses[label], losses[matched], higher_is_better=True) if has_loss else None,
    )


def _to_tuned(study: str, mine: Mapping[int, float]) -> Difference | None:
    """To the control that the search on this study's network found, over the same seeds."""
    if study not in TUNED:
        return None
    one = searched(TUNED[study])
    return _paired(mine, one.control, higher_is_better=one.found["higher_is_better"])


def _paired(
    mine: Mapping[int, float], other: Mapping[int, float], *, higher_is_better: bool
) -> Difference:
    shared = sorted(mine.keys() & other.keys())
    return paired_difference(
        [mine[seed] for seed in shared],
        [other[seed] for seed in shared],
        higher_is_better=higher_is_better,
    )


def _about(one: Regime) -> tuple[str, ...]:
    converged = one.summary.convergence
    if converged is None:
        said = "starts from a trained network"
    else:
        gain = f"the control gains {converged.gain:+.2f}, spread {converged.spread:.2f}"
        said = f"{'yes' if converged.is_converged else '**no**'} ({gain})"
    name = f"`{one.name}`: {one.words}"
    seeds = max(len(scores) for scores in one.summary.scores.values())
    return name, said, f"{seeds}", f"{one.hours:.1f}"


def _cells(one: Regime, row: Row) -> tuple[str, ...]:
    metric = f"{row.score:.2f} {one.summary.metric}"
    beside = f"{_interval(row.to_best)} (`{row.best}`)"
    others = (
        _interval(row.others[name]) if name in row.others else "not run"
        for name in ("swa", "early_stop")
    )
    loss = "" if row.loss is None else _interval(row.loss, 3)
    return (
        f"`{row.study}`",
        f"`{row.plan}`",
        metric,
        _interval(row.to_matched),
        beside,
        "not run" if row.to_tuned is None else _interval(row.to_tuned),
        *others,
        loss,
    )


def _interval(difference: Difference, digits: int = 2) -> str:
    """``+1.97 [1.26, 2.67]``, bold where it leaves zero out at p below 0.05."""
    low, high = difference.interval
    said = f"{difference.mean:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    clear = not low <= 0 <= high and difference.p_value < 0.05 and math.isfinite(low)
    return f"**{said}**" if clear else said


if __name__ == "__main__":
    main()
