"""The command line: one file per command, argument parsing only."""

from redense.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
