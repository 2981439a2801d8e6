"""The paper's Figure 3 on the report page: pictures with what each phase says of them."""

import html
import io
import json

import pytest
from PIL import Image
from study_folder import make_record, write_run

from redense import dsd
from redense.recipes.captions import report as captions
from redense.recipes.report import sections
from redense.report.markup import section_html
from redense.report.page import report

HOSTILE = "<img src=x onerror=alert(1)>"
PHASES = ("dense", "sparse", "redense")


@pytest.fixture
def pictures(tmp_path):
    """20 pictures, each its own grey; picture n is ``n.png``."""
    for n in range(20):
        Image.new("RGB", (640, 320), (12 * n,) * 3).save(tmp_path / f"{n}.png")
    return [tmp_path / f"{n}.png" for n in range(20)]


def write(folder, pictures, said="a cow", right=("a grey cow", "the cow")):
    """A run whose picture n has the score n after re-dense; 7, 3 and 11 were drawn at random."""
    record = make_record("dsd", 0, dsd(2, 1, 1, 0.5), metric="bleu4") | {
        "recipe": "captions",
        "options": {},
    }
    write_run(folder, record)
    images = [
        {
            "image": str(file),
            "references": list(right),
            "captions": {
                phase: {"caption": f"{said} {phase}", "score": n + 30 * (2 - k)}
                for k, phase in enumerate(PHASES)
            },
        }
        for n, file in enumerate(pictures)
    ]
    content = {
        "seed": 5,
        "score": "sentence BLEU",
        "phases": list(PHASES),
        "random": [n for n in (7, 3, 11) if n < len(images)],
        "images": images,
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder


def galleries(folder):
    """The cards of each section by its title."""
    return {section.title: section.blocks[1].cards for section in captions.sections(folder)}


def names(cards):
    return [card.picture if isinstance(card.picture, str) else card.picture.name for card in cards]


def test_best_worst_and_random_pictures_are_shown(tmp_path, pictures):
    folder = write(tmp_path / "run", pictures)
    shown = galleries(folder)
    assert names(shown["The best captions"]) == [f"{n}.png" for n in (19, 18, 17, 16, 15, 14)]
    assert names(shown["The worst captions"]) == [f"{n}.png" for n in (0, 1, 2, 3, 4, 5)]
    assert names(shown["Captions of pictures chosen at random"]) == ["7.png", "3.png", "11.png"]
    assert captions.sections(folder)[0].blocks[0].words.startswith("Drawn with seed 5")


def test_no_picture_is_both_among_the_best_and_the_worst(tmp_path, pictures):
    shown = galleries(write(tmp_path / "run", pictures[:5]))
    assert not {*names(shown["The best captions"])} & {*names(shown["The worst captions"])}


def test_each_picture_has_its_captions_by_phase_with_scores_beside_the_right_ones(
    tmp_path, pictures
):
    first, *_ = galleries(write(tmp_path / "run", pictures))["The best captions"]
    assert [(line.name, line.score, line.words) for line in first.lines] == [
        *(("dense", "79", "a cow dense"), ("sparse", "49", "a cow sparse")),
        *(
            ("redense", "19", "a cow redense"),
            ("right", "", "a grey cow"),
            ("right", "", "the cow"),
        ),
    ]


def test_pictures_are_small_and_in_their_shape(tmp_path, pictures):
    shown = galleries(write(tmp_path / "run", pictures))
    cards = [card for gallery in shown.values() for card in gallery]
    assert len(cards) == 15
    for card in cards:
        with Image.open(io.BytesIO(card.picture.content)) as picture:
            assert picture.size == (200, 100)
            grey = 12 * int(card.picture.name.removesuffix(".png"))
            assert abs(picture.getpixel((50, 50))[0] - grey) <= 3


def test_the_report_of_a_caption_run_embeds_its_pictures(tmp_path, pictures):
    page = report([write(tmp_path / "run", pictures)], sections=sections).read_text()
    assert page.count('src="data:image/jpeg;base64,') == page.count("<img ") == 15


def test_a_transparent_picture_stands_on_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    picture = captions._thumbnail(tmp_path / "clear.png")
    assert Image.open(io.BytesIO(picture.content)).getpixel((20, 20)) == (255, 255, 255)


def test_a_picture_that_is_gone_or_broken_is_named(tmp_path, pictures):
    pictures[19].unlink()
    pictures[18].write_bytes(b"no picture")
    shown = galleries(write(tmp_path / "run", pictures))
    assert names(shown["The best captions"]) == [
        *("19.png: no such file", "18.png: no picture that can be read"),
        *(f"{n}.png" for n in (17, 16, 15, 14)),
    ]


def test_a_phase_whose_captions_are_missing_is_left_out(tmp_path, pictures):
    folder = write(tmp_path / "run", pictures)
    content = json.loads((folder / "captions.json").read_text())
    content["phases"].remove("dense")
    for image in content["images"]:
        del image["captions"]["dense"]
    (folder / "captions.json").write_text(json.dumps(content))
    said = {line.words for card in galleries(folder)["The best captions"] for line in card.lines}
    assert "a cow sparse" in said
    assert "a cow dense" not in said


def test_captions_references_and_file_names_are_escaped(tmp_path):
    file = tmp_path / f"{HOSTILE}.png"
    folder = write(tmp_path / "run", [file], said=HOSTILE, right=[HOSTILE])
    best = next(one for one in captions.sections(folder) if one.title == "The best captions")
    text = section_html(best)
    assert "<img src" not in text
    assert text.count(html.escape(HOSTILE)) == 5


def test_a_run_without_captions_has_no_section(tmp_path, pictures):
    folder = write(tmp_path / "run", pictures)
    (folder / "captions.json").unlink()
    assert captions.sections(folder) == []
