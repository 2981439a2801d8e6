"""The door to data with keys: JSON, TOML, YAML and the rows of lists, each checked against a typed
schema; an error says file, key, value and remedy.

    PLAN = Kind(PlanFile, "plan", "each phase has at least a name and a length")
    content = read_toml(Path("plan.toml"), PLAN)
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar, cast

import msgspec
import yaml
from msgspec import Meta

from redense.files.text import read_text

T = TypeVar("T")

_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_LARGEST = 1.7976931348623157e308
Number = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
"""Neither NaN nor infinite."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A whole number that something may have so many of."""
Positive = Annotated[int, Meta(ge=1, le=2**53)]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What a file or a row must hold.

    Args:
        schema: a type that msgspec checks: a TypedDict, a dataclass, a list of them.
        what: what it is, behind "is no".
        remedy: what to do, at the end of an error.
        finite: whether NaN and Infinity, which are no JSON, are refused wherever they stand.
    """

    schema: type[T]
    what: str
    remedy: str
    finite: bool = True


Table = dict[str, Any]
TABLE = Kind(Table, "table of values", "restore it from where it came")


def read_json(file: Path, kind: Kind[T]) -> T:
    """A JSON file of ours; keys that the schema does not know stay.

    Raises:
        FileNotFoundError, ValueError: no such file, no JSON, or a key that is missing, there twice
            or of another kind than it should be.
    """
    return check(parse_json(read_text(file), kind, file), kind, file)


def read_toml(file: Path, kind: Kind[T]) -> T:
    """A TOML file; errors as `read_json`."""
    text = read_text(file)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid TOML: {_reason(error)}; {kind.remedy}") from error
    return check(content, kind, file)


def read_yaml(file: Path, kind: Kind[T]) -> T:
    """A YAML file, of plain values only; errors as `read_json`."""
    text = read_text(file)
    try:
        content = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid YAML: {_reason(error)}; {kind.remedy}") from error
    return check(content, kind, file)


def parse_json(text: str, kind: Kind[Any], place: object) -> Any:
    """What a JSON text holds, not yet checked.

    Args:
        kind: whether NaN is taken, and the remedy.
        place: where it stands, for errors: a file, or a file and a line.

    Raises:
        ValueError: no JSON, or a key that is there twice.
    """
    try:
        if kind.finite:
            content = json.loads(
                text, object_pairs_hook=_table, parse_constant=_refuse, parse_float=_finite
            )
        else:
            content = json.loads(text, object_pairs_hook=_table)
        if _ESCAPED_HALF.search(text):
            _check_halves(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not valid JSON: {_reason(error)}; {kind.remedy}") from error
    return content


def check(value: Any, kind: Kind[T], place: object) -> T:
    """``value`` itself, if it is of that kind; ``place`` is the file, or a file and a line.

    >>> check({"seed": "0"}, Kind(dict[str, int], "table of seeds", "mend it"), "seeds.json")
    Traceback (most recent call last):
    ValueError: seeds.json is no table of seeds: seed must be a whole number, got '0'; mend it
    """
    try:
        msgspec.convert(value, kind.schema)
    except msgspec.ValidationError as error:
        reason = explain(str(error), value)
        raise ValueError(f"{place} is no {kind.what}: {reason}; {kind.remedy}") from error
    checked: T = value
    return checked


def build(value: Any, kind: Kind[T], place: object) -> T:
    """A dataclass of ``value``'s keys, of which it must know all; errors as `check`."""
    known = [field.name for field in fields(cast("Any", kind.schema))]
    if isinstance(value, Mapping) and (unknown := [key for key in value if key not in known]):
        raise ValueError(
            f"{place} is no {kind.what}: it has a key {short(unknown[0])}, known are "
            f"{', '.join(known)}; {kind.remedy}"
        )
    try:
        return msgspec.convert(value, kind.schema)
    except msgspec.ValidationError as error:
        reason = explain(str(error), value)
        raise ValueError(f"{place} is no {kind.what}: {reason}; {kind.remedy}") from error


def explain(problem: str, value: Any) -> str:
    """msgspec's message in our words, with the value that is wrong.

    >>> explain("Expected `int`, got `str` - at `$.plan[0].length`", {"plan": [{"length": "3"}]})
    "plan[0].length must be a whole number, got '3'"
    """
    said, _, path = problem.partition(" - at `")
    missing = re.fullmatch(r"Object missing required field `(.*)`", said)
    wanted = re.match(r"Expected `([^`]*)`( [<>=].*| of .*)?", said)
    got = re.search(r"got `(\w+)`", said)
    if path.startswith("key` in"):
        return f"the keys of {path[9:].strip('`$.') or 'it'} must be text"
    names, wrong = _follow(path.rstrip("`"), value, got[1] if got else "")
    if missing:
        return f"it has no {'.'.join([*_joined(names), missing[1]])!r}"
    subject = ".".join(_joined(names)) or "it"
    if said.startswith("Invalid enum value"):
        return f"{subject} cannot be {short(wrong)}"
    if wanted:
        words = " or ".join(_WORDS.get(one, one) for one in wanted[1].split(" | "))
        limit = (wanted[2] or "").partition(", got")[0]
        return f"{subject} must be {words}{limit}, got {short(wrong)}"
    return f"{subject}: {said}, got {short(wrong)}" if names else said


def short(value: object) -> str:
    """A value as Python writes it, cut where it is long or deep."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number of more digits than Python will write
        return "a number of thousands of digits"


_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
}
_NAMES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlong = 24
_SHORT.maxlevel = 2
_SHORT.maxdict = _SHORT.maxlist = 4


def _follow(path: str, value: Any, got: str) -> tuple[list[str | int], Any]:
    """The names on the way to what is wrong, and what stands there; msgspec leaves out which of a
    table's keys it was, so that is the first of the kind it ``got``."""
    names: list[str | int] = []
    key: str | int
    steps = re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", path)
    for name, index in steps:
        if index == "..." and isinstance(value, Mapping):
            last = len(names) == len(steps) - 1
            key = _first(value, got if last else "")
        else:
            key = name or int(index)
        names.append(key)
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            break
    return names, value


def _first(table: Mapping[str, Any], got: str) -> str:
    kinds = {key: _NAMES.get(type(one)) or _kind_of(one) for key, one in table.items()}
    return next((key for key, kind in kinds.items() if kind == got), next(iter(table), "..."))


def _kind_of(value: Any) -> str:
    return "object" if isinstance(value, Mapping) else "array"


def _joined(names: list[str | int]) -> list[str]:
    """``["plan", 0, "length"]`` as ``["plan[0]", "length"]``."""
    parts: list[str] = []
    for name in names:
        if isinstance(name, int):
            parts[-1:] = [f"{parts[-1] if parts else ''}[{name}]"]
        else:
            parts.append(name)
    return parts


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {short(twice)} is there twice")
    return table


def _check_halves(value: Any) -> None:
    """Half of a character, which JSON can escape and no file can hold; but bytes of file names
    that are not UTF-8 are kept as such halves."""
    if isinstance(value, str):
        if half := _HALF.search(value):
            raise ValueError(f"{half[0]!a} is half of a character")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_halves(key)
            _check_halves(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_halves(inner)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{short(text)} is too large a number")
    return number


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split()) or type(error).__name__


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML's plain values, where no key may be there twice."""


def _yaml_table(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise ValueError(f"line {node.start_mark.line + 1}: the key {key!r} is there twice")
    table: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return table


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _yaml_table)
