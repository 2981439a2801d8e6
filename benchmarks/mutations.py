"""Seeded damage to files: bytes, trees of values, lines of text, tensors. Each mutation is a
function of (content, random numbers) and gives what a disk, a tool, a hand or an enemy makes of
it."""

from __future__ import annotations

import copy
import io
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

Bytes = Callable[[bytes, Random], bytes]

TRAPS = (
    *("", "../../../../etc/passwd", "/dev/zero", "/dev/null", "a" * 5000, "a\0b", "-rf", "~root"),
    *("\ud800", "x" * 100_000, "nul", "=1+1", "<script>alert(1)</script>", "\u202e\u200f", "."),
)
NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"))
ODD = (None, True, False, [], {}, [[]], {"": None}, float("inf"), *NUMBERS, *TRAPS)


def flip_bits(content: bytes, draw: Random) -> bytes:
    """One to eight of them."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def flip_early_bits(content: bytes, draw: Random) -> bytes:
    """In the first 64 bytes, where formats have their headers."""
    return flip_bits(content[:64], draw) + content[64:]


def cut(content: bytes, draw: Random) -> bytes:
    """Anywhere."""
    return content[: draw.randrange(len(content) + 1)]


def cut_the_start(content: bytes, draw: Random) -> bytes:
    """Anywhere."""
    return content[draw.randrange(len(content) + 1) :]


def zero_a_part(content: bytes, draw: Random) -> bytes:
    """As a disk does that lost a block."""
    start = draw.randrange(len(content) + 1)
    many = draw.randint(1, max(len(content) // 4, 1))
    return content[:start] + bytes(len(content[start : start + many])) + content[start + many :]


def zero_all(content: bytes, draw: Random) -> bytes:
    """As a file system does after a power cut."""
    return bytes(len(content))


def repeat_a_part(content: bytes, draw: Random) -> bytes:
    """A piece twice."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:]


def insert_noise(content: bytes, draw: Random) -> bytes:
    """Up to 64 bytes of noise anywhere."""
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.randbytes(draw.randint(1, 64)) + content[at:]


def write_a_large_number(content: bytes, draw: Random) -> bytes:
    """Over any four or eight bytes: sizes become huge, negative or odd."""
    number = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
    code = draw.choice((struct.pack("<I", number), struct.pack(">I", number), b"\xff" * 8))
    at = draw.randrange(max(min(len(content), 4096), 1))
    return content[:at] + code + content[at + len(code) :]


def empty(content: bytes, draw: Random) -> bytes:
    """Nothing."""
    return b""


def something_else(content: bytes, draw: Random) -> bytes:
    """A file of another kind under this name."""
    return draw.choice(OTHERS)


def another_encoding(content: bytes, draw: Random) -> bytes:
    """UTF-16, a byte order mark, or Windows' lines."""
    text = content.decode("utf-8", "replace")
    return draw.choice(
        (
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + content,
            content.replace(b"\n", b"\r\n"),
            text.encode("latin-1", "replace") + b"\xe9",
        )
    )


class _Canary:
    """A pickle that runs code if it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


OTHERS = (
    pickle.dumps(_Canary()),
    b"\x89PNG\r\n\x1a\n" + bytes(32),
    b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(32),
    b"PK\x03\x04" + bytes(64),
    b"\x1f\x8b\x08" + bytes(32),
    b"%!PS-Adobe-3.0\n(canary) (w) file closefile\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    b"<!doctype html><html>not found</html>",
    b"{}",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a": 1, "a": 2}',
    b"a,b\n1,2\n",
    b"PAR1" + bytes(64) + b"PAR1",
    struct.pack("<Q", 2**62) + b"{}",
    struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}',
)

BYTES: tuple[Bytes, ...] = (
    *(flip_bits, flip_bits, flip_early_bits, cut, cut_the_start, zero_a_part, zero_all, empty),
    *(repeat_a_part, insert_noise, write_a_large_number, something_else, another_encoding),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a tree of tables and lists has an entry; of long lists the first few."""
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value[:4]))
    else:
        entries = []
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def holder_of(tree: Any, path: tuple[Any, ...]) -> Any:
    """What holds the entry at a path."""
    for key in path[:-1]:
        tree = tree[key]
    return tree


