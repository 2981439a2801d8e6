"""What a report says of a search: its verdict, score against tuning budget, score against each
choice, and the best trials; read from the ``found.json`` that a search leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from redense.files.typed import Count, Kind, Number, read_json
from redense.report.figures import Figure, plain
from redense.runs.sections import Cell, Table, number

SIDES = ("plan", "control")
_CHOICES = {"sparsity": "sparsity", "mask": "mask", "passes": "passes", "layers": "layers held"}


class _Tried(TypedDict):
    """A trial."""

    side: str
    number: Count
    words: str
    choices: dict[str, Any]
    score: Number | None
    seeds: Count
    in_full: bool
    error: str


class _Budget(TypedDict):
    """What a smaller search would have found."""

    metric: str
    usual: dict[str, Number]
    curves: dict[str, dict[str, Number]]


class _Found(TypedDict):
    """found.json."""

    metric: str
    higher_is_better: bool
    verdict: list[str]
    said: list[str]
    budget: _Budget | None
    tried: list[_Tried]


_FOUND = Kind(_Found, "outcome of a search", "the search's command writes it anew")


@dataclass(frozen=True)
class Searched:
    """A search's own part of the page.

    Args:
        verdict: whether to use the plan, a paragraph each.
        said: what mattered, what was spent, and from which budget on controls catch up.
        figures: Plotly data by name, ``budget`` first where there is one.
        titles: of the figures, in words.
    """

    verdict: Sequence[str]
    said: Sequence[str]
    figures: Mapping[str, Figure]
    titles: Mapping[str, str]
    tables: Sequence[Table]


def search_verdict(folder: Path) -> str:
    """What a search that has ended says of its plan, a paragraph for each answer."""
    return "\n\n".join(_read(folder / "found.json")["verdict"])


def read_search(folder: Path, colours: Mapping[str, str]) -> Searched:
    """Of the folder of a search that has ended; ``colours`` of the plan and of the control."""
    found = _read(folder / "found.json")
    figures, titles = {}, {}
    budget = found["budget"]
    if budget is not None:
        figures["budget"] = _budget(budget, colours)
        titles["budget"] = f"Expected {budget['metric']} against the number of trials"
    for choice, words in _CHOICES.items():
        if any(choice in one["choices"] for one in found["tried"]):
            figures[choice] = _choice(found, choice, words, colours)
            titles[choice] = f"Validation score of every plan against its {words}"
    return Searched(
        verdict=found["verdict"],
        said=found["said"],
        figures=figures,
        titles=titles,
        tables=[
            *([] if budget is None else [_budgets(budget)]),
            *(_ranked(found, side) for side in SIDES),
        ],
    )


def _read(file: Path) -> _Found:
    found = read_json(file, _FOUND)
    budget = found["budget"]
    lacking = ""
    if not _controls_in_full(found):
        lacking = "control with a score on every seed"
    if budget is not None and not set(SIDES) <= budget["usual"].keys() & budget["curves"].keys():
        lacking = "budget of both sides"
    if lacking:
        raise ValueError(f"{file} is no {_FOUND.what}: it has no {lacking}; {_FOUND.remedy}")
    return found


def _controls_in_full(found: _Found) -> list[float]:
    controls = [one for one in found["tried"] if one["side"] == "control" and one["in_full"]]
    return [one["score"] for one in controls if one["score"] is not None]


def _budget(budget: _Budget, colours: Mapping[str, str]) -> Figure:
    """Two lines from the customary setting on, at evenly spaced budgets."""
    traces = []
    for side in SIDES:
        points = {"0": budget["usual"][side], **budget["curves"][side]}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{side}s",
                "x": list(points),
                "y": list(points.values()),
                "line": {"color": colours[side], "width": 2},
                "marker": {"size": 8, "color": colours[side]},
                "hovertemplate": f"{side}s, %{{x}} trials: %{{y:.4~g}}<extra></extra>",
            }
        )
    return {
        "data": traces,
        "layout": {
            "height": 340,
            "margin": {"t": 26, "b": 52, "l": 58},
            "legend": {"orientation": "h", "y": 1.12},
            "xaxis": {"title": {"text": "trials (0: the customary setting)"}, "type": "category"},
            "yaxis": {"title": {"text": plain(f"expected {budget['metric']}")}},
        },
    }


def _choice(found: _Found, choice: str, words: str, colours: Mapping[str, str]) -> Figure:
    """A mark for each plan, and the controls' levels as lines."""
    traces = []
    for in_full, symbol in ((False, "circle-open"), (True, "diamond")):
        some = [
            one
            for one in found["tried"]
            if one["side"] == "plan" and one["in_full"] == in_full and choice in one["choices"]
        ]
        shown = [one for one in some if one["score"] is not None]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "every seed" if in_full else "given up",
                "x": [_plotted(one["choices"][choice]) for one in shown],
                "y": [one["score"] for one in shown],
                "text": [plain(one["words"]) for one in shown],
                "marker": {"size": 8, "color": colours["plan"], "symbol": symbol},
                "hovertemplate": "%{y:.4~g}<br>%{text}<extra></extra>",
            }
        )
    levels = _levels(found)
    return {
        "data": traces,
        "layout": {
            "height": 300,
            "margin": {"t": 30, "b": 52, "l": 58},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": {"title": {"text": words}, **({"dtick": 1} if choice == "passes" else {})},
            "yaxis": {"title": {"text": plain(f"validation {found['metric']}")}},
            "shapes": [
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": score,
                    "y1": score,
                    "line": {"color": colours["control"], "width": 1.5, "dash": dash},
                }
                for score, dash in levels.values()
            ],
            "annotations": [
                {
                    "text": level,
                    "xref": "paper",
                    "x": 1,
                    "y": score,
                    "xanchor": "right",
                    "yanchor": "bottom",
                    "showarrow": False,
                    "font": {"size": 11, "color": colours["control"]},
                }
                for level, (score, _) in levels.items()
            ],
        },
    }


def _plotted(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def _levels(found: _Found) -> dict[str, tuple[float, str]]:
    controls = [one for one in found["tried"] if one["side"] == "control"]
    usual = [one["score"] for one in controls if one["number"] == 0]
    best = (max if found["higher_is_better"] else min)(_controls_in_full(found))
    levels = {"best control": (best, "solid")}  # a search ends only with a control in full
    if usual and usual[0] is not None:
        levels["customary control"] = (usual[0], "dot")
    return levels


def _budgets(budget: _Budget) -> Table:
    usual = [Cell("0, the customary setting")]
    usual += [number(budget["usual"][side], ".4g") for side in SIDES]
    rows = [usual]
    for trials in sorted(map(int, set().union(*(budget["curves"][side] for side in SIDES)))):
        scores = [budget["curves"][side].get(str(trials)) for side in SIDES]
        cells = [Cell("–") if score is None else number(score, ".4g") for score in scores]
        rows.append([Cell(str(trials)), *cells])
    return Table(f"Expected {budget['metric']} of the best", ("trials", "plans", "controls"), rows)


def _ranked(found: _Found, side: str) -> Table:
    mine = [one for one in found["tried"] if one["side"] == side]
    rows = [
        [
            number(one["score"], ".4g") if one["score"] is not None else Cell("failed"),
            number(one["seeds"], "d"),
            Cell(one["words"]),
        ]
        for one in mine[:10]
    ]
    caption = f"The best of {len(mine)} {side}s on validation"
    return Table(caption, (f"validation {found['metric']}", "seeds", side), rows)
