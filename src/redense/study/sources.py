"""What a training function is made of: its own code, and what it names of the same file. A study
does not go on with another one."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

CHANGED = (
    "the training function, or a function, class or constant of its file that it uses, has changed "
    "since"
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Scope = _Definition | ast.Lambda
_Scalar = (bool, int, float, str)


def source_sha256(train: Callable[..., Any]) -> str:
    """Of a function's code and of the functions, classes, constants and imports of its file that it
    reaches by name, as they are written there: what running changes does not count, nor do comments
    and docstrings. Of a closure and a partial the plain values and functions that they were given
    count too.

    >>> def train(run):
    ...     return len(run.plan)
    >>> len(source_sha256(train))
    64
    """
    text = "\n".join(_texts(train, set()))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _texts(train: Any, seen: set[Any]) -> list[str]:
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
    seen.add(getattr(function, "__code__", function))
    return [*_code(function), *given, *_closed_over(function, seen)]


def _code(function: Any) -> list[str]:
    """The statements that make it: of its file, else its own, else its name."""
    name = str(function.__qualname__)
    try:
        own = inspect.getsource(function)
    except (OSError, TypeError):  # of C, or typed at a prompt
        return [name]
    path = name.replace(".<locals>", "").split(".")
    first = getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    for tree, names, line in ((_module(function), path, first), (_parsed(own), path[-1:], 1)):
        if paths := [path for path in _paths(tree, ()) if _leads(path, names, line)]:
            return [text for path in paths for text in _whole(path, tree)]
    return [own]  # a lambda's line, cut out of its call


def _module(function: Any) -> ast.Module:
    """What its file says; nothing of a notebook's cell."""
    try:
        return _parsed(Path(inspect.getsourcefile(function) or "").read_bytes())
    except OSError:
        return _parsed("")


def _parsed(text: str | bytes) -> ast.Module:
    """Nothing where that is no Python."""
    try:
        return ast.parse(textwrap.dedent(text) if isinstance(text, str) else text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _paths(node: ast.AST, outside: tuple[_Scope, ...]) -> Iterator[tuple[_Scope, ...]]:
    """Every function and class in it, and those that they stand in, outermost first."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, _Scope):
            yield (*outside, inner)
            yield from _paths(inner, (*outside, inner))
        else:
            yield from _paths(inner, outside)


def _leads(path: tuple[_Scope, ...], names: list[str], line: int) -> bool:
    """Whether it leads to what has these names; a lambda has a line only."""
    if isinstance(path[-1], ast.Lambda):
        return names[-1] == "<lambda>" and path[-1].lineno == line
    return ["<lambda>" if isinstance(one, ast.Lambda) else one.name for one in path] == names


def _whole(path: tuple[_Scope, ...], tree: ast.Module) -> list[str]:
    """A function or its whole class, and what it uses of the functions and the file around it."""
    scope, own = _statements(tree.body), path[0]
    for around, inside in itertools.pairwise(path):
        if not isinstance(around, ast.ClassDef):
            own = inside
            if not isinstance(around, ast.Lambda):
                scope |= _statements(around.body)
    if not isinstance(own, ast.Lambda) and own.name in scope:
        return _reached([own.name], scope)
    return [ast.unparse(_plain(own)), *_reached(_used(own), scope)]


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


def _reached(names: Iterable[str], statements: dict[str, list[ast.stmt]]) -> list[str]:
    """The statements of names and of all names that they use, in the order of these names."""
    found: dict[str, list[str]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in statements:
            continue
        found[name] = [ast.unparse(_plain(statement)) for statement in statements[name]]
        for statement in statements[name]:
            waiting += _used(statement)
    return [text for _, texts in sorted(found.items()) for text in texts]


def _used(statement: ast.AST) -> set[str]:
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


def _closed_over(function: Any, seen: set[Any]) -> list[str]:
    """Plain values and functions that a function has from the one around it, but for those that it
    changes."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells:
        return []
    try:
        tree = _parsed(inspect.getsource(function))
    except (OSError, TypeError):
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
        if isinstance(value, FunctionType) and value.__code__ not in seen:
            given += _texts(value, seen)
    return given
