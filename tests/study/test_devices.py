"""Workers of a machine with several GPUs; there is none here, so what they would see is looked
at."""

import os
import subprocess
import sys

import pytest

from redense.study.devices import take_device, visible_devices

WORKER = """
import os, sys
from pathlib import Path
from redense.study.devices import take_device
take_device(sys.argv[2:], Path(sys.argv[1]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path):
    """Start a worker that holds its device until it is ended; what it sees."""
    workers = []

    def start(*devices):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), *devices],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        workers.append(process)
        return process.stdout.readline().strip()

    yield start, workers
    for process in workers:
        process.kill()
        process.communicate()


def test_each_worker_sees_a_gpu_of_its_own_and_the_next_ones_share(worker):
    start, workers = worker
    assert [start("2", "5") for _ in range(3)] == ["2", "5", "2"]
    workers[1].kill()  # whatever ends a worker gives its device back
    workers[1].communicate()
    assert start("2", "5") == "5"


def test_with_one_gpu_or_none_nothing_is_done(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for devices in ([], ["0"]):
        take_device(devices, tmp_path)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    ("named", "seen"), [(None, ["0", "1", "2"]), ("4,6", ["4", "6"]), ("", [])]
)
def test_the_gpus_that_a_user_left_visible_are_the_only_ones(monkeypatch, named, seen):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3 if named is None else len(seen))
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_devices() == seen
