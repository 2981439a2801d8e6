"""From records to what they say: scores by method and seed, the comparison, the verdict, a table
for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from redense.runs.task import Metric
from redense.study.compare import Comparison, Contrast, compare
from redense.study.convergence import Convergence, measure
from redense.study.looks import confidence, looks
from redense.study.methods import BASELINE, CONTROL, is_proved, own_controls, set_aside, simplicity
from redense.study.verdict import (
    Choice,
    Verdict,
    best_method,
    decimals,
    on_convergence,
    verdict,
)

_WIDTH = 80


@dataclass(frozen=True)
class Summary:
    """What a folder of records comes to on one split and metric."""

    split: str
    metric: str
    unit: str
    higher_is_better: bool
    scores: Mapping[str, Mapping[int, float]]
    epochs: Mapping[str, float]
    comparison: Comparison
    verdicts: Mapping[str, Verdict]
    choice: Choice
    failed: Sequence[str] = ()
    most: int | None = None
    """Seeds of a study that added them as it needed them; None where their number was fixed."""
    convergence: Convergence | None = None
    """Of the dense phase on validation; None where there is no such phase, or no validation
    score."""

    @property
    def on_convergence(self) -> str:
        """Whether the dense phase has converged, in words; empty where that is no question."""
        if self.convergence is None:
            return ""
        control, metric = self.comparison.control, f"validation {self.metric}"
        return on_convergence(self.convergence, control=control, metric=metric, unit=self.unit)

    @property
    def decimals(self) -> int:
        """Of scores and differences in a table: three, or what the finest interval needs."""
        contrasts = self.comparison.to_control.values()
        return max(3, *(decimals(contrast) for contrast in contrasts))


def summarize_records(
    records: Sequence[Mapping[str, Any]],
    split: str = "test",
    *,
    metric: str | None = None,
    failed: Sequence[str] = (),
    control: str = CONTROL,
    baseline: str = BASELINE,
    most: int | None = None,
) -> Summary:
    """Compare the methods of a study's records, paired over seeds, on ``test`` or ``valid``.

    Args:
        metric: another score of the same unit and direction than the recipe's own, such as ``cer``
            beside ``wer``.
        failed: runs that have no record, each with its reason.
        control, baseline: what every method is judged against; one may be both.
        most: seeds, where they were added until the verdict was clear (`redense.study.looks`).

    Raises:
        ValueError: too few methods or seeds, no control, or records of different tasks.
    """
    check_comparable(records)
    _check_methods(records)
    if split == "test" and not all(record["test"] for record in records):
        split = "valid"
    kind = records[0]["metric"]
    metric = metric or kind["name"]
    scores: dict[str, dict[int, float]] = {}
    epochs: dict[str, float] = {}
    for record in records:
        scores.setdefault(record["method"], {})[record["seed"]] = record[split][metric]
        epochs[record["method"]] = record["cost"]["epochs"]
    higher = kind["higher_is_better"]
    aside = set_aside(control)
    for name in aside & scores.keys():
        if len(scores[name]) < 2:  # the others are judged without
            del scores[name]
    comparison = compare(
        scores,
        control=control,
        baseline=baseline,
        higher_is_better=higher,
        confidence=confidence(most),
        matched=own_controls(scores, control),
        aside=aside,
    )
    said = f"{split} {metric}"
    return Summary(
        split=split,
        metric=metric,
        unit=kind["unit"],
        higher_is_better=higher,
        scores=scores,
        epochs=epochs,
        comparison=comparison,
        verdicts={
            name: verdict(comparison, name, unit=kind["unit"], metric=said, epochs=epochs)
            for name in comparison.to_control
        },
        choice=best_method(
            scores,
            simplest_first=sorted(scores, key=simplicity),
            higher_is_better=higher,
            confidence=comparison.confidence,
            metric=said,
            epochs=epochs,
        ),
        failed=tuple(failed),
        most=most,
        convergence=_convergence(records, metric, control, baseline, higher_is_better=higher),
    )


def check_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse records that differ in task, data or options: their scores cannot be compared."""
    if not records:
        raise ValueError("no finished run: nothing to compare; redense prove makes records")
    first = records[0]
    for record in records[1:]:
        for key, mine, theirs in (
            ("recipe", record["recipe"], first["recipe"]),
            ("data", record["data"]["sha256"], first["data"]["sha256"]),
            ("options", record["options"], first["options"]),
            ("the judged metric", record["metric"]["name"], first["metric"]["name"]),
        ):
            if mine != theirs:
                raise ValueError(
                    f"{record['method']}--{record['seed']} and {first['method']}--{first['seed']} "
                    f"differ in {key}: "
                    f"report them apart"
                )


def _convergence(
    records: Sequence[Mapping[str, Any]],
    metric: str,
    control: str,
    baseline: str,
    *,
    higher_is_better: bool,
) -> Convergence | None:
    """What the control gains after the dense phase, which is the baseline's whole training."""
    valid: dict[str, dict[int, float]] = {baseline: {}, control: {}}
    for record in records:
        trained = record["cost"]["epochs"] > 0  # a network scored as it came has no dense phase
        if record["method"] in valid and trained and metric in record["valid"]:
            valid[record["method"]][record["seed"]] = record["valid"][metric]
    if baseline == control or len(valid[baseline].keys() & valid[control].keys()) < 2:
        return None
    return measure(valid[baseline], valid[control], higher_is_better=higher_is_better)


