"""What a prepared data set says about itself (`card.json`), and the one way its tensors are
saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from redense.datasets import fetch


@dataclass(frozen=True, kw_only=True)
class Card:
    """A data set in words and numbers.

    `sizes` counts examples per split, `source_sha256` are the upstream files' sums, the same on
    every machine. `leakage` says what train and test still share.
    """

    name: str
    task: str
    sizes: Mapping[str, int]
    source: str
    source_sha256: Mapping[str, str]
    licence: str
    credit: str
    split: str
    leakage: str
    classes: Sequence[str] = ()
    alphabet: str = ""


def save_card(folder: Path, card: Card) -> None:
    """Write `card.json`; its `sha256` is one sum over all the other files of `folder`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = {**asdict(card), "sha256": fetch.sha256_of_files(files, folder)}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")


def save_tensors(path: Path, **tensors: NDArray[np.generic]) -> None:
    """Save named arrays as safetensors, which torch, numpy and others read without running code."""
    path.write_bytes(save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))
