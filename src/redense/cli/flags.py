"""Flags: made from the fields of dataclasses, and a parser whose errors are one clear line."""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from redense.files.names import near


@dataclass(frozen=True)
class Machine:
    """Where and under which name the run is.

    Args:
        out: run folder; default runs/RECIPE-N.
        accelerator: cpu, gpu, mps or auto.
        devices: processes on this machine, one per device; under torchrun its own number counts.
        strategy: of several devices: ddp (each holds the whole network) or fsdp2 (each a shard of
            weights, gradients and momentum; images only).
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        include: shell patterns of weights that may be held, instead of the default choice; commas
            between them.
        exclude: shell patterns of weights that are never held; commas between them.
    """

    out: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "ddp"
    precision: str = "32-true"
    include: str = ""
    exclude: str = ""


class Parser(argparse.ArgumentParser):
    """A parser that raises one line instead of exiting, and takes no abbreviations."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        message = message.removeprefix("argument ")
        raise ValueError(f"{message} ({self.prog} --help lists all)")

    def add_fields(
        self,
        kind: type,
        *,
        skip: Collection[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """One flag per field of a dataclass, explained by its docstring's Args."""
        title, _, _ = inspect.cleandoc(kind.__doc__ or "").partition("\n")
        group = self.add_argument_group(title.rstrip("."))
        types = get_type_hints(kind)
        meanings = _meanings(kind)
        for field in fields(kind):
            if field.name in skip:
                continue
            default = (defaults or {}).get(field.name, field.default)
            add_flag(group, field.name, types[field.name], default, meanings.get(field.name, ""))


def add_flag(
    parser: Any,
    name: str,
    kind: Any,
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """``--name`` of a type such as ``int | None``; its help says the default.

    Args:
        least, most: between what a number must lie; one of them given, it must be finite too.
    """
    usual = "" if default in (None, "") else f" (default: {_written(default)})"
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        dest=name,
        default=default,
        type=lambda text: _between(least, convert(kind, text), most),
        metavar=_METAVARS[_kinds(kind)[0]],
        help=f"{meaning}{usual}".replace("%", "%%"),
    )


def parse(parser: Parser, arguments: list[str]) -> argparse.Namespace:
    """The flags' values; what is no flag is an error with near names."""
    asked, strays = parser.parse_known_args(arguments)
    flags = list(parser._option_string_actions)
    for stray in strays:
        flag = stray.partition("=")[0]
        if flag.startswith("--"):
            hint = near(flag, flags, cutoff=0.5)
            raise ValueError(
                f"there is no flag {flag}{f'; {hint}' if hint else ''} "
                f"({parser.prog} --help lists all)"
            )
    if strays:
        parser.error(f"unrecognized arguments: {' '.join(strays)}")
    return asked


def given(arguments: list[str]) -> set[str]:
    """Names of the flags that are written out, as Python has them."""
    flags = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    return {flag[2:].replace("-", "_") for flag in flags}


def convert(kind: Any, text: str) -> Any:
    """A flag's text as a value of its type; ``~/`` is the home folder."""
    for one in _kinds(kind):
        try:
            return _CONVERT[one](text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"expected {_kind_name(kind)}, got {text!r}")


def _between(least: float | None, value: Any, most: float | None) -> Any:
    """The value, if it and every number in it lies between the two."""
    if least is None and most is None:
        return value
    for number in value if isinstance(value, list) else [value]:
        if least is not None and not least <= number:  # NaN is not either
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        if not math.isfinite(number) or (most is not None and number > most):
            bound = "a finite number" if most is None else f"at most {most}"
            raise argparse.ArgumentTypeError(f"must be {bound}, got {number}")
    return value


def add_path(parser: Any, name: str, meaning: str, **more: Any) -> None:
    """A path that is given by its place, or as a flag if its name says so."""
    parser.add_argument(name, type=lambda text: convert(Path, text), help=meaning, **more)


def build(kind: type, asked: argparse.Namespace, **replaced: Any) -> Any:
    """A dataclass from the flags that were made from it."""
    values = vars(asked) | replaced
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def choose(what: str, name: str, known: Collection[str]) -> str:
    """``name`` itself if it is known, else a ValueError with near names."""
    if name not in known:
        hint = near(name, known)
        hint = f"{hint} " if hint else ""
        raise ValueError(f"there is no {what} {name!r}; {hint}known: {', '.join(known)}")
    return name


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, words that are too long for one cut; the system's
    own errors with the file's name."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    words = (_cut(word) for word in text.split())
    return " ".join(words) or type(error).__name__


def _cut(word: str, most: int = 300) -> str:
    """Both ends of a long word, for a path's name is its last part."""
    return word if len(word) <= most else f"{word[: most // 3]}...{word[-most // 3 :]}"


def _home(text: str) -> str:
    """A shell leaves the tilde in --out=~/runs alone, and so do notebooks and job files."""
    return str(Path(text).expanduser()) if text == "~" or text.startswith("~/") else text


def _whole(text: str) -> int:
    number = int(text)
    if abs(number) > _MOST:
        raise ValueError(text)
    return number


def _path(text: str) -> Path:
    if not text:
        raise ValueError(text)  # else the working folder
    return Path(_home(text))


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _list(text: str) -> list[float]:
    inner = text.removeprefix("[").removesuffix("]")
    return [float(number) for number in inner.replace("/", ",").split(",")]


_MOST = 2**53
"""What JSON, floats and 64 bits hold exactly."""
_CONVERT: dict[Any, Callable[[str], Any]] = {
    bool: _boolean,
    int: _whole,
    float: float,
    str: _home,
    Path: _path,
    list[float]: _list,
}
_KIND_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    list[float]: "several with slashes or commas between, as 0.5/0.25",
}
_METAVARS = {
    bool: "{true,false}",
    int: "N",
    float: "X",
    str: "TEXT",
    Path: "PATH",
    list[float]: "X,X,...",
}


def _kinds(kind: Any) -> list[Any]:
    """``int | None`` takes an int."""
    return [kind] if kind in _CONVERT else [one for one in get_args(kind) if one is not NoneType]


def _kind_name(kind: Any) -> str:
    return " or ".join(_KIND_NAMES[one] for one in _kinds(kind))


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return "/".join(map(str, default))
    return str(default)


def _meanings(kind: type) -> dict[str, str]:
    """What a docstring's Args say of each field.

    >>> _meanings(Machine)["accelerator"]
    'cpu, gpu, mps or auto'
    """
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Args:")
    names = "|".join(field.name for field in fields(kind))
    _, *parts = re.split(rf"(?:^|\n\s*|\.\s+)({names}): ", text)
    meanings = zip(parts[::2], parts[1::2], strict=True)
    return {name: " ".join(meaning.split()).removesuffix(".") for name, meaning in meanings}