def _check_methods(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a run that comes twice, and a method whose runs have several plans."""
    first: dict[str, Mapping[str, Any]] = {}
    seen: set[tuple[str, int]] = set()
    for record in records:
        method, run = record["method"], (record["method"], record["seed"])
        name = f"{method}--{record['seed']}"
        if run in seen:
            raise ValueError(
                f"two records are called {name}: move the copy that does not count elsewhere"
            )
        seen.add(run)
        other = first.setdefault(method, record)
        if record.get("plan") != other.get("plan"):
            raise ValueError(
                f"{name} has another plan than {method}--{other['seed']}: runs of one method need "
                "one plan; report them apart"
            )


def print_summary(summary: Summary, console: Console | None = None) -> None:
    """A row per method, then the verdict on dense-sparse-dense and the method to pick."""
    console = console or Console()
    print_table(summary, console)
    console.print()
    console.print("\n\n".join(sentences(summary)), soft_wrap=True)


def print_table(summary: Summary, console: Console) -> None:
    """A row per method, in 80 columns; what is longer than its column goes on below."""
    counts = {len(scores) for scores in summary.scores.values()}
    seeds = f", {counts.pop()} seeds" if len(counts) == 1 else ""
    table = Table(
        "method", box=SIMPLE_HEAD, title=_titled(summary, " ({})") + seeds, show_edge=False
    )
    table.padding = (0, 1, 0, 0)
    titles = _titles(summary)
    hidden = {"seeds"} if seeds else set()
    if summary.comparison.baseline != summary.comparison.control:
        hidden.add(f"minus {summary.comparison.baseline}")
    shown = [name for name in titles if name not in hidden]
    for title in shown:
        narrow = title.replace("minus ", "minus\n").replace(" (", "\n(")
        table.add_column(narrow, justify="right", overflow="fold")
    table.columns[0].overflow = "fold"
    for name, *row in _rows(summary):
        cells = dict(zip(titles, row, strict=True))
        table.add_row(name, *(cells[title] for title in shown))
    console.print(table, width=min(console.width, _WIDTH))


def sentences(summary: Summary) -> list[str]:
    """Does it help? The answer for each method under proof, whether the dense phase has converged,
    and the method to pick."""
    proved = [name for name in summary.verdicts if is_proved(name)]
    missing = [f"Missing, as they failed: {'; '.join(summary.failed)}."] if summary.failed else []
    converged = [summary.on_convergence] if summary.convergence else []
    doubted = Metric(summary.metric, summary.higher_is_better).doubt
    doubt = [f"Warning: {doubted}."] if doubted else []
    return [
        *doubt,
        *(summary.verdicts[name].answer for name in proved),
        *converged,
        summary.choice.sentence,
        *_growth(summary),
        *missing,
    ]


def settled(summary: Summary, within: float | None) -> bool:
    """Whether more seeds are not needed: every method under proof helps, hurts, or is known to
    ``within``, the width of its interval."""
    contrasts = [
        contrast for name, contrast in summary.comparison.to_control.items() if is_proved(name)
    ]
    return all(
        contrast.outcome in ("helps", "hurts") or (within is not None and _width(contrast) < within)
        for contrast in contrasts
    )


def _width(contrast: Contrast) -> float:
    low, high = contrast.difference.interval
    return high - low


def _growth(summary: Summary) -> list[str]:
    if summary.most is None:
        return []
    *before, last = looks(summary.most)
    seeds = " or ".join([", ".join(map(str, before)), str(last)]) if before else str(last)
    level = 1 - summary.comparison.confidence
    return [
        f"Seeds were added until the verdict was clear: judged at {seeds} seeds, each time at p "
        f"below {level:.2g}, so that all looks together find what is not there in at most 5 %."
    ]


def as_markdown(summary: Summary) -> str:
    """The same table and sentences for a README."""
    titles = ("method", *_titles(summary))
    lines = [titles, ("---",) * len(titles), *_rows(summary)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    direction = "higher" if summary.higher_is_better else "lower"
    return f"{_titled(summary, ' in {}')}, {direction} is better:\n\n{table}\n\n" + "\n\n".join(
        sentences(summary)
    )


def _titles(summary: Summary) -> tuple[str, ...]:
    control, baseline = summary.comparison.control, summary.comparison.baseline
    interval = f"{100 * summary.comparison.confidence:g} % interval"
    titles = ("epochs", "seeds", "mean", "sd", f"minus {control}", interval, "p (Holm)")
    return titles if baseline == control else (*titles, f"minus {baseline}")


def _titled(summary: Summary, form: str) -> str:
    """The score with its unit, where it has one."""
    unit = form.format(summary.unit) if summary.unit else ""
    return f"{summary.split} {summary.metric}{unit}"


def _rows(summary: Summary) -> list[tuple[str, ...]]:
    sign = 1 if summary.higher_is_better else -1
    rows, d = [], summary.decimals
    for name in sorted(summary.scores, key=simplicity):
        mine = summary.comparison.summaries[name]
        row = [
            name,
            f"{summary.epochs[name]:g}",
            f"{mine.n}",
            f"{mine.mean:.{d}f}",
            f"{mine.sd:.{d}f}",
        ]
        if name in summary.comparison.to_control:
            contrast = summary.comparison.to_control[name]
            low, high = sorted(sign * bound for bound in contrast.difference.interval)
            row += [
                f"{sign * contrast.difference.mean:+.{d}f}",
                f"{low:+.{d}f} to {high:+.{d}f}",
                f"{contrast.holm_p:.3f}",
            ]
        else:
            row += ["", "the control" if name == summary.comparison.control else "", ""]
        if summary.comparison.baseline != summary.comparison.control:
            beside = summary.comparison.to_baseline.get(name)
            row.append("" if beside is None else f"{sign * beside.difference.mean:+.{d}f}")
        rows.append(tuple(row))
    return rows
