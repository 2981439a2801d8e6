"""The report's numbers for machines: one row per run as CSV, all that was compared as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from redense.report.records import Group
from redense.study.compare import Contrast
from redense.study.convergence import Convergence
from redense.study.summary import Summary, sentences


def runs_csv(groups: Sequence[Group]) -> str:
    """One row per run: study, method, seed, cost, and every score as ``test_top1`` or
    ``valid_loss``."""
    rows = []
    for group in groups:
        for label in group.labels:
            rows += [_row(group.name, label, run.record) for run in group.of(label)]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def group_numbers(group: Group, summary: Summary | None) -> dict[str, Any]:
    """A group as data: its metric, its runs, and what they come to."""
    runs = [
        _row(group.name, label, run.record) for label in group.labels for run in group.of(label)
    ]
    return {
        "name": group.name,
        "trained": group.trained,
        "metric": group.record["metric"],
        "plans": {label: group.plan_of(label) for label in group.labels},
        "runs": runs,
        "failed": [{"run": name, "error": error} for name, error in group.failed],
        "comparison": summary and _comparison(summary),
    }


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element; what is no finite number becomes null."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _row(study: str, label: str, record: Mapping[str, Any]) -> dict[str, Any]:
    scores = {
        f"{split}_{name}": value
        for split in ("test", "valid")
        for name, value in record[split].items()
    }
    cost = record["cost"]
    return {
        "study": study,
        "method": label,
        "seed": record["seed"],
        "epochs": cost["epochs"],
        "examples": cost["examples"],
        "seconds": record["seconds"],
        **scores,
    }


def _comparison(summary: Summary) -> dict[str, Any]:
    """Means and differences in the metric's own direction."""
    comparison = summary.comparison
    methods = {}
    for name, mine in comparison.summaries.items():
        methods[name] = asdict(mine) | {
            "epochs": summary.epochs[name],
            "minus_control": _contrast(summary, comparison.to_control.get(name)),
            "minus_baseline": _contrast(summary, comparison.to_baseline.get(name)),
        }
    return {
        "split": summary.split,
        "metric": summary.metric,
        "control": comparison.control,
        "baseline": comparison.baseline,
        "confidence": comparison.confidence,
        "methods": methods,
        "convergence": summary.convergence and _convergence(summary.convergence),
        "pick": summary.choice.method,
        "verdict": sentences(summary),
    }


def _convergence(measured: Convergence) -> dict[str, Any]:
    """What plain further training gains after the dense phase; positive is better."""
    return {
        "gain": measured.gain,
        "spread": measured.spread,
        "seeds": len(measured.gains),
        "is_converged": measured.is_converged,
    }


def _contrast(summary: Summary, contrast: Contrast | None) -> dict[str, Any] | None:
    if contrast is None:
        return None
    sign = 1 if summary.higher_is_better else -1
    return {
        "mean": sign * contrast.difference.mean,
        "interval": sorted(sign * bound for bound in contrast.difference.interval),
        "seeds": contrast.difference.n,
        "p_holm": contrast.holm_p,
        "outcome": contrast.outcome,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
