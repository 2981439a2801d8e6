"""A study goes on with the code that it began with: what counts as the same."""

import functools
import importlib
import linecache
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from redense.study.sources import source_sha256

ROOT = Path(__file__).parents[2]
MINE = '''
import functools
import math

from sizes import width

RATE = 0.1
CONFIG = {"layers": (8, 8), "kinds": {"a", "b", "c"}}
epochs = 4
calls = 0
if True:
    SCALE = 2


class Base:
    size = 3


class Net(Base):
    def forward(self, x):
        return scale(x)


def logged(function):
    @functools.wraps(function)
    def inside(*given):
        return function(*given)

    return inside


@logged
def scale(x):
    return SCALE * x


def unused():
    return 0


def train_one_epoch(net):
    """One pass."""
    global calls
    calls += 1
    return [net.forward(x) for x in range(width())]


def train(run):
    text = """
not indented"""
    net = Net()
    for _ in run.epochs(net, None):
        pass
    return sum(train_one_epoch(net)) * RATE + math.pi + len(CONFIG)
'''


@pytest.fixture
def sha256(tmp_path, monkeypatch):
    """Of mine.train, where something in the file is replaced."""
    (tmp_path / "sizes.py").write_text("def width():\n    return 3\n\n\ndeeper = width\n")
    monkeypatch.syspath_prepend(tmp_path)

    def of(*change):
        assert not change or change[0] in MINE
        (tmp_path / "mine.py").write_text(MINE.replace(*change, 1) if change else MINE)
        for name in ("mine", "sizes"):
            sys.modules.pop(name, None)
        for cached in tmp_path.rglob("*.pyc"):
            cached.unlink()
        importlib.invalidate_caches()
        monkeypatch.setattr("linecache.cache", {})
        return source_sha256(importlib.import_module("mine").train)

    return of


@pytest.mark.parametrize(
    "change",
    [
        ("SCALE * x", "3 * x"),  # behind a class's method and a decorator
        ("return function(*given)", "return -function(*given)"),
        ("for x in range", "for x in reversed(range)"),
        ("RATE = 0.1", "RATE = 0.2"),
        ("SCALE = 2", "SCALE = 3"),
        ('"layers": (8, 8)', '"layers": (8, 9)'),
        ("size = 3", "size = 4"),
        ("net = Net()", "net = Net(); net.forward(1)"),
        ("import width", "import deeper as width"),
    ],
)
def test_what_is_used_counts(change, sha256):
    assert sha256(*change) != sha256()


@pytest.mark.parametrize(
    "change",
    [
        ("net = Net()", "net = Net()  # the network"),
        ('"""One pass."""', '"""One pass over the data."""'),
        ("return 0", "return 1"),  # nobody calls it
        ("epochs = 4", "epochs = 5"),  # run.epochs is another
        ("\n\n\nclass Net", "\n\n\n\nclass Net"),
    ],
)
def test_comments_docstrings_and_what_is_not_used_do_not(change, sha256):
    assert sha256(*change) == sha256()


def test_what_training_changes_does_not(sha256):
    before = sha256()
    mine = sys.modules["mine"]
    mine.train_one_epoch(mine.Net())
    assert mine.calls == 1
    mine.CONFIG["more"] = len
    assert source_sha256(mine.train) == before


