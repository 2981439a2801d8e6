"""What a training function is made of: its own code, and the user's code and constants that it
uses. A study does not go on with another one."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

CHANGED = (
    "the training function, or a function, class or constant beside it that it uses, has changed "
    "since"
)
_CONSTANTS = (bool, int, float, str, bytes, tuple, type(None))


def source_sha256(train: Callable[..., Any]) -> str:
    """Of a function's code and of the functions, classes and constants of its own module, and of
    modules beside it, that it reaches by name; comments, docstrings and layout do not count.

    >>> def train(run):
    ...     return len(run.plan)
    >>> len(source_sha256(train))
    64
    """
    first = _plain(train)
    code: dict[str, str] = {}
    constants: dict[tuple[str, str], str] = {}
    assigned: set[str] = set()
    waiting = [first]
    while waiting:
        one = waiting.pop()
        name = f"{one.__module__}.{one.__qualname__}"
        if name in code:
            continue
        code[name] = _normal(one)
        if isinstance(one, type):
            waiting += [base for base in one.__bases__ if _is_own(base, first)]
        for function in _functions(one):
            assigned |= set(_assigned(function.__code__))
            for used, value in _used(function):
                if isinstance(value, (FunctionType, type)):
                    waiting += [value] if _is_own(value, first) else []
                elif isinstance(value, _CONSTANTS):
                    constants[name, used] = repr(value)
    parts = [f"{name} = {text}" for name, text in sorted(code.items())]
    parts += [
        f"{name}: {used} = {text}"
        for (name, used), text in sorted(constants.items())
        if used not in assigned  # counters and the like: what training changes is no constant
    ]
    parts += _given(train)
    lines = (f"{part}\n" for part in parts)
    return hashlib.sha256("".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def _plain(train: Callable[..., Any]) -> Any:
    """The function or class behind a partial, a bound method, a decorator or a callable object."""
    while isinstance(train, functools.partial):
        train = train.func
    train = inspect.unwrap(getattr(train, "__func__", train))
    return train if isinstance(train, (FunctionType, type)) else type(train)


def _given(train: Callable[..., Any]) -> list[str]:
    """What a partial gives beside the run, as far as its value says what it is."""
    given: list[str] = []
    while isinstance(train, functools.partial):
        named = [*(("", one) for one in train.args), *sorted(train.keywords.items())]
        given += [f"{name}={one!r}" for name, one in named if isinstance(one, _CONSTANTS)]
        train = train.func
    return given


def _normal(one: Any) -> str:
    """Source as Python itself would write it, without docstrings; of what has none its name."""
    try:
        source = textwrap.dedent(inspect.getsource(one))
    except (OSError, TypeError):
        return repr(one.__qualname__)
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda's line, cut out of its call
        return source
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            node.body = node.body[ast.get_docstring(node) is not None :] or [ast.Pass()]
    return ast.unparse(tree)


def _functions(one: Any) -> list[FunctionType]:
    """A function itself; of a class its methods."""
    if isinstance(one, FunctionType):
        return [one]
    members = (getattr(value, "__func__", value) for value in vars(one).values())
    return [member for member in members if isinstance(member, FunctionType)]


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function's code names outside of itself, and what that is now."""
    code, around = function.__code__, function.__globals__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    names = sorted(set(_names(code)))
    for name in names:
        value = around.get(name)
        if isinstance(value, ModuleType):
            inside = vars(value)
            yield from ((f"{name}.{inner}", inside[inner]) for inner in names if inner in inside)
        elif name in around:
            yield name, value


def _assigned(code: CodeType) -> Iterator[str]:
    """Names outside of itself that it gives new values."""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_GLOBAL", "STORE_DEREF"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _assigned(constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_own(one: Any, first: Any) -> bool:
    """Whether the user wrote it: in the training function's module, or in a file in its folder."""
    if one.__module__ == first.__module__:
        return True
    try:
        file, beside = (Path(inspect.getfile(each)).resolve() for each in (one, first))
    except (OSError, TypeError):
        return False
    return beside.parent in file.parents and "site-packages" not in file.parts
