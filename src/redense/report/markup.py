"""The one place where a report's data becomes HTML: every text escaped, every file embedded."""

from __future__ import annotations

import base64
from collections.abc import Callable

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise ImportError("a report needs jinja2: pip install 'redense[study]'") from error

from redense.runs.sections import Gallery, Section, Table, Text


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


ENVIRONMENT = Environment(
    loader=PackageLoader("redense.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["base64"] = _encoded
ENVIRONMENT.tests |= {"text": _is(Text), "table": _is(Table), "gallery": _is(Gallery)}


def table_html(table: Table) -> Markup:
    """A table that scrolls where it is wider than the page."""
    return Markup(_TABLE.render(shown=table))


def section_html(section: Section) -> Markup:
    """A section's blocks, without its heading."""
    return Markup(_BLOCKS.render(section=section))


_TABLE = ENVIRONMENT.from_string("{% from 'blocks.html' import table %}{{ table(shown) }}")
_BLOCKS = ENVIRONMENT.from_string("{% from 'blocks.html' import blocks %}{{ blocks(section) }}")
