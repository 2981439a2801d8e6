"""Texts as the network says them: lower-case letters, apostrophe, space; symbol 0 is CTC's
blank."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from redense.files.words import words

ENGLISH = " 'abcdefghijklmnopqrstuvwxyz"
"""28 characters: with the blank the 29 symbols of DeepSpeech."""

_RARE = 1000


def normalize(text: str) -> str:
    """A text's words with single spaces, compounds as they are said; digits stay, to be noticed.

    >>> normalize("Well -- I don’t   KNOW this well-known [noise] song!")
    "well i don't know this well known song"
    """
    return " ".join(words(text)).replace("-", " ")


def find_alphabet(texts: Sequence[str]) -> str:
    """Space, apostrophe and each letter, mark and joiner that at least one in a thousand of the
    normalised texts uses, sorted."""
    counts = Counter(letter for text in texts for letter in set(text))
    letters = {
        c
        for c, n in counts.items()
        if unicodedata.category(c)[0] != "N" and n * _RARE >= len(texts)
    }
    return "".join(sorted(letters | {" ", "'"}))


def check(alphabet: str) -> None:
    """Raise ValueError for an alphabet that no normalised text is written with."""
    if " " not in alphabet:
        raise ValueError(f"alphabet must have a space, which parts words, got {alphabet!r}")
    if capitals := [c for c in alphabet if c != c.lower()]:
        raise ValueError(
            f"alphabet has {''.join(capitals)!r}, but texts are in lower case; give "
            f"{''.join(dict.fromkeys(alphabet.lower()))!r}"
        )
    if doubled := [c for c, many in Counter(alphabet).items() if many > 1]:
        raise ValueError(f"alphabet has {''.join(doubled)!r} twice; each character is one symbol")


def unknown(text: str, alphabet: str) -> str:
    """The characters of ``text`` that the alphabet has not, each once."""
    return "".join(dict.fromkeys(c for c in text if c not in alphabet))


def encode(text: str, alphabet: str) -> list[int]:
    """Symbols 1, 2, ... of a normalised text."""
    return [alphabet.index(c) + 1 for c in text]


def decode(symbols: Iterable[int], alphabet: str) -> str:
    """The text of symbols that are no blanks."""
    return "".join(alphabet[symbol - 1] for symbol in symbols)


def needed_frames(symbols: Sequence[int]) -> int:
    """The fewest frames that CTC can say these symbols in: one each, and a blank between equal
    neighbours."""
    return len(symbols) + sum(a == b for a, b in pairwise(symbols))
