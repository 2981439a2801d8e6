"""The HTML that recipes' sections of the report page are made of."""

import re

from redense.recipes.sections import table


def test_texts_are_escaped_but_in_the_column_that_is_html():
    text = table("<c>", ("<a>", "<b>"), [["<i>x</i>", "<i>y</i>"]], html=1)
    assert [found for found in re.findall(r"<[abci]>", text) if found] == ["<i>"]
    assert '<td class="text"><i>y</i></td>' in text
    assert "&lt;i&gt;x&lt;/i&gt;" in text


def test_a_column_with_a_number_is_flush_right_whole_ones_have_no_places():
    text = table("", ("name", "many", "share"), [["a", 1200, 0.5], ["b", "", ""]])
    assert re.findall(r'class="(\w+)">([^<]*)</t[dh]>', text)[3:] == [
        *[("text", "a"), ("number", "1,200"), ("number", "0.50")],
        *[("text", "b"), ("number", ""), ("number", "")],
    ]


def test_a_long_table_scrolls():
    assert ["long" in table("", ("n",), [[n] for n in range(many)]) for many in (24, 25)] == [
        False,
        True,
    ]
