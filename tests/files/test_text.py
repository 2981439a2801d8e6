"""The door to text: marks, encodings, ends of lines, and errors that name the place."""

from pathlib import Path

import pytest

from redense.files.text import read_lines, read_tabs, read_text


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


def test_a_row_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "a.tsv").write_text("id\tpath\nme\ta.mp3\nyou")
    with pytest.raises(ValueError, match=r"a\.tsv, line 3: no path"):
        list(read_tabs(tmp_path / "a.tsv", ("path",)))
