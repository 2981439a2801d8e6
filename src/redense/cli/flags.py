"""Flags: the dataclasses that become them, and a parser whose errors are one clear line."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings
except ImportError as error:
    raise ImportError(
        "the redense command needs its recipes' packages: pip install 'redense[recipes]'"
    ) from error


@dataclass(frozen=True)
class Machine:
    """Where and under which name the run is.

    Args:
        out: run folder; default runs/RECIPE-N.
        accelerator: cpu, gpu, mps or auto.
        devices: processes on this machine, one a device; under torchrun its own number counts.
        strategy: of several devices: ddp (each holds the whole network) or fsdp2 (each a shard of
            weights, gradients and momentum; images only).
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        include: shell patterns of weights that may be held, instead of the default choice; commas
            between them. exclude: shell patterns of weights that are never held; commas between
            them.
    """

    out: Path | None = None
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "ddp"
    precision: str = "32-true"
    include: str = ""
    exclude: str = ""


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        seeds: how many; every method runs once with each of 0, 1, 2, ...
        methods: with commas: dense, longer, lower_lr (the matched control), pruned, random_dsd,
            dsd, dsdsd, swa. jobs: runs at a time, one thread each; default one a core.
        backend: loky on this machine, dask or ray for a cluster.
        split: what the verdict reads: test, or valid while choosing a setting.
        out: study folder; default runs/study-RECIPE. An unfinished study there goes on.
    """

    seeds: int = 5
    methods: str = "dense,longer,lower_lr,pruned,random_dsd,dsd"
    jobs: int = os.cpu_count() or 1
    backend: str = "loky"
    split: str = "test"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise ValueError(f"split must be test or valid, got {self.split!r}")
        if self.seeds < 2:
            raise ValueError(
                f"seeds must be at least 2, got {self.seeds}; a verdict needs 6 and more"
            )
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")


def make_parser(program: str, description: str) -> Any:
    """A jsonargparse parser that raises instead of exiting."""
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    return ArgumentParser(
        prog=program, description=description, exit_on_error=False, allow_abbrev=False
    )


def parse(parser: Any, arguments: list[str]) -> Namespace:
    """Flags are written with hyphens; jsonargparse names them as their Python arguments."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_hyphens(re.sub(r", --\w+\+ [A-Z_]+", "", parser.format_help())), end="")
        raise SystemExit(0)
    try:
        return parser.parse_args(
            [
                re.sub(r"^--[\w-]+", lambda m: "--" + m[0][2:].replace("-", "_"), a)
                for a in arguments
            ]
        )
    except ArgumentError as error:
        message = _hyphens(re.sub(r'Parser key "(\w+)"', r"--\1", one_line(error)))
        message = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", message)
        if union := re.search(
            r"(.*): Does not validate.*Subtypes: \[(.*?)\] Errors.*Given value: (.*)", message
        ):
            kinds = (
                re.sub(r"<class '(\w+)'>", r"\1", union[2])
                .replace("NoneType", "nothing")
                .replace(", ", " or ")
            )
            message = f"{union[1]}: expected {kinds}. Got value: {union[3]}"
        flags = {_hyphens(flag) for action in parser._actions for flag in action.option_strings}
        for wrong in re.findall(r"--[\w-]+", message) if "nrecognized" in message else []:
            near = difflib.get_close_matches(
                wrong, (flag for flag in flags if "+" not in flag), n=2, cutoff=0.5
            )
            message = f"there is no flag {wrong}" + (
                f"; did you mean {' or '.join(near)}?" if near else ""
            )
        raise ValueError(f"{message} ({parser.prog} --help lists all)") from error


def _hyphens(text: str) -> str:
    return re.sub(r"--\w+", lambda match: "--" + match[0][2:].replace("_", "-"), text)


def run_config(recipe: str, options: Any, asked: Namespace) -> dict[str, Any]:
    """What a run folder's config.json says besides method, seed and plan."""
    return {
        "recipe": recipe,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "include": [pattern for pattern in asked.include.split(",") if pattern],
        "exclude": [pattern for pattern in asked.exclude.split(",") if pattern],
        "accelerator": asked.accelerator,
        "devices": asked.devices,
        "precision": asked.precision,
    }


def build(kind: type, asked: Namespace) -> Any:
    """A dataclass from the flags that were made from it."""
    return kind(**{name: asked[name] for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def choose(what: str, name: str, known: Any) -> str:
    """``name`` itself if it is known, else a ValueError with near names."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"there is no {what} {name!r}; {hint}known: {', '.join(known)}")
    return name


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; the system's own errors with the file's name."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__
