"""The command line's front door: finds the command, and turns errors, signals and a closed pipe
into an exit code."""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from io import TextIOWrapper
from types import FrameType
from typing import Any

from redense.cli.flags import choose, one_line
from redense.cli.stopping import forget, said_when_stopped

COMMANDS = {
    "train": "train a recipe dense, sparse, re-dense; prints each phase's result",
    "prove": "a plan against controls of equal budget, for a recipe or your own function",
    "search": "the plan that does best on validation, then its proof on fresh seeds",
    "report": "runs and studies as one HTML page that needs no network",
    "sensitivity": "prune one layer at a time, and propose sparsities",
    "preview": "which weights of a model a sparse phase may hold, and why not the others",
    "inspect": "zeros per tensor of any checkpoint",
    "export": "a run's network as safetensors with a model card, and as ONNX",
    "push": "share an exported network on Hugging Face's hub",
    "eval": "how good a trained network is on any data",
    "classify": "which class pictures are of, with a network trained on images",
    "transcribe": "print what is said in recordings, by a trained speech network",
    "caption": "say what pictures show, with a network trained on captions",
    "data": "fetch and prepare a packaged data set",
}
"""What each command does; ``redense.cli.NAME.NAME_command`` is it."""

MISTAKES = (ValueError, TypeError, OSError, ImportError, NotImplementedError)
"""What a mistake in what was asked for raises: one line and exit code 2, no traceback."""


_STOPPING = [one for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP")]
"""As far as the system has them."""
_PATIENCE = (0.5, 5.0)
"""Seconds of the processor, and of the clock, that an import may go on after a signal: one in the
middle of a training is mostly short, and behind it the command closes what it has open."""

_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
_AGAIN, _SENT = "a signal is sent again", "a signal was sent again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command: 0 when it worked, 2 for a mistake in what was asked for, 130 after Ctrl-C,
    143 after SIGTERM, 129 when its terminal was closed, 141 when nobody reads the output."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    forget()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that are not UTF-8
    with _interrupting_signals(to_the_end=argv is None) as received, _safe_path():
        try:
            code = _run(arguments)
            sys.stdout.flush()
            return 128 + received[0] if received else code
        except BaseException as error:
            if received:  # a library may make another error of it
                return _stopped(received[0])
            if isinstance(error, KeyboardInterrupt):
                return _stopped(signal.SIGINT)
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                return 128 + signal.SIGPIPE
            if not isinstance(error, MISTAKES) or os.environ.get("REDENSE_TRACEBACK"):
                raise
            print(f"redense: error: {one_line(error)}", file=sys.stderr)
            return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from redense import __version__

        print(f"redense {__version__}")
        return 0
    command = choose("command", arguments[0], COMMANDS)
    module = import_module(f"redense.cli.{command}")
    try:
        code: int = getattr(module, f"{command}_command")(arguments[1:])
    except SystemExit as end:  # argparse's, after --help
        return int(end.code or 0)
    return code


@contextmanager
def _interrupting_signals(*, to_the_end: bool) -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does; the list says which of them came.

    Args:
        to_the_end: whether the process ends with the command; its own end takes seconds, with
            loader processes above all, in which a signal would bring back the system's way.
    """
    received: list[int] = []
    process, asked = os.getpid(), list[tuple[float, float]]()
    children: Any = getattr(signal, "SIGCHLD", None)
    silenced, over = list[Any](), False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a fork, such as a data loader's, dies without a word
            os._exit(128 + number)
        if over:  # sent again, when the command had already ended with its code
            return
        received.append(number)  # the command may end before it is asked again
        if children is not None and not silenced:  # loader processes that end too are no failure
            silenced.append(signal.signal(children, signal.SIG_DFL))
        if _within(frame, __file__, _dropped.__name__):  # Python would print the interrupt
            _send_again(number)
            return
        if _within(frame, _IMPORT_SYSTEM):  # extension modules may make an abort of an interrupt
            asked.append((time.process_time(), time.monotonic()))
            taken = (now - first for first, now in zip(asked[0], asked[-1], strict=True))
            if all(one < most for one, most in zip(taken, _PATIENCE, strict=True)):
                _send_again(number)
                return
            os.write(2, f"{said_when_stopped()}\n".encode(errors="backslashreplace"))
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _STOPPING:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # nohup's wish is kept
                before[number] = handler
                signal.signal(number, interrupt)
    if to_the_end:
        atexit.register(_ignore, list(before))  # the first to be registered comes last
    try:
        with _asking_again(received):
            yield received
    finally:
        over = True
        _send_no_more()
        for number, handler in before.items():
            signal.signal(number, _leave if to_the_end else handler)
        if silenced and silenced[0] is not None and not to_the_end:
            signal.signal(children, silenced[0])


@contextmanager
def _asking_again(received: list[int]) -> Iterator[None]:
    """Where Python drops an interrupt, as in a ``__del__`` or a weak reference's callback, send it
    to this process once more; what half-made objects complain of after an interrupt is no news."""
    report = sys.unraisablehook
    sys.unraisablehook = partial(_dropped, report, received)
    try:
        yield
    finally:
        sys.unraisablehook = report


def _dropped(
    report: Callable[[sys.UnraisableHookArgs], object],
    received: Sequence[int],
    what: sys.UnraisableHookArgs,
) -> None:
    if not received:
        report(what)
    elif isinstance(what.exc_value, KeyboardInterrupt):
        _send_again(received[-1])


def _send_again(number: int) -> None:
    """In a moment, and once however often that is asked for until then."""

    def send() -> None:
        again.name = _SENT  # from here on another one may be asked for
        if (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, number)

    if any(thread.name == _AGAIN for thread in threading.enumerate()):
        return
    again = threading.Timer(0.02, send)
    again.name, again.daemon = _AGAIN, True
    again.start()


def _send_no_more() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and thread.name in (_AGAIN, _SENT):
            thread.cancel()
            thread.join()


def _leave(number: int, frame: FrameType | None) -> None:
    """A signal between the command's end and the process's."""
    os._exit(128 + number)


def _ignore(numbers: Sequence[int]) -> None:
    """The last that Python runs: what it was to do is done, and its exit code stands."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _within(frame: FrameType | None, file: str, function: str | None = None) -> bool:
    """Whether code of that file, or its one function, is under way."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename == file and function in (None, code.co_name):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _safe_path() -> Iterator[None]:
    """Start no Python process that takes a random.py of the working directory for the standard
    library's."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _stopped(number: int) -> int:
    with suppress(OSError):  # there may be no terminal any more
        print(said_when_stopped(), file=sys.stderr)
    return 128 + number


def _nobody_reads() -> bool:
    """Whether a reader of the output has gone, as head does; what is left then goes nowhere."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        ask = select.poll()
        ask.register(stream.fileno(), 0)  # an error is reported even so
        if any(event & select.POLLERR for _, event in ask.poll(0)):
            gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone


def _overview() -> str:
    listed = "\n".join(f"  {name:11} {summary}" for name, summary in COMMANDS.items())
    return (
        "usage: redense COMMAND ...\n\n"
        "Dense-Sparse-Dense training, and the proof whether it helped.\n\n"
        f"commands:\n{listed}\n\n"
        "first run:  redense train images          (Fashion-MNIST, a few minutes)\n"
        "go on:      redense train images --resume runs/images-1\n\n"
        "redense COMMAND --help shows a command's flags.\n"
        "REDENSE_TRACEBACK=1 shows where an error came from."
    )
