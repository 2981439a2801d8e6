"""One GPU per worker: a process that sees a single device cannot sit down on its neighbour's."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import IO

import torch

_held: list[IO[str]] = []
"""Files that this process has locked for as long as it lives."""


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    many = torch.cuda.device_count()
    if named is None:
        return [str(number) for number in range(many)]
    return [device.strip() for device in named.split(",")][:many]


def take_device(devices: Sequence[str], claims: Path | None = None) -> None:
    """Let this process see one GPU of several, that which the fewest other workers hold; to be
    called before CUDA is. With one GPU, or none, nothing is done.

    Args:
        devices: as `visible_devices` of the process that asked for the work.
        claims: where the locked files lie; they are let go when this process ends, however it does.
    """
    if len(devices) < 2:
        return
    folder = claims or Path(tempfile.gettempdir()) / f"redense-devices-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for turn in count():
        for device in devices:
            file = (folder / f"{device.replace('/', '-')}-{turn}").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            _held.append(file)
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            return
