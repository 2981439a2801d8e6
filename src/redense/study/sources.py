"""What a training function is made of: its own code, and what it names of the same file. A study
does not go on with another one."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CHANGED = (
    "the training function, or a function, class or constant of its file that it uses, has changed "
    "since"
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Scalar = (bool, int, float, str)


def source_sha256(train: Callable[..., Any]) -> str:
    """Of a function's code and of the functions, classes, constants and imports of its file that it
    reaches by name, as they are written there: what running changes does not count, nor do comments
    and docstrings. Of a closure and a partial the plain values that they were given count too.

    >>> def train(run):
    ...     return len(run.plan)
    >>> len(source_sha256(train))
    64
    """
    given: list[str] = []
    while isinstance(train, functools.partial):
        given += [f"{value!r}" for value in train.args if isinstance(value, _Scalar)]
        named = sorted(train.keywords.items())
        given += [f"{name}={value!r}" for name, value in named if isinstance(value, _Scalar)]
        train = train.func
    function: Any = getattr(train, "__func__", train)
    if not hasattr(function, "__qualname__"):
        function = type(train)  # an object that can be called
    elif hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    text = "\n".join([*_code(function), *given, *_closed_over(function)])
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _code(function: Any) -> list[str]:
    """The statements that make it: of its file, else its own, else its name."""
    name = str(function.__qualname__)
    try:
        own = inspect.getsource(function)
    except (OSError, TypeError):  # of C, or typed at a prompt
        return [name]
    statements = _statements(_module(function))
    first = name.partition(".")[0]
    if first in statements:
        return _reached(first, statements)
    try:
        return [ast.unparse(_plain(ast.parse(textwrap.dedent(own))))]
    except SyntaxError:  # a lambda's line, cut out of its call
        return [own]


def _module(function: Any) -> list[ast.stmt]:
    """Its file's statements; none of a notebook's cell."""
    try:
        return ast.parse(Path(inspect.getsourcefile(function) or "").read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []


def _statements(body: Iterable[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """By the name that they define, a module's statements, those under ``if`` and ``try`` too."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in body:
        for name in _defined(statement):
            found.setdefault(name, []).append(statement)
        inner = [getattr(statement, field, ()) for field in ("body", "orelse", "finalbody")]
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            for name, more in _statements(one for part in inner for one in part).items():
                found.setdefault(name, []).extend(more)
    return found


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, _Definition):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(one.asname or one.name).partition(".")[0] for one in statement.names]
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return [name for name, stored in _names(statement) if stored]
    return []


def _reached(first: str, statements: dict[str, list[ast.stmt]]) -> list[str]:
    """The statements of a name and of all names that they use, in the order of these names."""
    found: dict[str, list[str]] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name in found or name not in statements:
            continue
        found[name] = [ast.unparse(_plain(statement)) for statement in statements[name]]
        for statement in statements[name]:
            waiting += _used(statement)
    return [text for _, texts in sorted(found.items()) for text in texts]


def _used(statement: ast.stmt) -> set[str]:
    """Names that a statement reads and does not give itself."""
    names = list(_names(statement))
    own = {name for name, stored in names if stored}
    own |= {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
    shared = (node.names for node in ast.walk(statement) if isinstance(node, ast.Global))
    return {name for name, _ in names} - (own - {name for names in shared for name in names})


def _names(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Every name in it, and whether it is given a value there."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id, not isinstance(inner.ctx, ast.Load)


def _plain(tree: ast.AST) -> ast.AST:
    """Without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, _Definition) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _closed_over(function: Any) -> list[str]:
    """Plain values that a function has from the one around it, but for those that it changes."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells:
        return []
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return []
    nonlocals = (node.names for node in ast.walk(tree) if isinstance(node, ast.Nonlocal))
    changed = {name for names in nonlocals for name in names}
    given = []
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
        if isinstance(value, _Scalar) and name not in changed:
            given.append(f"{name}={value!r}")
    return given