def test_it_is_the_same_in_every_process_however_the_file_was_started(sha256, tmp_path):
    before = sha256()
    (tmp_path / "mine.py").write_text(
        f"{MINE}\n\nif __name__ == '__main__':\n    print(sha(train))"
    )
    said = {before}
    program = "from redense.study.sources import source_sha256 as sha; "
    for code in ("import mine; print(sha(mine.train))", "import runpy; exec(open('go.py').read())"):
        (tmp_path / "go.py").write_text("runpy.run_path('mine.py', {'sha': sha}, '__main__')")
        for seed in ("1", "2"):
            environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
            done = subprocess.run(
                [sys.executable, "-c", program + code],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            said.add(done.stdout.strip())
    assert said == {before}


def test_what_a_closure_was_given_counts_but_not_what_it_counts():
    def factory(rate):
        calls = 0

        def train(run):
            nonlocal calls
            calls += 1
            return rate

        return train

    first = factory(1)
    before = source_sha256(first)
    first(None)
    assert source_sha256(first) == source_sha256(factory(1)) == before
    assert source_sha256(factory(2)) != before


INSIDE = """
import functools

from redense.study.sources import source_sha256

RATE = 0.1
SIZES, MORE = {"a": 1}, []
for _ in range(2):
    SIZES["b"] = 2
    MORE.append(9)
try:
    import scaled
except ImportError:

    def scale(x):
        return RATE * x


def logged(function):
    def inside(run):
        return function(run)

    return inside


def add(a, b):
    return a + b


def train(run):
    return "another"


def main():
    widths = [8, 8]
    more = functools.partial(add, 3)

    def size(run):
        return len(widths) + len(SIZES) + len(MORE) + more(run)

    if widths:

        @logged
        def train(run):
            return scale(size(run))

    seeds = 4
    return source_sha256(train)


def called(length=3):
    return prove(
        lambda run: scale(run) * length, seeds=4
    )


def prove(train, seeds):
    return source_sha256(train)


said = main(), called(), source_sha256(lambda run: scale(run) + 1)
"""


def said_inside(tmp_path, *change):
    """Of a function and of a lambda inside others, and of a module's lambda."""
    for old in change[:1]:
        assert old in INSIDE
    path = tmp_path / "inside.py"
    path.write_text(INSIDE.replace(*change) if change else INSIDE)
    linecache.checkcache()
    return runpy.run_path(str(path))["said"]


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (("seeds = 4", "seeds = 8"), (False, False, False)),
        (("seeds=4", "seeds=8"), (False, False, False)),
        (("length=3", "length=2"), (False, True, False)),
        (("widths = [8, 8]", "widths = [8]; widths.append(8)"), (True, False, False)),
        (("if widths:", "if len(widths) > 1:"), (True, False, False)),
        (("import scaled", "import scaled as scale"), (True, True, True)),
        (('SIZES["b"] = 2', 'SIZES["b"] = 3'), (True, False, False)),
        (("append(9)", "append(10)"), (True, False, False)),
        (("partial(add, 3)", "partial(add, 4)"), (True, False, False)),
        (("a + b", "b + a"), (True, False, False)),
        (("widths = [8, 8]", "widths = [8, 9]"), (True, False, False)),
        (("return len(widths)", "return 1 + len(widths)"), (True, False, False)),
        (("function(run)", "-function(run)"), (True, False, False)),
        (("scale(size(run))", "scale(2 * size(run))"), (True, False, False)),
        (("scale(run) * length", "scale(run) + length"), (False, True, False)),
        (("scale(run) + 1", "scale(run) + 2"), (False, False, True)),
        (("RATE = 0.1", "RATE = 0.2"), (True, True, True)),
        (("RATE * x", "x"), (True, True, True)),
    ],
    ids=lambda one: one[1] if isinstance(one[1], str) else "",
)
def test_of_a_function_in_another_what_it_uses_counts_and_not_how_it_is_proved(
    change, differ, tmp_path
):
    before, after = said_inside(tmp_path), said_inside(tmp_path, *change)
    assert tuple(a != b for a, b in zip(before, after, strict=True)) == differ


class Trainer:
    def __call__(self, run):
        return self.method(run)

    def method(self, run):
        return 2


def test_whatever_can_be_called_has_one():
    def train(run, rate):
        return rate

    partials = [functools.partial(train, rate=rate) for rate in (1, 1, 2)]
    sums = [source_sha256(one) for one in partials]
    assert sums[0] == sums[1] != sums[2]
    assert source_sha256(Trainer()) == source_sha256(Trainer().method)  # a class is one thing
    assert source_sha256(len) != source_sha256(sum)
    space = {}
    exec("def typed(run):\n    return 1", space)
    assert source_sha256(space["typed"]) != source_sha256(len)


def test_a_function_that_is_given_twice_counts_twice():
    def scaled(by):
        def scale(x):
            return by * x

        return scale

    def build(first, second):
        def train(run):
            return first(run) + second(run)

        return train

    sums = [source_sha256(build(scaled(1), scaled(by))) for by in (2, 2, 3)]
    assert sums[0] == sums[1] != sums[2]
    partials = [functools.partial(len, scaled(by)) for by in (2, 2, 3)]
    sums = [source_sha256(one) for one in partials]
    assert sums[0] == sums[1] != sums[2]
    given = (max, min, functools.partial(max, 1), functools.partial(Trainer), os.path.join)
    assert len({source_sha256(build(one, max)) for one in given}) == len(given)


def test_a_default_of_the_same_name_counts_and_a_hidden_one_does_not(tmp_path):
    text = (
        "lr = 0.1\n"
        "def train(run, lr=lr):\n    return lr\n"
        "def other(lr):\n    def train(run):\n        return lr\n    return train\n"
    )
    sums = []
    for now in (text, text.replace("0.1", "0.2")):
        path = tmp_path / "mine.py"
        path.write_text(now)
        linecache.checkcache()
        mine = runpy.run_path(str(path))
        sums.append((source_sha256(mine["train"]), source_sha256(mine["other"](3))))
    assert sums[0][0] != sums[1][0]
    assert sums[0][1] == sums[1][1]


def test_a_file_that_is_no_python_any_more_has_one_too(tmp_path, monkeypatch):
    path = tmp_path / "broken.py"
    path.write_text("def train(run):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    train = importlib.import_module("broken").train
    path.write_text("def train(run):\n    return (1\n")
    linecache.checkcache()
    assert len(source_sha256(train)) == 64


def test_a_notebooks_inner_function_has_one(monkeypatch):
    cell = (
        "def make():\n"
        "    calls = 0\n"
        "    def train(run):\n"
        "        nonlocal calls\n"
        "        calls += 1\n"
        "        return 1\n"
        "    return train\n"
    )
    sums = []
    for text in (cell, cell, cell.replace("return 1", "return 2")):
        lines = text.splitlines(keepends=True)
        monkeypatch.setitem(linecache.cache, "<cell>", (len(text), None, lines, "<cell>"))
        space = {"__name__": "__main__"}
        exec(compile(text, "<cell>", "exec"), space)
        sums.append(source_sha256(space["make"]()))
    assert sums[0] == sums[1] != sums[2]
