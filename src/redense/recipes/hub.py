"""Trained networks on Hugging Face's hub, by their names."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

_FILES = ["*.safetensors", "config.json", "README.md"]
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(network: str | Path) -> bool:
    """Whether ``owner/name`` is meant as the hub's: no such folder is here, nor one called owner.

    >>> is_hub_name("ada/emoji"), is_hub_name("./ada/emoji"), is_hub_name("/ada/emoji")
    (True, False, False)
    """
    text = str(network)
    return bool(_NAME.fullmatch(text)) and not Path(text).parent.exists()


def fetch(name: str) -> Path:
    """The local copy of a network on the hub, fetched where the cache lacks it.

    Raises:
        FileNotFoundError: there is no such model, or the hub cannot be reached.
    """
    try:
        return Path(HfApi().snapshot_download(name, allow_patterns=_FILES))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{name}: no such folder here, and no model on the hub that you may read"
        ) from error
    except (LocalEntryNotFoundError, HTTPError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{name}: no such folder here, and the hub gives none: {first_line(error)}"
        ) from error


def local(network: str | Path) -> Path:
    """The folder of a network that is named by it, or by what the hub calls it.

    Raises:
        FileNotFoundError: as `fetch`.
    """
    return fetch(str(network)) if is_hub_name(network) else Path(network)


def first_line(error: Exception) -> str:
    """Of what a library says in many, as the hub's client does."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
