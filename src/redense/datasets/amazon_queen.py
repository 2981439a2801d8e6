"""amazon-queen: the English voices of an adventure game of 1995, the default of the speech recipe.

Task      speech: about 30 actors, 11,025 Hz mono, median 2.3 s; acted
Size      6,257 clips, 4.35 h, 5,278 distinct texts; 35 MB to fetch, 213 MB prepared, about 16 s
Licence   freeware: free to distribute, not for a fee; (C) 1995 John Passfield and Steve
          Stamatiadis. Fetched by the user, never redistributed by us
Source    Debian `flight-of-the-amazon-queen`, its one data file queen.1c
Split     by sentence; the speakers are shared

The container is `QTBL`, 6 bytes of version, 2 unknown, the codec (1 = MP3), the number of entries,
and the entries. A text carries animation marks, `*` and two characters: they cut it into segments,
and each segment is one clip. Three clips that two dialogues claim with different texts are left
out.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from redense.datasets import fetch
from redense.datasets.card import Card
from redense.datasets.speech import SPLIT, Utterance, write_speech

SHA256 = {"queen.1c": "cc91960d133fcd4173eda4bac304e80d2bbdbaa085640287ab9e0507bd603f67"}
_MARK = re.compile(r"\*(?:XY\d\d\(\d+,\d+\)|[0-9A-Za-z]{2})")
_ENTRY = struct.Struct(">12sxII")
_CODEC_MP3 = 1
_REMARKS = 1187  # lines of QUEEN2.JAS before the 40 general answers
_FILE_HEADER = 20  # bytes of AmBk, the wrapper of a DOG or CUT file


def write(out: Path, work: Path, source: Path | None) -> Card:
    """Write the manifests and `audio/*.flac` (see `speech.write_speech`)."""
    path = fetch.find(
        fetch.debian("flight-of-the-amazon-queen", "*/queen.1c", work, source), "queen.1c"
    )
    content = path.read_bytes()
    fetch.check("queen.1c", fetch.sha256(content), SHA256["queen.1c"])
    files = read_container(content)
    texts = [found for found in _texts(files) if f"{found[0]}.SB" in files]
    times = Counter(name for name, _, _ in texts)
    utterances = [
        Utterance(name, bytes(files[f"{name}.SB"]), text, speaker)
        for name, text, speaker in texts
        if times[name] == 1 and text.strip() and text.lstrip()[0] not in "(<"
    ]
    written = write_speech(out, utterances)
    return Card(
        name="amazon-queen",
        task="speech",
        sizes=written.sizes,
        alphabet=written.alphabet,
        source="Debian package flight-of-the-amazon-queen",
        source_sha256=SHA256,
        licence=(
            "freeware, free to distribute with its readme, not for a fee; fetched by the user, "
            "not redistributed"
        ),
        credit="Flight of the Amazon Queen, (C) 1995 John Passfield and Steve Stamatiadis",
        split=SPLIT,
        leakage=written.leakage,
    )


def read_container(content: bytes) -> dict[str, memoryview]:
    """The files in queen.1c by name; raises ValueError where it is not the talkie with MP3
    speech."""
    magic, codec, count = struct.unpack_from(">4s8xBH", content)
    if magic != b"QTBL" or codec != _CODEC_MP3:
        raise ValueError(
            f"queen.1c starts with {magic!r} and codec {codec}, expected b'QTBL' and {_CODEC_MP3} "
            "(MP3)"
        )
    entries = (_ENTRY.unpack_from(content, 15 + _ENTRY.size * i) for i in range(count))
    view = memoryview(content)
    return {
        name.split(b"\0")[0].decode("ascii"): view[start : start + size]
        for name, start, size in entries
    }


def _texts(files: Mapping[str, memoryview]) -> Iterator[tuple[str, str, str | None]]:
    """Clip name, text and speaker of every segment of every text, whether there is such a clip or
    not."""
    for name, data in files.items():
        if name.endswith(".DOG"):
            lines = _dialogue(name, bytes(data[_FILE_HEADER:]))
        elif name.endswith(".CUT"):
            lines = _scene(name, bytes(data[_FILE_HEADER:]))
        elif name == "QUEEN2.JAS":
            lines = _remarks(bytes(data))
        else:
            continue
        for clip, text, speaker in lines:
            for number, segment in enumerate(_MARK.split(text), start=1):
                yield f"{clip}{number:X}", segment, speaker


def _dialogue(name: str, data: bytes) -> Iterator[tuple[str, str, str | None]]:
    """A dialogue tree: Joe's lines, then the other's; a record is i16 skip, i16 id, u8 length,
    text, padded to 4."""
    header = struct.unpack_from(">14h", data)
    room, joe, other, end = header[2], 32 + 96 * abs(header[0]), header[11], header[12]
    person = name.removesuffix(".DOG").rstrip("0123456789").lower()
    for start, stop, letter, speaker in ((joe, other, "J", "joe"), (other, end, "P", person)):
        at = start
        while at < stop:
            number, length = struct.unpack_from(">2xhB", data, at)
            yield (
                f"{room:02d}{number:04X}{letter}",
                data[at + 5 : at + 5 + length].decode("latin-1"),
                speaker,
            )
            at = _padded(at + 5 + length, 4)


def _scene(name: str, data: bytes) -> Iterator[tuple[str, str, str | None]]:
    """A cut scene: its lines, spoken by anybody, are u8 length and text, padded to 2 unless the
    length is 0."""
    start, stop = struct.unpack_from(">8xhh", data)
    at, number = start, 0
    while at < stop:
        length = data[at]
        text = data[at + 1 : at + 1 + length].decode("latin-1")
        yield f"{name.removesuffix('.CUT'):_<5}{number:02d}", text, None
        at = _padded(at + 1 + length, 2) if length else at + 1
        number += 1


def _remarks(data: bytes) -> Iterator[tuple[str, str, str | None]]:
    """Joe's remarks: 1,187 on things, the clips from 41 on, then 40 answers that fit anything, the
    clips 1 to 40."""
    lines = data.decode("latin-1").splitlines()
    for line, text in enumerate(lines[: _REMARKS + 40]):
        yield f"JOE{(line + 40) % (_REMARKS + 40) + 1:04d}", text, "joe"


def _padded(at: int, to: int) -> int:
    return -(-at // to) * to
