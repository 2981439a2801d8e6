"""What a training function is made of: its own code, and what it names of the same file. A study
does not go on with another one."""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import inspect
import itertools
import symtable
import sysconfig
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, cast

CHANGED = (
    "the training function, or a function, class or constant of its file that it uses, has changed "
    "since"
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_Scope = _Definition | ast.Lambda
_Block = ast.stmt | ast.excepthandler | ast.match_case
_Callable = (FunctionType, MethodType, BuiltinFunctionType, functools.partial, type)
_Scalar = (bool, int, float, str)
_UNREADABLE = (OSError, TypeError, SyntaxError, tokenize.TokenError)
"""Of source that is not there, or was edited into no Python."""
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib"))


def source_sha256(train: Callable[..., Any]) -> str:
    """Of a function's code and of the functions, classes, constants and imports of its file that it
    reaches by name, as they are written there: what running changes does not count, nor do comments
    and docstrings. Of a function in another the other counts up to it. Of a closure and a partial
    the plain values and functions that they were given count too.

    >>> def train(run):
    ...     return len(run.plan)
    >>> len(source_sha256(train))
    64
    """
    text = "\n".join(_texts(train, {}))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _texts(train: Any, seen: dict[int, Any]) -> list[str]:
    if id(train) in seen:
        return []
    seen[id(train)] = train  # and so it stays there, and its id its own
    if isinstance(train, functools.partial):
        return [*_texts(train.func, seen), *_arguments(train, seen)]
    function: Any = getattr(train, "__func__", train)
    if not hasattr(function, "__qualname__"):
        function = type(train)  # an object that can be called
    elif hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return [*_code(function), *_closed_over(function, seen)]


def _given(name: str, value: Any, seen: dict[int, Any]) -> list[str]:
    """What a closure or a partial has of a name: a plain value, or a function of one's own."""
    if isinstance(value, _Scalar):
        return [f"{name}={value!r}"]
    if not isinstance(value, _Callable):
        return []
    if isinstance(value, functools.partial):
        return [f"{name}:", *_given("", value.func, seen), *_arguments(value, seen)]
    made = inspect.unwrap(value)
    try:
        file = inspect.getsourcefile(made) or ""
    except _UNREADABLE:  # of C
        file = ""
    if not file or file.startswith(_INSTALLED):
        return [f"{name}={getattr(made, '__qualname__', type(made).__qualname__)}"]
    return [f"{name}:", *_texts(value, seen)]


def _arguments(partial: functools.partial[Any], seen: dict[int, Any]) -> list[str]:
    named = [*enumerate(partial.args), *sorted(partial.keywords.items())]
    return [text for name, value in named for text in _given(f"{name}", value, seen)]


def _code(function: Any) -> list[str]:
    """The statements that make it: of its file, else its own, else its name."""
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        own = inspect.getsource(function)
        file = inspect.getsourcefile(function) or ""
    except _UNREADABLE:  # of C, or typed at a prompt
        return [name]
    path = function.__qualname__.replace(".<locals>", "").split(".")
    first = getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    for tree, names, line in ((_module(file), path, first), (_parsed(own), path[-1:], 1)):
        if paths := [path for path in _paths(tree, ()) if _leads(path, names, line)]:
            statements = _statements(tree.body)
            return [text for path in paths for text in _whole(path, statements)]
    return [own]  # a lambda's line, cut out of its call


def _module(file: str) -> ast.Module:
    """What a file says; nothing of a notebook's cell."""
    try:
        return _parsed(Path(file).read_bytes())
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


def _whole(path: tuple[_Scope, ...], statements: dict[str, list[ast.stmt]]) -> list[str]:
    """A function or its whole class, the function around it up to there, and what they use of the
    file."""
    outermost = own = path[0]
    for around, inside in itertools.pairwise(path):
        if not isinstance(around, ast.ClassDef):
            own = inside
    if isinstance(own, _Definition) and own is outermost:
        return [ast.unparse(_plain(own)), *_reached([own.name], statements)]  # and its decorations
    whole = outermost if isinstance(outermost, ast.ClassDef) else _until(outermost, own)
    text = ast.unparse(_plain(whole))
    return [text, *_reached(_used(text), statements)]


def _until(node: ast.AST, own: _Scope) -> ast.AST:
    """A function's statements up to the one that holds another function, and of that one no more
    than the way there: what is done with the inner one behind it does not make it."""
    if node is own:
        return node
    for name, parts in ast.iter_fields(node):
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, _Block) and any(inner is own for inner in ast.walk(part)):
                cut = copy.copy(node)
                setattr(cut, name, [*parts[:number], _until(part, own)])
                return cut
    return ast.Expr(cast("ast.Lambda", own))  # in a statement's own words


