"""The command line's front door: finds the command and turns its errors into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from redense.cli.flags import ArgumentError, choose, one_line

COMMANDS = {
    "train": ("train", "train a recipe dense, sparse, re-dense; prints each phase's result"),
    "study": ("study", "dense-sparse-dense against controls of equal budget, paired over seeds"),
    "report": ("study", "runs and studies as one HTML page that needs no network"),
    "sensitivity": (
        "study",
        "prune one layer of a trained network at a time, and propose sparsities",
    ),
    "inspect": ("network", "zeros per tensor of any checkpoint"),
    "export": ("network", "a run's network as safetensors with a model card"),
    "eval": ("network", "top-1 and top-5 of an image network on a folder"),
    "transcribe": ("network", "print what is said in recordings, by a trained speech network"),
    "caption": ("network", "say what pictures show, with a network trained on captions"),
    "data": ("data", "fetch and prepare a packaged data set"),
}
"""For each command the module of `redense.cli` that has it, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for a mistake in what was asked for, 130 after
    Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from redense import __version__

        print(f"redense {__version__}")
        return 0
    try:
        command = choose("command", arguments[0], COMMANDS)
        module = import_module(f"redense.cli.{COMMANDS[command][0]}")
        code: int = getattr(module, f"{command}_command")(arguments[1:])
        return code
    except (
        ValueError,
        TypeError,
        OSError,
        ImportError,
        NotImplementedError,
        ArgumentError,
    ) as error:
        if os.environ.get("REDENSE_TRACEBACK"):
            raise
        print(f"redense: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _overview() -> str:
    listed = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: redense COMMAND ...\n\nDense-Sparse-Dense training, and the proof whether it "
        "helped.\n\n"
        f"commands:\n{listed}\n\n"
        "first run:  redense train images          (Fashion-MNIST, a few minutes)\n"
        "go on:      redense train images --resume runs/images-1\n"
        "redense COMMAND --help shows a command's flags; REDENSE_TRACEBACK=1 shows where an error "
        "came from."
    )
