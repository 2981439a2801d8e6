"""Share an exported network on Hugging Face's hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)

from redense.recipes.export import FILES, is_export
from redense.recipes.hub import first_line

_FOLDER = re.compile(r'^folder = ".*"$', re.MULTILINE)


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload what `redense export` wrote, and return its address.

    >>> print(push(Path("hub"), "ada/emoji"))  # https://huggingface.co/ada/emoji

    Of the folder's other files none is sent; the model is made where the hub has none of its name.
    The card's programs there begin by fetching it.

    Args:
        private: whether a new model is seen by its owner alone.

    Raises:
        ValueError: the folder is no export, or the hub refuses: name, rights, token.
        ConnectionError: the hub cannot be reached.
    """
    if not is_export(folder):
        raise ValueError(
            f"{folder} is not what redense export writes; redense export RUN {folder} makes it"
        )
    there = [folder / file for file in FILES if (folder / file).is_file()]
    parts = [CommitOperationAdd(file.name, _content(file, name)) for file in there]
    hub = HfApi()
    try:
        made = hub.create_repo(name, private=private, exist_ok=True)
        hub.create_commit(name, parts, commit_message="redense push")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        raise ValueError(
            f"the hub does not take {name}: {first_line(error)}; hf auth login, or HF_TOKEN, "
            "says who you are"
        ) from error
    except HTTPError as error:
        raise ConnectionError(f"the hub cannot be reached: {first_line(error)}") from error
    return str(made)


def _content(file: Path, name: str) -> Path | bytes:
    """What is sent: of the card its programs as somebody else runs them."""
    if file.name != "README.md":
        return file
    fetched = f"folder = snapshot_download({json.dumps(name)})"
    line = f"from huggingface_hub import snapshot_download\n\n{fetched}"
    return _FOLDER.sub(lambda _: line, file.read_text("utf-8")).encode()
