"""The door to text: marks, encodings, ends of lines, and errors that name the place."""

from pathlib import Path

import pytest

from redense.files.text import read_lines, read_table, read_text


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a").write_text("yes\n", "utf-8-sig")
    assert read_text(tmp_path / "a") == "yes\n"


def test_only_a_newline_ends_a_line(tmp_path):
    (tmp_path / "a").write_bytes("a\u2028b\x85c\r\n\nd".encode())
    assert list(read_lines(tmp_path / "a")) == [(1, "a\u2028b\x85c"), (3, "d")]


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("cp1252", "line 2")])
def test_another_encoding_is_said_with_the_file(tmp_path, encoding, said):
    (tmp_path / "list").write_bytes("one\ncaf\u00e9\n".encode(encoding))
    with pytest.raises(ValueError, match=rf"list.*{said}.*save"):
        read_text(tmp_path / "list")


def test_a_device_is_no_text():
    with pytest.raises(FileNotFoundError, match="/dev/zero"):
        read_text(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('Path\tSentence\na.mp3\tSay "hi"', {"path": "a.mp3", "sentence": 'Say "hi"'}),
        (
            'path,sentence\na.mp3,"Say ""hi"", then"',
            {"path": "a.mp3", "sentence": 'Say "hi", then'},
        ),
        ("path; sentence\r\na.mp3;Say hi\r\n", {"path": "a.mp3", "sentence": "Say hi"}),
        ("path|sentence\na.mp3|Say\u2028hi", {"path": "a.mp3", "sentence": "Say\u2028hi"}),
        ("path,sentence\na.mp3", {"path": "a.mp3", "sentence": ""}),
        ("path,sentence\na.mp3,hi,,", {"path": "a.mp3", "sentence": "hi"}),
    ],
)
def test_a_table_is_read_by_its_columns_names(tmp_path, text, row):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert list(read_table(tmp_path / "a.csv")) == [(2, row)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,text\na.wav,hi\nb.wav,well, then\n", "line 3: 3 cells for 2 columns"),
        ('path,text\na.wav,"hi\n' + 70_000 * "b.wav\n", "line .*quote left open"),
    ],
)
def test_a_row_that_is_not_of_its_columns_is_named(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.csv, {said}"):
        list(read_table(tmp_path / "a.csv"))
