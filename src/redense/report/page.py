"""``redense report PATH...``: runs and studies as one HTML page that needs no network.

    report([Path("results/images")], Path("report.html"))

What the page says comes from the records alone (and the histograms beside them);
`redense.study.summary` judges.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

try:
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError(
        "redense report needs plotly and jinja2: pip install 'redense[study]'"
    ) from error

from redense import __version__
from redense.report.facts import commands, facts
from redense.report.figures import (
    Figure,
    column_title,
    columns,
    curves,
    effect_against_cost,
    forest,
    judged_column,
    styles,
)
from redense.report.markup import ENVIRONMENT, section_html
from redense.report.numbers import group_numbers, runs_csv, script_json
from redense.report.records import Group, load
from redense.report.searched import SIDES, Searched, read_search, search_verdict
from redense.report.tables import (
    Strip,
    beside_table,
    other_tables,
    phases_table,
    runs_table,
    scores_table,
    strips,
)
from redense.report.weights import (
    hardly_grown,
    histogram_table,
    histograms,
    overlap_table,
    overlaps,
    released_table,
)
from redense.runs.checkpoints import make_folder, write_text
from redense.runs.sections import Sections, Table
from redense.study.looks import looked_before
from redense.study.methods import is_proved
from redense.study.summary import Summary, sentences, summarize_records
from redense.study.verdict import Verdict

_EXTRA_BYTES = 2_000_000
"""How much recipes' own sections may add, so that a page with pictures stays below 6 MB."""
_LEFT_OUT = Markup(
    "<p>They would make this page too large; <code>redense report {}</code> shows them.</p>"
)


@dataclass(frozen=True)
class Judgement:
    """What a group comes to: ``proved`` are forms of dense-sparse-dense and plans of the user's
    own, ``rest`` the controls."""

    summary: Summary
    proved: list[Verdict]
    rest: list[Verdict]
    scores: Table
    beside: Table
    others: list[Table]

    @property
    def least_seeds(self) -> int | None:
        """The seeds it takes, where there are too few for any verdict."""
        verdicts = [*self.proved, *self.rest]
        few = all(verdict.outcome == "too few seeds" for verdict in verdicts)
        return verdicts[0].least_seeds if few else None


@dataclass(frozen=True)
class Curve:
    """One logged column's figure."""

    key: str
    title: str


@dataclass(frozen=True)
class Part:
    """What the page shows of one group; ``drawn`` names its figures."""

    key: str
    group: Group
    title: str
    subtitle: str
    judgement: Judgement | None
    refusal: str | None
    results: list[tuple[str, str]]
    legend: list[tuple[str, str, str]]
    strips: list[Strip]
    curves: list[Curve]
    phases: Table | None
    runs: Table
    released: Table | None
    hardly_grown: list[str]
    search: Searched | None
    overlap: Table | None
    histograms: list[Table]
    commands: list[str]
    facts: list[tuple[str, str]]
    extra: list[tuple[str, str, Markup]]
    figures: dict[str, Figure] = field(repr=False)

    @property
    def averaged(self) -> bool:
        """Whether a method's score is not that of its curve."""
        return any(label.partition("@")[0] == "swa" for label in self.group.labels)


def report(
    paths: Sequence[Path], out: Path | None = None, *, sections: Sections | None = None
) -> Path:
    """Write the page on the runs and studies at ``paths`` to ``out``, by default the first path's
    report.html, and one row per run beside it, to study.csv or, of a page called proof.html, to
    proof.csv.

    Args:
        sections: what a run's folder has to show beyond its record; each method's first seed that
            has any is shown.

    Raises:
        FileNotFoundError, ValueError: a path without a finished run, or one whose records do not
            belong together; another table stands where the page's would.
    """
    groups = load(paths)
    target = out or Path(paths[0]) / "report.html"
    numbers = target.with_name("study.csv" if target.stem == "report" else f"{target.stem}.csv")
    text, rows = render(groups, sections, numbers.name), runs_csv(groups)
    _check_ours(numbers, rows)
    make_folder(target.parent, f"the page {target.name}")
    write_text(target, text)
    write_text(numbers, rows)
    return target


def _check_ours(numbers: Path, rows: str) -> None:
    """Refuse to replace a table that is none of a page's: its first columns are others."""
    if not numbers.is_file():
        return
    with numbers.open("rb") as file:
        there = file.readline(1000).decode("utf-8", "replace").strip()
    if there.split(",")[:6] != rows.partition("\n")[0].split(",")[:6]:
        raise ValueError(
            f"{numbers} is no report's table and would be overwritten; give the page another name, "
            "which its table takes"
        )


def verdict(study: Path) -> str:
    """What the study in a folder says, in words, a paragraph for each answer; of a search, and of
    the study that confirms one, what the search says.

    Raises:
        FileNotFoundError, ValueError: it holds no finished run, or too few for a verdict.
    """
    study = study.resolve()
    search = study.parent if study.name == "confirm" else study
    if (search / "found.json").is_file():
        return search_verdict(search)
    (group,) = load([study])
    judgement, refusal = _judge(group)
    if judgement is None:
        raise ValueError(f"{study} has no verdict: {refusal or 'it is a single run'}")
    return "\n\n".join([*sentences(judgement.summary), *looked_before(group.looks)])


