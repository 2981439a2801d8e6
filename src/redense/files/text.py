"""The door to text: manifests, lists and transcripts as the world's tools write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 2**30
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A file's text, without a byte order mark.

    Raises:
        ValueError: names the file that is no regular file, too large, or in another encoding.
    """
    if not is_file(path):
        raise FileNotFoundError(f"{path}: no such file")
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{path} has {size} bytes; a text file may have {_LARGEST}, so split it")
    content = path.read_bytes()
    if content.startswith(_UTF16):
        raise ValueError(f"{path} is UTF-16; save it as UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not {encoding}; "
            "save the file as UTF-8"
        ) from error


def is_file(path: Path) -> bool:
    """Whether there is such a file; no name is too long or too odd to ask."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    r"""(number, line) of each line that is not blank; only \n and \r\n end a line."""
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    r"""(line, row by column) of a list with a header, its cells parted by , ; | or tabs.

    Columns are in lower case, and a cell that a row has not is empty. Quotes enclose a cell, but
    where tabs part them they are text, as Common Voice and others write it.

    Raises:
        ValueError: names the file and the line with more cells than columns or an open quote.
    """
    text = read_text(path)
    delimiter = max(",;|\t", key=text.partition("\n")[0].count)
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines, delimiter=delimiter)
    try:
        columns = [column.strip().lower() for column in next(rows, [])]
        for cells in rows:
            if len(cells) > len(columns) and any(cells[len(columns) :]):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(cells)} cells for {len(columns)} columns; "
                    f"put a cell that holds {delimiter!r} in double quotes"
                )
            if any(cells):
                missing = [""] * (len(columns) - len(cells))
                yield rows.line_num, dict(zip(columns, cells + missing, strict=False))
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}; is a quote left open?") from error