def change_tree(tree: Any, draw: Random) -> Any:
    """One to three entries removed, renamed, repeated, nested or of another value."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.randint(1, 3)):
        listed = list(places(tree))
        if not listed:
            return draw.choice(ODD)
        path = draw.choice(listed)
        holder, key = holder_of(tree, path), path[-1]
        kind = draw.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[f"{key}?"] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder += [copy.deepcopy(holder[key])] * draw.choice((1, 1, 50))
        elif kind == 3:
            holder[key] = [holder[key]] if draw.randrange(2) else {"inner": holder[key]}
        elif kind == 4 and isinstance(holder[key], str):
            holder[key] = holder[key] + draw.choice(TRAPS)
        else:
            holder[key] = copy.deepcopy(draw.choice(ODD))
    return tree


def change_json(content: bytes, draw: Random) -> bytes:
    """`change_tree`, written as JSON; sometimes a key twice."""
    text = json.dumps(change_tree(json.loads(content), draw))
    if draw.randrange(6) == 0 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]
    return text.encode("utf-8", "surrogatepass")


def change_json_line(content: bytes, draw: Random) -> bytes:
    """One of several lines of JSON."""
    lines = content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = change_json(lines[at], draw)
    return b"\n".join(lines)


def change_text(content: bytes, draw: Random) -> bytes:
    """Lines or cells removed, repeated, swapped, emptied or replaced by traps."""
    lines = content.decode("utf-8", "replace").split("\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        kind = draw.randrange(7)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, draw.choice(lines))
        elif kind == 2:
            lines[at] = draw.choice(TRAPS)
        elif kind == 3:
            lines[at] = lines[at].replace(draw.choice(",\t =|:"), draw.choice(",\t =|:\n"))
        elif kind == 4:
            lines[at] += draw.choice(('"', "'", "[", "{", ",,,,", "\t", "\0", " #", " |"))
        else:
            words = lines[at].split(" " if " " in lines[at] else ",")
            words[draw.randrange(len(words))] = str(draw.choice(ODD))[:6000]
            lines[at] = (" " if " " in lines[at] else ",").join(words)
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def change_header(content: bytes, draw: Random) -> bytes:
    """The header of a safetensors file: names, shapes, kinds and places."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.dumps(change_tree(json.loads(content[8 : 8 + size]), draw)).encode()
    padded = header + b" " * (-len(header) % 8)
    return struct.pack("<Q", len(padded)) + padded + content[8 + size :]


def change_tensor(value: Any, draw: Random) -> Any:
    """A tensor of another shape, kind, place or value."""
    return draw.choice(
        (
            value + 1 if value.dtype != torch.bool else ~value,
            value.reshape(-1)[:-1].clone(),
            value.unsqueeze(0).clone(),
            value.to(torch.float64) if value.is_floating_point() else value.to(torch.int16),
            torch.empty(value.shape, device="meta"),
            torch.empty(2**38, device="meta"),
            torch.zeros(1).expand(2**20),
            value.float() * float("nan"),
        )
    )


def change_checkpoint(content: bytes, draw: Random) -> bytes:
    """torch.load, one part removed, renamed or edited, torch.save."""
    checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    path = draw.choice(list(places(checkpoint)))
    holder, key = holder_of(checkpoint, path), path[-1]
    kind = draw.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}?"] = holder.pop(key)
    elif isinstance(holder[key], torch.Tensor):
        holder[key] = change_tensor(holder[key], draw)
    else:
        holder[key] = draw.choice(ODD)
    changed = io.BytesIO()
    torch.save(checkpoint, changed)
    return changed.getvalue()
