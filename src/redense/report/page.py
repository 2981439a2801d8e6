"""``redense report PATH...``: runs and studies as one HTML page that needs no network.

    report([Path("results/images")], Path("report.html"))

What the page says comes from the records alone (and the histograms beside them);
`redense.study.summary` judges.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ImportError(
        "redense report needs plotly and jinja2: pip install 'redense[study]'"
    ) from error

from redense import __version__
from redense.recipes import RECIPES
from redense.report.facts import command, facts
from redense.report.figures import curves, forest, styles
from redense.report.records import Group, load
from redense.report.tables import beside_table, phases_table, runs_table, scores_table, strips
from redense.report.weights import (
    histogram_table,
    histograms,
    overlap_table,
    overlaps,
    released_table,
)
from redense.runs.checkpoints import write_text
from redense.study.methods import BASELINE, CONTROL, is_proved
from redense.study.summary import Summary, summarize_records
from redense.study.verdict import answer

_EXTRA_BYTES = 2_000_000
"""How much recipes' own sections may add, so that a page with pictures stays below 6 MB."""
_LEFT_OUT = Markup(
    "<p>They would make this page too large; <code>redense report {}</code> shows them.</p>"
)


def report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page on the runs and studies at ``paths`` to ``out``, by default the first path's
    report.html.

    Raises:
        FileNotFoundError, ValueError: a path without a finished run, or one whose records do not
            belong together.
    """
    groups = load(paths)
    target = out or Path(paths[0]) / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, render(groups))
    return target


def render(groups: Sequence[Group]) -> str:
    """The page as text; everything that comes from a record is escaped."""
    environment = Environment(
        loader=PackageLoader("redense.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures: dict[str, Any] = {}
    parts = [_part(group, f"g{number}", figures) for number, group in enumerate(groups)]
    return environment.get_template("report.html").render(
        title=parts[0]["title"] if len(parts) == 1 else f"{len(parts)} reports",
        parts=parts,
        figures=Markup(_script_json(figures)),
        library=_library(),
        Markup=Markup,
        version=__version__,
    )


@cache
def _library() -> str:
    """Plotly's script at 40 % of its size; the page unpacks it itself."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _part(group: Group, key: str, figures: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one group; its figures go to ``figures``."""
    record = group.runs[0].record
    metric = record["metric"]
    look = styles(group.labels)
    part: dict[str, Any] = {
        "key": key,
        "group": group,
        "title": _title(group),
        "subtitle": _subtitle(group),
        "legend": [(label, *look[label]) for label in group.labels],
        "strips": strips(group, look),
        "phases": phases_table(group),
        "runs": runs_table(group),
        "released": released_table(group),
        "command": command(group),
        "facts": facts(group),
        "extra": _extra(group),
        "averaged": any(label.partition("@")[0] == "swa" for label in group.labels),
        "results": _results(group),
        **_verdict(group, key, figures),
    }
    unit = f" ({metric['unit']})" if metric["unit"] else ""
    drawn = {
        f"{key}-score": curves(
            group, f"valid_{metric['name']}", f"validation {metric['name']}{unit}"
        ),
        f"{key}-valid-loss": curves(group, "valid_loss", "validation loss")
        if metric["name"] != "loss"
        else None,
        f"{key}-train-loss": curves(group, "train_loss", "training loss"),
        f"{key}-overlap": overlaps(group),
    }
    figures |= {name: figure for name, figure in drawn.items() if figure}
    if counts := histograms(group):
        figures[f"{key}-histograms"] = {"histograms": counts}
        part["histogram_tables"] = [
            histogram_table(name, layers) for name, layers in counts.items()
        ]
    if f"{key}-overlap" in figures:
        part["overlap_table"] = overlap_table(group)
    return {"histogram_tables": [], "overlap_table": None} | part | {"drawn": {*figures}}


