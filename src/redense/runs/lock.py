"""One process at a time in a run's folder: a second one is told who trains there, and never writes
into the same checkpoints."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class BusyError(OSError):
    """Another process trains the run."""


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets it go even if the process is killed.

    >>> with sole(Path("runs/images-1")):
    ...     pass

    Raises:
        BusyError: another process holds it; which one, is said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / ".owner"
    lock = FileLock(folder / ".lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = owner.read_text("utf-8") if owner.exists() else "another process"
        raise BusyError(f"{folder} is being trained by {who}; wait for it, or stop it") from None
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield
    finally:
        if outermost:  # filelock 4 sees a lock file that was removed meanwhile, and tries again
            owner.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