def render(
    groups: Sequence[Group], sections: Sections | None = None, beside: str = "study.csv"
) -> str:
    """The page as text, which names the file of its rows ``beside`` it; everything that comes from
    a record is escaped."""
    parts = [_part(group, f"g{place}", sections) for place, group in enumerate(groups)]
    figures = {key: figure for part in parts for key, figure in part.figures.items()}
    numbers = [
        group_numbers(part.group, part.judgement.summary if part.judgement else None)
        for part in parts
    ]
    return ENVIRONMENT.get_template("report.html").render(
        title=parts[0].title if len(parts) == 1 else f"{len(parts)} reports",
        parts=parts,
        figures=Markup(script_json(figures)),
        numbers=Markup(script_json(numbers)),
        beside=beside,
        library=_library(),
        Markup=Markup,
        version=__version__,
    )


@cache
def _library() -> str:
    """Plotly's script at 40 % of its size; the page unpacks it itself."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _part(group: Group, key: str, sections: Sections | None) -> Part:
    look = styles(group.labels)
    colours = {label: colour for label, (colour, _) in {**styles(SIDES), **look}.items()}
    search = read_search(group.search, colours) if group.search else None
    judgement, refusal = _judge(group)
    figures = _judged_figures(group, key, judgement) if judgement else {}
    drawn = []
    for place, column in enumerate(columns(group)):
        name = f"{key}-score" if column == judged_column(group) else f"{key}-curve-{place}"
        if figure := curves(group, column):
            figures[name] = figure
            drawn.append(Curve(name, column_title(group, column)))
    for name, figure in search.figures.items() if search else ():
        figures[f"{key}-search-{name}"] = figure
    counts = histograms(group)
    if counts:
        figures[f"{key}-histograms"] = {"histograms": counts}
    shared = overlaps(group)
    if shared:
        figures[f"{key}-overlap"] = shared
    return Part(
        key=key,
        group=group,
        title=_title(group),
        subtitle=_subtitle(group),
        judgement=judgement,
        refusal=refusal,
        results=_results(group),
        legend=[(label, *look[label]) for label in group.labels],
        strips=strips(group, look),
        curves=drawn,
        phases=phases_table(group),
        runs=runs_table(group),
        released=released_table(group),
        hardly_grown=hardly_grown(group),
        search=search,
        overlap=overlap_table(group) if shared else None,
        histograms=[histogram_table(name, layers) for name, layers in counts.items()],
        commands=commands(group),
        facts=facts(group),
        extra=_extra(group, sections) if sections else [],
        figures=figures,
    )


def _judge(group: Group) -> tuple[Judgement | None, str | None]:
    """The judgement, or why there is none; a single run asks for neither."""
    if len(group.labels) < 2 and not group.is_study:
        return None, None
    try:
        failed = [f"{name} ({error})" for name, error in group.failed]
        summary = summarize_records(group.records, failed=failed, **group.against)
    except ValueError as error:
        return None, str(error)
    judged = [summary.verdicts[name] for name in group.labels if name in summary.verdicts]
    return Judgement(
        summary,
        [verdict for verdict in judged if is_proved(verdict.method)],
        [verdict for verdict in judged if not is_proved(verdict.method)],
        scores_table(summary),
        beside_table(summary),
        other_tables(group, summary),
    ), None


def _judged_figures(group: Group, key: str, judgement: Judgement) -> dict[str, Figure]:
    summary = judgement.summary
    control, baseline = summary.comparison.control, summary.comparison.baseline
    to_control, to_baseline = summary.comparison.to_control, summary.comparison.to_baseline
    others = [name for name in group.labels if name not in (control, baseline)]
    beside = [name for name in group.labels if name in to_baseline]
    others = [name for name in others if name in to_control]
    return {
        f"{key}-forest": forest(summary, to_control, others or list(to_control), control),
        f"{key}-beside": forest(summary, to_baseline, beside, baseline),
        f"{key}-cost": effect_against_cost(summary),
    }


def _title(group: Group) -> str:
    if group.search:
        return "Does the best plan beat the best tuned control?"
    if group.is_study:
        return "Does dense-sparse-dense training help?"
    data = group.record["data"]["name"]
    if len(group.runs) == 1:
        return f"{group.runs[0].label} on {data}"
    return f"{len(group.runs)} runs on {data}"


def _subtitle(group: Group) -> str:
    record = group.record
    seeds = {run.seed for run in group.runs}
    parts = [record["options"].get("model")]
    if record["recipe"]:
        parts.append(f"{record['recipe']} recipe")
    if group.is_study:
        parts = [record["data"]["name"], *parts, f"{len(group.labels)} methods"]
    parts.append(f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {record['seed']}")
    if len(group.runs) > 1:
        parts.append(f"{len(group.runs)} runs")
    return " · ".join(str(part) for part in parts if part)


def _results(group: Group) -> list[tuple[str, str]]:
    """A single run's scores on the two splits."""
    if len(group.runs) > 1:
        return []
    record = group.record
    name, unit = record["metric"]["name"], record["metric"]["unit"]
    return [
        (f"{words} {name}", f"{record[split][name]:.4g} {unit}".rstrip())
        for split, words in (("test", "test"), ("valid", "validation"))
        if name in record[split]
    ]


def _extra(group: Group, sections: Sections) -> list[tuple[str, str, Markup]]:
    """(run, title, HTML) of what each method's first seed that has any shows beyond its record."""
    shown: list[tuple[str, str, Markup]] = []
    size = 0
    for label in group.labels:
        for run in group.of(label):
            if not (own := sections(run.folder)):
                continue
            drawn = [(section.title, section_html(section)) for section in own]
            size += sum(len(text) for _, text in drawn)
            name = f"{label}, seed {run.seed}"
            if size <= _EXTRA_BYTES:
                shown += [(name, title, text) for title, text in drawn]
            else:
                shown.append((name, "Examples left out", _LEFT_OUT.format(run.folder)))
            break
    return shown
