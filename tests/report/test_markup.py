"""Data becomes HTML in one place: every text escaped, every file embedded."""

import re

from redense.report.markup import section_html, table_html
from redense.runs.sections import (
    Card,
    Cell,
    Gallery,
    Line,
    Picture,
    Recording,
    Section,
    Table,
    Text,
    number,
)

HOSTILE = "<img src=x onerror=alert(1)>\"'"


def test_every_text_is_escaped():
    recording, picture = Recording(HOSTILE, b"x"), Picture(HOSTILE, b"x")
    rows = [[Cell(HOSTILE), Cell(HOSTILE, recording=recording)]]
    line = Line(HOSTILE, HOSTILE, HOSTILE, strong=True)
    text = section_html(
        Section(
            HOSTILE,
            (
                Text(HOSTILE),
                Table(HOSTILE, (HOSTILE, HOSTILE), rows),
                Gallery([Card(picture, [line]), Card(HOSTILE, [])]),
            ),
        )
    )
    assert "<img src" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;&#34;&#39;") == 13


def test_files_are_embedded_whole():
    rows = [[Cell("tone", recording=Recording("tone.wav", b"dense"))]]
    assert 'src="data:audio/mpeg;base64,ZGVuc2U="' in table_html(Table("", ("",), rows))
    gallery = Gallery([Card(Picture("cow.png", b"dense"), [])])
    assert 'src="data:image/jpeg;base64,ZGVuc2U="' in section_html(Section("", [gallery]))


def test_a_column_with_a_number_is_flush_right_and_carries_it_to_sort_by():
    rows = [[Cell("a"), number(-1200.5, ",.2f")], [Cell("b"), Cell("none")]]
    text = table_html(Table("", ("name", "share"), rows))
    assert re.findall(
        r"<(t[dh])[^>]*?( class=\"number\")?( data-value=\"[^\"]+\")?>([^<]+)<", text
    ) == [
        *[("th", "", "", "name"), ("th", ' class="number"', "", "share")],
        *[("th", "", "", "a"), ("td", ' class="number"', ' data-value="-1200.5"', "−1,200.50")],
        *[("th", "", "", "b"), ("td", ' class="number"', "", "none")],
    ]


def test_a_long_table_scrolls():
    tables = [Table("", ("n",), [[number(n, "d")] for n in range(many)]) for many in (24, 25)]
    assert ["scroll long" in table_html(table) for table in tables] == [False, True]


def test_things_said_under_one_name_share_it():
    lines = [Line("dense", "a cat", "12"), Line("right", "a cow"), Line("right", "the cow")]
    text = section_html(Section("", [Gallery([Card("gone", lines)])]))
    assert re.findall(r"<d[td][^>]*>(.*?)</d[td]>", text) == [
        *('dense <span class="number">12</span>', "a cat", "right", "a cow", "the cow"),
    ]
