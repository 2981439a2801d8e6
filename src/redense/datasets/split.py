"""Which part of a data set an example belongs to: decided by what must not be shared, never by the
example alone."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "valid", "test")


def split_of(key: str) -> str:
    """`train` (80 %), `valid` (10 %) or `test` (10 %) for everything that shares `key`: a concept,
    a sentence.

    The sha256 of the key decides, so it is the same on every machine and stays when a set grows.

        split_of("woman golfing")        # every artist's drawing, in every skin tone, goes to this
        part
    """
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"
