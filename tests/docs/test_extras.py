"""Extras: each holds what its room imports, and hints name extras that there are."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def requirements(extra):
    """Names of the packages that an extra asks for, those of the extras that it names included."""
    names = set()
    for line in EXTRAS[extra]:
        if inner := re.fullmatch(r"redense\[([\w,]+)\]", line):
            names |= set().union(*(requirements(name) for name in inner[1].split(",")))
        else:
            names.add(re.match(r"[\w.-]+", line)[0].lower().replace("_", "-"))
    return names


def imports(path):
    """Absolute names that a module imports anywhere in it."""
    package = path.relative_to(SRC).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def third_parties(paths):
    """What some modules, and whatever of redense they import, import of others."""
    seen, todo, tops = set(), list(paths), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            top, *rest = name.split(".")
            file = SRC.joinpath(top, *rest)
            if top != "redense":
                tops.add(top)
            elif file.with_suffix(".py").exists():
                todo.append(file.with_suffix(".py"))
            elif file.is_dir():
                todo.append(file / "__init__.py")
    return tops - sys.stdlib_module_names - {"__future__"}


@pytest.mark.parametrize("extra", ["images", "captions", "speech", "study"])
def test_an_extra_holds_what_its_room_imports(extra):
    package = SRC / "redense"
    studies = [*(package / "study").glob("*.py"), *(package / "search").glob("*.py")]
    rooms = {"study": [*studies, package / "proof.py"]}
    recipe = [*(package / "recipes" / extra).glob("*.py"), *(package / "recipes").glob("*.py")]
    asked = requirements(extra) | {"torch"}
    asked |= {"dask", "ray"}  # of [cluster], which the backends' errors name
    asked |= {"onnxruntime", "onnxscript"}  # of [onnx], which the format's error names
    distributions = packages_distributions()
    for name in sorted(third_parties(rooms.get(extra, recipe))):
        owners = {owner.lower().replace("_", "-") for owner in distributions[name]}
        assert owners & (asked | {"markupsafe"}), f"[{extra}] lacks {name}, of {owners}"


def test_who_trains_on_images_builds_no_language_models():
    assert not requirements("images") & {"kenlm", "flashlight-text", "soundfile", "pycocoevalcap"}
    assert requirements("recipes") >= requirements("speech") | requirements("captions")


def test_every_hint_names_an_extra_that_there_is():
    named = [
        (path, extra)
        for path in (*SRC.rglob("*.py"), ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for inner in re.findall(r"redense\[([\w,]+)\]|'\.\[([\w,]+)\]'", path.read_text("utf-8"))
        for extra in "".join(inner).split(",")
    ]
    assert len(named) > 10
    assert not [(path, extra) for path, extra in named if extra not in EXTRAS]
