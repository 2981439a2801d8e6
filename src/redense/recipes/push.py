"""Share an exported network on Hugging Face's hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)

from redense.recipes.export import FILES, is_export
from redense.recipes.hub import first_line


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload what `redense export` wrote, and return its address.

    >>> print(push(Path("hub"), "ada/emoji"))  # https://huggingface.co/ada/emoji

    Of the folder's other files none is sent; the model is made where the hub has none of its name.

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
    hub = HfApi()
    try:
        made = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="redense push",
        )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        raise ValueError(
            f"the hub does not take {name}: {first_line(error)}; hf auth login, or HF_TOKEN, "
            "says who you are"
        ) from error
    except HTTPError as error:
        raise ConnectionError(f"the hub cannot be reached: {first_line(error)}") from error
    return str(made)
