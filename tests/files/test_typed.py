"""Data with keys: what is wrong is said by file, key, value and remedy, in one line."""

import math
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import pytest

from redense.files.typed import (
    Count,
    Kind,
    Number,
    build,
    check,
    parse_json,
    read_json,
    read_toml,
    read_yaml,
)


class Row(TypedDict):
    name: str
    length: Count
    sparsity: NotRequired[Number | dict[str, Number]]


class Content(TypedDict):
    rows: list[Row]
    scores: NotRequired[dict[str, Number]]
    options: NotRequired[dict[str, Any]]
    pair: NotRequired[tuple[str, int]]
    command: NotRequired[list[str] | str | None]


KIND = Kind(Content, "table of rows", "write rows")
GOOD: dict[str, Any] = {"rows": [{"name": "dense", "length": 3}]}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rows": None}, "rows must be a list, got None"),
        ({"rows": [{"length": 3}]}, "it has no 'rows[0].name'"),
        (
            {"rows": [{"name": "a", "length": "3"}]},
            "rows[0].length must be a whole number, got '3'",
        ),
        (
            {"rows": [{"name": "a", "length": -1}]},
            "rows[0].length must be a whole number >= 0, got -1",
        ),
        (
            {"rows": [{"name": "a", "length": 1, "sparsity": {"fc": 0.5, "*": "x"}}]},
            "rows[0].sparsity.* must be a number, got 'x'",
        ),
        ({"scores": {"a": 1, "b": [2]}}, "scores.b must be a number, got [2]"),
        ({"scores": {"a": math.nan}}, "scores.a must be a number >= -1.797"),
        ({"scores": {"a": 10**400}}, "scores.a"),
        ({"scores": [1]}, "scores must be a table, got [1]"),
        ({"pair": ["a"]}, "pair must be a list of length 2, got ['a']"),
        ({"command": 3}, "command must be text or a list or nothing, got 3"),
        ({"scores": "x" * 10_000}, "scores must be a table, got 'xxx"),
        ({"scores": {1: 2.0}}, "the keys of scores must be text"),
    ],
)
def test_what_is_wrong_is_said_by_key_and_value(more, words):
    with pytest.raises(ValueError, match="is no table of rows") as told:
        check(GOOD | more, KIND, "a.json")
    assert str(told.value).startswith(f"a.json is no table of rows: {words}")
    assert str(told.value).endswith("; write rows")
    assert len(str(told.value)) < 200


def test_a_key_that_the_schema_does_not_know_stays():
    known = GOOD | {"more": [1, {"x": None}]}
    assert check(known, KIND, "a.json") is known


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value: line 1"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('{"a": [{"b": 1, "b": 1}]}', "the key 'b' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "'1e999' is too large a number"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"a": 1}}', "Extra data"),
        (r'{"a": ["\ud83d"]}', r"'\ud83d' is half of a character"),
    ],
)
def test_what_is_no_json_is_told_in_one_line(text, words):
    with pytest.raises(ValueError, match="is not valid JSON") as told:
        parse_json(text, KIND, "a.json, line 3")
    assert str(told.value).startswith("a.json, line 3 is not valid JSON: ")
    assert words in str(told.value)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 300


def test_characters_of_two_halves_and_names_that_are_not_utf8_are_read():
    assert parse_json(r'{"a": "\ud83d\ude00 \udce9"}', KIND, "a.json") == {"a": "😀 \udce9"}


def test_a_mark_at_the_start_is_passed_over_and_another_encoding_told(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"rows": []}')
    assert read_json(file, KIND) == {"rows": []}
    file.write_bytes('{"rows": []}'.encode("utf-16"))
    with pytest.raises(ValueError, match=r"a.json is UTF-16; save it as UTF-8"):
        read_json(file, KIND)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "rows = 1\nrows = 2", "is not valid TOML"),
        ("a.toml", "rows = " + "[" * 10_000, "is not valid TOML: it is nested too deeply"),
        ("a.toml", f"rows = 0x{'f' * 10_000}", "rows must be a list, got a number of thousands"),
        ("a.toml", "[[rows]]\nname = 'a'\nlength = nan", "rows[0].length must be a whole number"),
        ("a.yaml", "rows: 1\nrows: 2", "line 1: the key 'rows' is there twice"),
        ("a.yaml", "rows: " + "[" * 3_000, "is not valid YAML: it is nested too deeply"),
        ("a.yaml", "rows: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("a.yaml", "rows: 2026-13-45", "is not valid YAML"),
        ("a.yaml", "? [1]\n: 2", "is not valid YAML"),
        ("a.yaml", "- 1", "it must be a table, got [1]"),
        ("a.yaml", "", "it must be a table, got None"),
        (
            "a.yaml",
            "a: &a [x, x]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{f'*{chr(97 + n)},' * 9}]\n" for n in range(12)
            )
            + "rows: *m",
            "rows[0] must be a table",
        ),
    ],
)
def test_toml_and_yaml_are_told_alike(tmp_path, name, text, words):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ValueError, match=r"a\.(toml|yaml)") as told:
        (read_toml if name == "a.toml" else read_yaml)(file, KIND)
    line = " ".join(str(told.value).split())
    assert words in line
    assert line.endswith("; write rows")
    assert len(line) < 500


def test_yaml_may_say_things_once_for_several_keys(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("rows:\n- &one {name: a, length: 1}\n- {<<: *one, name: b}\n")
    assert read_yaml(file, KIND)["rows"][1] == {"name": "b", "length": 1}


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self):
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


SETTINGS = Kind(Settings, "table of settings", "mend it")


def test_a_dataclass_is_built_of_keys_that_it_has():
    assert build({"names": ["a"]}, SETTINGS, "b.json") == Settings(0, ("a",))
    for content, words in (
        ({"sead": 1}, "it has a key 'sead', known are seed, names"),
        ({"seed": "1"}, "seed must be a whole number, got '1'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ([], "it must be a table, got []"),
    ):
        with pytest.raises(ValueError, match=r"b.json is no table of settings") as told:
            build(content, SETTINGS, "b.json")
        assert words in str(told.value)
