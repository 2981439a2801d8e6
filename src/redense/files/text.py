"""The door to text: manifests, lists and transcripts as the world's tools write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

_LARGEST = 2**30
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A file's text, without a byte order mark.

    Raises:
        ValueError: names the file that is no regular file, too large, or in another encoding.
    """
    if not path.is_file():
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


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    r"""(number, line) of each line that is not blank; only \n and \r\n end a line."""
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_tabs(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row by column) of a tab-separated list with a header and without quoting.

    Raises:
        ValueError: names the column that the header has not, or the line that has too few cells.
    """
    lines = read_lines(path)
    _, header = next(lines, (0, ""))
    columns = header.split("\t")
    for name in needed:
        if name not in columns:
            raise ValueError(f"{path} has no column {name}; its header must name it")
    for number, line in lines:
        row = dict(zip(columns, line.split("\t"), strict=False))
        for name in needed:
            if name not in row:
                raise ValueError(
                    f"{path}, line {number}: no {name}; complete the line or delete it"
                )
        yield number, row
