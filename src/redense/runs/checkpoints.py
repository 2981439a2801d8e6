"""Checkpoints that are whole or not there: written beside, synced and renamed; checked before they
are read."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from redense.files.weights import BadWeightsError, read_checkpoint
from redense.runs.seal import seal, unseal

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ", free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ", choose another folder"),
}


class DamagedCheckpointError(ValueError):
    """A checkpoint file is cut off or its bytes have changed."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a neighbour of ``path`` and rename that into place once it is on the disk.

    Whatever happens meanwhile, ``path`` holds either its old content or all of the new one.

    Raises:
        OSError: the disk is full or the folder may not be written; earlier files are as they were.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.touch()
        ordinary = partial.stat().st_mode  # the user's umask counts, where safetensors writes 0600
        partial.unlink()
        write(partial)
        if partial.stat().st_mode != ordinary:
            partial.chmod(ordinary)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        reason, number = getattr(error, "strerror", None) or error, _errno(error)
        remedy = _REMEDIES.get(number or 0, "")
        said = f"could not write {path} ({reason}); earlier files are whole{remedy}"
        raise OSError(number, said) from error
    finally:
        partial.unlink(missing_ok=True)


def make_folder(folder: Path, what: str, *, instead: str = "another --out") -> None:
    """Make a folder that somebody named, if it is not there.

    Raises:
        OSError: it cannot be; says ``what`` would have been in it, as in "a study", and what to
            choose ``instead``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {what} at {folder}: {error.strerror}; choose {instead}"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_whole(path, lambda partial: partial.write_text(text, "utf-8"))


def copy_whole(source: Path, target: Path) -> None:
    """A second name of a file where the file system has links, else a copy."""

    def write(partial: Path) -> None:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)

    write_whole(target, write)


def copy_apart(source: Path, target: Path) -> None:
    """A copy that lives on when the source's folder is deleted or changed."""
    write_whole(target, lambda partial: shutil.copyfile(source, partial))


def save_whole(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole, with the sum of its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sealed = seal(content)
    write_whole(path, lambda partial: _save(sealed, partial))


def read(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU, after each of its entries and all of them together have matched
    their sums.

    Raises:
        DamagedCheckpointError: names the file and what is wrong with it.
    """
    try:
        content = read_checkpoint(path)
    except BadWeightsError as error:
        raise DamagedCheckpointError(f"{path} is damaged: {error.reason}") from error
    if not isinstance(content, dict):
        raise DamagedCheckpointError(
            f"{path} is damaged: it holds a {type(content).__name__}, not a training's state"
        )
    try:
        return unseal(content)
    except ValueError as error:
        raise DamagedCheckpointError(f"{path} is damaged: {error}") from error


def _errno(error: OSError | SafetensorError) -> int | None:
    """The system's number of an error, which safetensors has in its text alone."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's zip writer hides a full disk behind "unexpected pos"
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        raise reason or error from None