def _statements(body: Iterable[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """By the name that they give or change, a module's statements, those in blocks too."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in body:
        for name in _defined(statement):
            found.setdefault(name, []).append(statement)
        if not isinstance(statement, _Definition):
            for name, more in _statements(_inside(statement)).items():
                found.setdefault(name, []).extend(more)
    imported = (one for one, made in found.items() if any(map(_imports, made)))
    for name in imported:  # a call of a module's function changes no module
        found[name] = [one for one in found[name] if not isinstance(one, ast.Expr)]
    return found


def _imports(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Import, ast.ImportFrom))


def _inside(block: ast.AST) -> Iterator[ast.stmt]:
    """The statements of an ``if``, a loop, a ``try`` and the like."""
    for inner in ast.iter_child_nodes(block):
        if isinstance(inner, ast.stmt):
            yield inner
        elif isinstance(inner, (ast.excepthandler, ast.match_case)):
            yield from _inside(inner)


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement gives or changes: ``a = 1``, ``a[0] = 1``, ``a.append(1)``."""
    if isinstance(statement, _Definition):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(one.asname or one.name).partition(".")[0] for one in statement.names}
    if isinstance(statement, ast.Assign):
        return {name for target in statement.targets for name in _based(target)}
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign, ast.For, ast.AsyncFor)):
        return _based(statement.target)
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        given = (item.optional_vars for item in statement.items)
        return {name for target in given if target is not None for name in _based(target)}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value.func
        return _based(call) if isinstance(call, ast.Attribute) else set()
    return set()


def _based(target: ast.expr) -> set[str]:
    """The names that ``a``, ``a.b``, ``a[0].b`` and ``(a, b)`` begin with."""
    while isinstance(target, (ast.Attribute, ast.Subscript, ast.Starred)):
        target = target.value
    if isinstance(target, (ast.Tuple, ast.List)):
        return {name for one in target.elts for name in _based(one)}
    return {target.id} if isinstance(target, ast.Name) else set()


def _reached(names: Iterable[str], statements: dict[str, list[ast.stmt]]) -> list[str]:
    """The statements of names and of all names that they use, in the order of these names."""
    found: dict[str, list[str]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in statements:
            continue
        found[name] = [ast.unparse(_plain(statement)) for statement in statements[name]]
        waiting += (used for text in found[name] for used in _used(text))
    return [text for _, texts in sorted(found.items()) for text in texts]


def _used(text: str) -> set[str]:
    """Names of the module that a statement reads, in whatever function of it."""
    try:
        names, waiting = set[str](), [symtable.symtable(text, "code", "exec")]
    except SyntaxError:  # a nonlocal name of a notebook's cell, whose function is not at hand
        return set()
    for table in waiting:
        waiting += table.get_children()
        whole = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() if whole else symbol.is_global():
                names.add(symbol.get_name())
    return names


def _plain(tree: ast.AST) -> ast.AST:
    """Without docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, _Definition) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _closed_over(function: Any, seen: dict[int, Any]) -> list[str]:
    """Plain values and functions that a function has from the one around it, but for those that it
    changes."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells:
        return []
    try:
        tree = _parsed(inspect.getsource(function))
    except _UNREADABLE:
        return []
    nonlocals = (node.names for node in ast.walk(tree) if isinstance(node, ast.Nonlocal))
    changed = {name for names in nonlocals for name in names}
    given = []
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
        if name not in changed:
            given += _given(name, value, seen)
    return given
