"""``redense report``: runs and studies on one page."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import Parser, add_flag, add_path, parse


def report_command(arguments: list[str]) -> int:
    """One page on runs and studies."""
    parser = Parser("redense report", "One self-contained HTML page on runs and studies.")
    add_path(parser, "paths", "run folders, study folders, or both", nargs="+")
    add_flag(parser, "out", Path | None, None, "the page; default report.html in the first path")
    asked = parse(parser, arguments)
    from redense.recipes.report import sections
    from redense.report.page import report

    print(report(asked.paths, asked.out, sections=sections))
    return 0
