"""What `redense prove` and `redense search` train: a recipe by its name, or a function by its
place, ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from redense.cli.flags import Machine, Parser, add_flag, choose
from redense.files.names import near
from redense.recipes import RECIPES


def recipe_of(target: str) -> str | None:
    """The recipe's name; None for a function's place.

    >>> recipe_of("images"), recipe_of("mine.py:train")
    ('images', None)
    """
    if target.endswith(".py"):
        raise ValueError(f"{target} is a file: name its training function, {target}:train, say")
    return None if ":" in target else choose("recipe", target, RECIPES)


def add_target_flags(
    parser: Parser, recipe: str | None, defaults: Mapping[str, Any] | None = None
) -> None:
    """The flags of what is trained: a recipe's options and machine, or how a function's score is
    read."""
    if recipe is None:
        add_flag(parser, "higher_is_better", bool, True, "of the score that is returned")
        return
    parser.add_fields(RECIPES[recipe].options_class(), defaults=defaults)
    parser.add_fields(Machine, skip={"out", "strategy"})


def usable_cores() -> int:
    """Cores that this process may use: slurm, taskset and a container's quota may leave fewer than
    there are."""
    from loky import cpu_count

    cores: int = cpu_count()
    return cores


def load_function(target: str) -> Callable[[Any], Any]:
    """The training function of ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``.

    Raises:
        FileNotFoundError, ImportError, ValueError, TypeError: there is none; what there is, is
            said.
    """
    import cloudpickle

    place, _, name = target.rpartition(":")
    if place.endswith(".py"):
        module = _module_of(Path(place))
    else:
        sys.path.insert(0, str(Path.cwd()))
        module = _import(place, lambda: importlib.import_module(place))
    cloudpickle.register_pickle_by_value(module)  # a worker needs no file of the same name
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    if name not in vars(module):
        hint = near(name, known)
        raise ValueError(
            f"{place} has no function {name!r}; {f'{hint} ' if hint else ''}it has "
            f"{', '.join(known) or 'none'}"
        )
    function = vars(module)[name]
    if not callable(function):
        raise TypeError(f"{target} must be a function, got {type(function).__name__}")
    found: Callable[[Any], Any] = function
    return found


def _module_of(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; it takes FILE.py:FUNCTION")
    sys.path.insert(0, str(file.parent.absolute()))  # as python FILE.py would
    name = f"_{file.stem}_of_a_user"  # the file may be called random.py
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader
    _import(str(file), lambda: loader.exec_module(module))
    return module


def _import(place: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        raise ImportError(
            f"{place} could not be imported: {type(error).__name__}: {error}"
        ) from error
