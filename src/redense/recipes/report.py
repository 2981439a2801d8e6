"""What a recipe's runs show of themselves in a report, beyond their records."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from redense.files.records import read_record
from redense.recipes import RECIPES
from redense.runs.sections import Section


def sections(run: Path) -> list[Section]:
    """Sections of the run in this folder, from its recipe's module ``report``; none where the
    recipe has no such module, or the run is of a function of the user's own."""
    recipe = read_record(run / "record.json")["recipe"]
    module = f"redense.recipes.{recipe}.report"
    if recipe not in RECIPES or find_spec(module) is None:
        return []
    shown: list[Section] = import_module(module).sections(run)
    return shown
