"""Texts as the network says them: lower-case letters, apostrophe, space; symbol 0 is CTC's
blank."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

ENGLISH = " 'abcdefghijklmnopqrstuvwxyz"
"""28 characters: with the blank the 29 symbols of DeepSpeech."""

_APOSTROPHES = str.maketrans("’‘`´", "''''")
_RARE = 1000


def normalize(text: str) -> str:
    """Lower case, composed, punctuation but the apostrophe gone, single spaces. Digits stay, to be
    noticed.

    >>> normalize("Well -- I don’t   KNOW!")
    "well i don't know"
    """
    lowered = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LNM" else " " for c in lowered)
    return " ".join(word for word in kept.split() if word.strip("'"))


def find_alphabet(texts: Sequence[str]) -> str:
    """Space, apostrophe and each letter that at least one in a thousand of the normalised texts
    uses, sorted."""
    counts = Counter(letter for text in texts for letter in set(text))
    letters = {
        c
        for c, n in counts.items()
        if unicodedata.category(c)[0] in "LM" and n * _RARE >= len(texts)
    }
    return "".join(sorted(letters | {" ", "'"}))


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
