"""What recipes' sections of the report page are made of: HTML with every text escaped and every
file embedded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape


def data_uri(kind: str, content: bytes) -> str:
    """A file's bytes as an address that needs no network; ``kind`` is its media type.

    >>> data_uri("text/plain", b"dense")
    'data:text/plain;base64,ZGVuc2U='
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def table(
    caption: str,
    titles: Sequence[str],
    rows: Sequence[Sequence[str | float]],
    *,
    html: int | None = None,
) -> str:
    """A table whose first column heads the rows; numbers stand flush right with two places, whole
    ones with none.

    Args:
        html: the column that already is HTML; all others are escaped.
    """
    kinds = [
        "number" if any(isinstance(row[n], (int, float)) for row in rows) else "text"
        for n, _ in enumerate(titles)
    ]
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(t)}</th>'
        for t, kind in zip(titles, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(n, cell, kinds[n], html) for n, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll{" long" if len(rows) > 24 else ""}" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(column: int, value: str | float, kind: str, html: int | None) -> str:
    text = (
        value
        if isinstance(value, str)
        else f"{value:,d}"
        if isinstance(value, int)
        else f"{value:.2f}"
    )
    content = text if column == html else escape(text)
    return (
        f'<th scope="row" class="{kind}">{content}</th>'
        if column == 0
        else f'<td class="{kind}">{content}</td>'
    )
