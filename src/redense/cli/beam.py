"""The flags of a beam search with a language model, for the commands that decode speech."""

from __future__ import annotations

from pathlib import Path

from redense.cli.flags import Parser, add_flag, given

BEAM = ("lm", "beam", "lm_weight", "word_score")
"""Their names, as `redense.recipes.speech.use.transcriber` takes them."""


def add_beam_flags(parser: Parser) -> None:
    """Let a command take them."""
    meaning = "n-gram model of words (ARPA) for a beam search over speech; else greedy"
    add_flag(parser, "lm", Path | None, None, meaning)
    add_flag(parser, "beam", int, 64, "hypotheses that the beam search keeps", least=1, most=10**6)
    add_flag(parser, "lm_weight", float, 1.0, "of a word's log-probability in --lm", least=0)
    add_flag(parser, "word_score", float, 1.0, "added for each word", least=-1e6, most=1e6)


def check_beam_flags(arguments: list[str]) -> None:
    """Refuse those that say nothing because there is no ``--lm``."""
    idle = sorted(given(arguments) & set(BEAM))
    if idle and "lm" not in idle:
        flag = idle[0].replace("_", "-")
        raise ValueError(f"--{flag} is of the beam search, which needs --lm; pass that too")
