"""The rooms of the house and which way their doors open, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "redense"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"plan"},
    {"tensors"},
    {"prunable"},
    {"masks", "optimizers"},
    {"constraint"},
    {"scheduler", "rates"},
    {"walk"},
    {"redense"},  # the package's own __init__: the core's public names
    {"lightning", "huggingface", "datasets", "files"},
    {"runs"},
    {"recipes", "study"},
    {"report"},
    {"proof"},
    {"search"},
    {"cli"},
    {"__main__"},
]
"""From the ground up: a room uses rooms of lower floors only."""

FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
CORE = [room for floor in FLOORS[:7] for room in sorted(floor)]


def room_of(path):
    """``redense/recipes/images/data.py`` is in the room ``recipes``."""
    return (
        "redense"
        if path == PACKAGE / "__init__.py"
        else path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    )


def files_of(room):
    return [path for path in FILES if room_of(path) == room]


def imports_of(source, package):
    """Absolute dotted names of everything that ``source``, a module in ``package``, imports
    anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = (
                package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            )
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_rooms(path):
    package = ".".join(["redense", *path.relative_to(PACKAGE).parent.parts])
    for name in imports_of(path.read_text(encoding="utf-8"), package):
        top, *rest = name.split(".")
        if top == "redense":
            yield rest[0] if rest and rest[0] in FLOOR else "redense"


def third_parties(path):
    package = ".".join(["redense", *path.relative_to(PACKAGE).parent.parts])
    tops = {name.split(".")[0] for name in imports_of(path.read_text(encoding="utf-8"), package)}
    return tops - sys.stdlib_module_names - {"redense"}


def test_the_reader_of_imports_reads_every_kind():
    source = (
        "import a.b, c; from . import d; from .e import f; from ..g import h; from i.j import k"
    )
    source += "\ndef late():\n    import l"
    assert list(imports_of(source, "redense.recipes")) == [
        *("a.b", "c", "redense.recipes.d", "redense.recipes.e.f", "redense.g.h", "i.j.k", "l"),
    ]


def test_every_file_is_in_a_known_room():
    assert {room_of(path) for path in FILES} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    upwards = [
        other for other in imported_rooms(path) if other != room and FLOOR[other] >= FLOOR[room]
    ]
    assert not upwards, f"{room} must not import {upwards[0]}"


@pytest.mark.parametrize("room", CORE)
def test_the_core_imports_torch_and_the_standard_library_only(room):
    allowed = set() if room == "plan" else {"torch"}
    assert set().union(*map(third_parties, files_of(room))) <= allowed


def test_the_plan_imports_no_room_at_all():
    assert not list(imported_rooms(PACKAGE / "plan.py"))


@pytest.mark.parametrize(
    ("room", "framework"), [("lightning", "lightning"), ("huggingface", "transformers")]
)
def test_an_adapter_knows_its_own_framework_only(room, framework):
    assert third_parties(PACKAGE / f"{room}.py") <= {framework, "torch"}


def test_no_room_is_a_lumber_room():
    lumber = {"utils", "util", "common", "helpers", "helper", "core", "misc", "callbacks", "config"}
    assert not [
        path
        for path in FILES
        if lumber & {part.removesuffix(".py") for part in path.parts[len(PACKAGE.parts) :]}
    ]


def test_importing_redense_imports_no_trainer_and_no_recipe():
    heavy = [
        "lightning",
        "transformers",
        "accelerate",
        "torchvision",
        "torchmetrics",
        "matplotlib",
        "redense.recipes",
    ]
    script = f"import sys, redense; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
