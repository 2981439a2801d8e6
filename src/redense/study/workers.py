"""Where a study's runs are trained: in this process, in others of this machine, or on a cluster."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from typing import Any, Protocol

from loky import ProcessPoolExecutor

from redense.study.devices import take_device, visible_devices

BACKENDS = ("loky", "dask", "ray")


class Workers(Protocol):
    """Something that calls functions, several at a time."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call it when a worker is free; what it raises, and a killed worker, is the future's
        exception."""

    def renew(self) -> None:
        """Fresh workers after one was killed; nothing may be under way."""


@contextmanager
def open_workers(backend: str, many: int) -> Iterator[Workers]:
    """``many`` workers of one thread each; all of them have ended when this is left, also by
    Ctrl-C.

    Args:
        backend: ``loky`` for processes of this machine, with ``many`` = 1 this very process;
            ``dask`` or ``ray`` for the cluster that their usual environment variables name, else a
            local one. The study's folder must then be on a disk that all of them see.

    Raises:
        ImportError, ValueError: no such backend, or it is not installed.
    """
    if backend == "loky":
        with _here() if many == 1 else _processes(many) as workers:
            yield workers
    elif backend == "dask":
        with _dask(many) as workers:
            yield workers
    elif backend == "ray":
        with _ray(many) as workers:
            yield workers
    else:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


class _Here:
    """This process, one call after another."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*arguments))
        return done

    def renew(self) -> None:
        pass


@contextmanager
def _here() -> Iterator[Workers]:
    yield _Here()


class _Processes:
    """Loky's processes, which need no ``if __name__ == "__main__"`` in a user's script; their
    environment and folder are this call's."""

    def __init__(self, many: int) -> None:
        self._many = many
        self._pool = self._open()

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            future: Future[Any] = self._pool.submit(call, *arguments)
        except BrokenExecutor as error:  # a worker was killed just now
            future = Future()
            future.set_exception(error)
        return future

    def renew(self) -> None:
        self.close(kill=True)
        self._pool = self._open()

    def close(self, *, kill: bool) -> None:
        self._pool.shutdown(wait=True, kill_workers=kill)

    def _open(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._many,
            env={"OMP_NUM_THREADS": "1"},
            initializer=_begin,
            initargs=(os.getpid(), visible_devices()),
        )


@contextmanager
def _processes(many: int) -> Iterator[Workers]:
    processes = _Processes(many)
    try:
        yield processes
    except BaseException:
        processes.close(kill=True)
        raise
    processes.close(kill=False)


def _begin(parent: int, devices: list[str]) -> None:
    """In a worker: take a GPU, where there are several, and end as soon as the process that asked
    for it is gone, however it went."""
    take_device(devices)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(many: int) -> Iterator[Workers]:
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ImportError("--backend dask needs dask: pip install 'redense[cluster]'") from error
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    local = {"n_workers": many, "threads_per_worker": 1, "dashboard_address": None}
    client: Any = Client(address) if address else Client(**local)  # type: ignore[no-untyped-call]
    with client:

        class Dask(_Here):
            def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
                executor = client.get_executor(pure=False, retries=0)
                future: Future[Any] = executor.submit(call, *arguments)
                return future

        yield Dask()


@contextmanager
def _ray(many: int) -> Iterator[Workers]:
    try:
        import ray
    except ImportError as error:
        raise ImportError("--backend ray needs ray: pip install 'redense[cluster]'") from error
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        size: dict[str, Any] = {} if address else {"num_cpus": many, "include_dashboard": False}
        ray.init(address=address, log_to_driver=False, **size)

    class Ray(_Here):
        def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
            task = ray.remote(call).options(num_cpus=1, max_retries=0)
            future: Future[Any] = task.remote(*arguments).future()
            return future

    try:
        yield Ray()
    finally:
        if ours:
            ray.shutdown()
