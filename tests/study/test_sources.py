"""A study goes on with the code that it began with: what counts as the same."""

import functools
import importlib
import sys
import textwrap

import pytest

from redense.study.sources import source_sha256

MINE = '''
import math
from helpers import width
import helpers

RATE = 0.1
LAYERS = (8, 8)


class Base:
    size = 3


class Net(Base):
    def forward(self, x):
        return scale(x)


def scale(x):
    return 2 * x


def unused():
    return 0


def train_one_epoch(net):
    """One pass."""
    return [net.forward(x) for x in range(width())]


def train(run):
    net = Net()
    return sum(train_one_epoch(net)) * RATE + helpers.depth() + math.pi
'''
HELPERS = """
def width():
    return 3


def depth():
    return len("abc")
"""


@pytest.fixture
def sha256(tmp_path, monkeypatch):
    """Of mine.train, where both files are written anew with something replaced."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(mine=("", ""), helpers=("", "")):
        for name, text, change in (("mine", MINE, mine), ("helpers", HELPERS, helpers)):
            (tmp_path / f"{name}.py").write_text(text.replace(*change) if change[0] else text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        for cached in tmp_path.rglob("*.pyc"):
            cached.unlink()
        monkeypatch.setattr("linecache.cache", {})
        return source_sha256(importlib.import_module("mine").train)

    return of


@pytest.mark.parametrize(
    "change",
    [
        ("return 2 * x", "return 3 * x"),  # behind a class's method
        ("for x in range", "for x in reversed(range)"),
        ("RATE = 0.1", "RATE = 0.2"),
        ("size = 3", "size = 4"),
        ("net = Net()", "net = Net(); net.forward(1)"),
    ],
)
def test_what_is_used_counts(change, sha256):
    assert sha256(change) != sha256()


@pytest.mark.parametrize("change", [("return 3", "return 4"), ("len(", "2 * len(")])
def test_a_file_beside_it_counts(change, sha256):
    assert sha256(helpers=change) != sha256()


@pytest.mark.parametrize(
    "change",
    [
        ("net = Net()", "net = Net()  # the network"),
        ('"""One pass."""', '"""One pass over the data."""'),
        ("return 0", "return 1"),  # nobody calls it
        ("LAYERS = (8, 8)", "LAYERS = (8, 9)"),
        ("\n\n\nclass Net", "\n\n\n\nclass Net"),
    ],
)
def test_comments_docstrings_and_what_is_not_used_do_not(change, sha256):
    assert sha256(change) == sha256()


def test_what_a_factory_was_given_counts():
    def factory(rate):
        def train(run):
            return rate

        return train

    assert source_sha256(factory(1)) != source_sha256(factory(2))
    assert source_sha256(factory(1)) == source_sha256(factory(1))


def test_what_training_itself_counts_does_not():
    calls = 0

    def train(run):
        nonlocal calls
        calls += 1
        return calls

    before = source_sha256(train)
    train(None)
    assert source_sha256(train) == before


def test_whatever_can_be_called_has_one():
    class Trainer:
        def __call__(self, run):
            return 1

        def method(self, run):
            return 2

    def train(run, rate):
        return rate

    partials = [functools.partial(train, rate=1), functools.partial(train, rate=1)]
    some = [Trainer(), Trainer().method, partials[0], lambda run: 1, len]
    assert len({source_sha256(one) for one in some}) == len(some)
    assert source_sha256(partials[0]) == source_sha256(partials[1])
    assert source_sha256(partials[0]) != source_sha256(functools.partial(train, rate=2))


def test_a_function_typed_into_a_prompt_has_one(tmp_path):
    space = {}
    exec(textwrap.dedent("def train(run):\n    return 1"), space)
    assert len(source_sha256(space["train"])) == 64
