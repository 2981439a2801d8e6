"""Words as people write them: one form of each, for vocabularies, alphabets, splits and scores."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"
_MARKS = "'\u2018\u2019"
"""What may stand for an apostrophe: one that may open a quotation too, one that does as a rule, one
that never does. They become one in the end."""

_SIGNS = {
    _MARKS[0]: "'`\uff07",
    _MARKS[1]: "\u2018\u201a\u201b",
    _MARKS[2]: "\u2019\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u2032\u055a\u05f3\u07f4\ua78c",
    "-": "-\u2010\u2011\u058a\u05be\ufe63\uff0d",
    "\u00b7": "\u00b7\u2027",
    "": "\u0640\u05f4",  # kashida only stretches a word; gershayim stand inside one
    " ": "\u200b",  # a zero-width space is where Khmer and Thai words part
}

_SHORTENED = "bout cause cos coz em ere im k m n neath r round s scuse t til till tis twas"
"""Words that an apostrophe begins though it opens no quotation, in English and Dutch."""

_TAG = re.compile(r"<[^<>\s][^<>]{0,40}>|\[[^\[\]]{1,40}\]|\{[^{}]{1,40}\}")
_LOOSE = re.compile(
    r"(?<![^\s\-\u00b7])-|-(?![^\s\-\u00b7])"  # a dash, or what is left of a word broken off
    r"|(?<!l)\u00b7|\u00b7(?!l)"  # col·lecció is one word
)
_MEANINGLESS = re.compile(rf"(?<![\u0600-\U0010ffff])[{_JOINERS}]+|\u200c+(?!\S)")


def words(text: str) -> list[str]:
    """The words of a text: lower case, composed (NFC), without punctuation, quotation marks and
    tags.

    >>> words("He said: ‘donʼt stop’ … [noise] a well-known कुत्ता।")
    ['he', 'said', "don't", 'stop', 'a', 'well-known', 'कुत्ता']

    An apostrophe is ' however it is typed, in a word, before it ('tis) or after it (dogs'); pairs
    around words are quotation marks. Hyphens stay inside a word; joiners stay where a script needs
    them (Sinhala, Persian); a tag in <>, [] or {} is no word. Digits stay.
    """
    lowered = unicodedata.normalize("NFC", _TAG.sub(" ", text).lower()).replace("i\u0307", "i")
    parts = _LOOSE.sub(" ", lowered.translate(_KINDS))
    plain = _without_quotes(_MEANINGLESS.sub("", parts).split())
    return [word for word in plain if word.strip("'")]


def _without_quotes(tokens: list[str]) -> list[str]:
    opened = None
    for at, token in enumerate(tokens):
        if token.strip(_MARKS) in _SHORTENED.split():
            continue
        if token[0] in _MARKS[:2] or (token[0] in _MARKS and token[-1] in _MARKS):
            opened = at
        if token[-1] in _MARKS and opened is not None:
            tokens[opened] = tokens[opened].lstrip(_MARKS)
            tokens[at] = tokens[at].rstrip(_MARKS)
            opened = None
    return [re.sub(f"[{_MARKS}]+", "'", token) for token in tokens]


class _Kinds(dict[int, str]):
    """What becomes of a character, by its code, found out once for each."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        is_selector = unicodedata.name(character, "").startswith("VARIATION SELECTOR")
        if category[0] in "LMN" or character in _JOINERS:
            kind = "" if is_selector else character
        else:
            kind = "" if category == "Cf" else " "  # soft hyphens, marks of direction
        self[code] = kind
        return kind


_KINDS = _Kinds({ord(sign): kind for kind, signs in _SIGNS.items() for sign in signs})
