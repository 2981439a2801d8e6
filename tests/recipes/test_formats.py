"""What `redense data --formats` says of data of one's own is what the readers check."""

from typing import NotRequired, get_origin, get_type_hints

from redense.recipes import RECIPES
from redense.recipes.captions import forms as captions
from redense.recipes.images.forms import COLUMNS
from redense.recipes.speech.forms import FIELDS


def names(form):
    return {name for field in form.fields for name in field.names}


def needed(form):
    return {field.names[0] for field in form.fields if field.needed}


def test_every_form_and_its_fields_fit_80_columns(redense):
    answer = redense("data", "--formats")
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    for name, recipe in RECIPES.items():
        assert f"redense train {name} --data" in answer.out
        for form in recipe.forms():
            for field in form.fields:
                assert f"  {field.names[0]}" in answer.out


def test_the_fields_are_those_that_readers_check():
    found = {name: recipe.forms() for name, recipe in RECIPES.items()}
    assert names(found["speech"][0]) == {name for field in FIELDS for name in field.names}
    assert names(found["images"][1]) == {name for field in COLUMNS for name in field.names}
    karpathy, coco, _, table = found["captions"]
    assert names(table) == {name for field in captions.COLUMNS for name in field.names}
    for form, rows in (
        (karpathy, [captions.KarpathyImage]),
        (coco, [captions.CocoImage, captions.CocoCaption]),
    ):
        hints = {}
        for row in rows:
            hints |= get_type_hints(row, include_extras=True)
        assert names(form) == set(hints)
        assert needed(form) == {
            name for name, hint in hints.items() if get_origin(hint) is not NotRequired
        }


def test_a_data_set_or_the_formats_must_be_asked_for(redense):
    answer = redense("data")
    assert answer.code == 2
    assert "name a data set, amazon-queen, " in answer.err
    assert "--formats" in answer.err