def _verdict(group: Group, key: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The judgement and its forest plots, or why there is none."""
    if len(group.labels) < 2 and not group.is_study:
        return {"summary": None, "refusal": None}
    try:
        failed = [f"{name} ({error})" for name, error in group.failed]
        summary = summarize_records(group.records, failed=failed)
    except ValueError as error:
        return {"summary": None, "refusal": str(error)}
    others = [name for name in group.labels if name not in (CONTROL, BASELINE)]
    beside = [name for name in group.labels if name in summary.comparison.to_baseline]
    to_control = summary.comparison.to_control
    figures[f"{key}-forest"] = forest(summary, to_control, others or list(to_control), CONTROL)
    figures[f"{key}-beside"] = forest(summary, summary.comparison.to_baseline, beside, BASELINE)
    proved = [name for name in group.labels if name in to_control and is_proved(name)]
    return {
        "summary": summary,
        "refusal": None,
        "scores": scores_table(group, summary),
        "beside": beside_table(group, summary),
        "answer": answer(summary.verdicts[proved[0]]).partition(": ")[0] if proved else "",
        "proved": [_headed(summary, name) for name in proved],
        "rest": [
            _headed(summary, name)
            for name in group.labels
            if name in to_control and name not in proved
        ],
        "least": _least(summary),
    }


def _headed(summary: Summary, name: str) -> tuple[str, str]:
    """A verdict's sentence as what it says and why."""
    head, _, why = summary.verdicts[name].sentence.partition(": ")
    return head if head.startswith(name) else head[0].upper() + head[1:], why


def _least(summary: Summary) -> int | None:
    """The seeds it takes, where there are too few for any verdict."""
    verdicts = list(summary.verdicts.values())
    return (
        verdicts[0].least_seeds if all(one.outcome == "too few seeds" for one in verdicts) else None
    )


def _title(group: Group) -> str:
    record = group.runs[0].record
    if group.is_study:
        return "Does dense-sparse-dense training help?"
    data = record["data"].get("name") or record["recipe"]
    return (
        f"{group.runs[0].label} on {data}"
        if len(group.runs) == 1
        else f"{len(group.runs)} runs on {data}"
    )


def _subtitle(group: Group) -> str:
    record = group.runs[0].record
    seeds = {run.seed for run in group.runs}
    parts = [record["options"].get("model"), f"{record['recipe']} recipe"]
    if group.is_study:
        parts = [record["data"].get("name"), *parts, f"{len(group.labels)} methods"]
    parts.append(f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {record['seed']}")
    return " · ".join(
        str(part) for part in (*parts, f"{len(group.runs)} runs" * (len(group.runs) > 1)) if part
    )


def _recipe(group: Group) -> str:
    return str(group.runs[0].record["recipe"])


def _results(group: Group) -> list[tuple[str, str]]:
    """A single run's scores on the two splits."""
    if len(group.runs) > 1:
        return []
    record = group.runs[0].record
    name, unit = record["metric"]["name"], record["metric"]["unit"]
    return [
        (f"{words} {name}", f"{record[split][name]:.2f} {unit}".rstrip())
        for split, words in (("test", "test"), ("valid", "validation"))
        if name in record[split]
    ]


def _extra(group: Group) -> list[tuple[str, str, Markup]]:
    """(run, title, HTML) of what the recipe's own ``report`` module shows: each method's first seed
    that has any."""
    module = f"redense.recipes.{_recipe(group)}.report"
    if _recipe(group) not in RECIPES or find_spec(module) is None:
        return []
    found: list[tuple[str, str, Markup]] = []
    size = 0
    for label in group.labels:
        for run in group.of(label):
            if sections := import_module(module).sections(run.folder):
                size += sum(len(text) for _, text in sections)
                name = f"{label}, seed {run.seed}"
                if size <= _EXTRA_BYTES:
                    found += [(name, title, Markup(text)) for title, text in sections]
                else:
                    found.append((name, "Examples left out", _LEFT_OUT.format(run.folder)))
                break
    return found


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element; what is no finite number becomes null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).replace(
        "<", "\\u003c"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
