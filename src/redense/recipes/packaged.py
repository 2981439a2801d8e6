"""Packaged data sets as recipes read them: their card, and their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict

from torch import Tensor

from redense import datasets
from redense.files.typed import Count, Kind, read_json
from redense.files.weights import BadWeightsError, read_weights


class CardFile(TypedDict):
    """What recipes ask of a data set's card.json; `redense.datasets.card.Card` has all of it."""

    task: str
    classes: NotRequired[list[str]]
    alphabet: NotRequired[str]
    sizes: NotRequired[dict[str, Count]]


_REMEDY = "delete its folder, and it is fetched and prepared anew"
_CARD = Kind(CardFile, "data set's card", _REMEDY)


def open_packaged(name: str, task: str) -> tuple[Path, CardFile]:
    """(folder, card) of a packaged set, prepared on first use.

    Raises:
        ValueError: it is for another task, or damaged.
    """
    folder = datasets.prepare(name)
    card = read_json(folder / "card.json", _CARD)
    if card["task"] != task:
        raise ValueError(f"data set {name!r} is for {card['task']}, not for {task}")
    return folder, card


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one of its files.

    Raises:
        FileNotFoundError, ValueError: names the file that is missing or damaged.
    """
    try:
        return read_weights(file)
    except BadWeightsError as error:
        raise ValueError(f"{file} is damaged ({error.reason}); {_REMEDY}") from error
