"""The paper's Figure 3 on the report page: pictures with what each phase says of them."""

import base64
import html
import io
import json
import re

import pytest
from PIL import Image
from study_folder import make_record, write_run

from redense import dsd
from redense.recipes.captions import report as captions
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


def names(text):
    return re.findall(r'<img alt="([^"]+)"', text)


def test_best_worst_and_random_pictures_are_shown(tmp_path, pictures):
    found = dict(captions.sections(write(tmp_path / "run", pictures)))
    assert names(found["The best captions"]) == [f"{n}.png" for n in (19, 18, 17, 16, 15, 14)]
    assert names(found["The worst captions"]) == [f"{n}.png" for n in (0, 1, 2, 3, 4, 5)]
    assert names(found["Captions of pictures chosen at random"]) == ["7.png", "3.png", "11.png"]
    assert "Drawn with seed 5" in found["Captions of pictures chosen at random"]


def test_no_picture_is_both_among_the_best_and_the_worst(tmp_path, pictures):
    found = dict(captions.sections(write(tmp_path / "run", pictures[:5])))
    assert not {*names(found["The best captions"])} & {*names(found["The worst captions"])}


def test_each_picture_has_its_captions_by_phase_with_scores_beside_the_right_ones(
    tmp_path, pictures
):
    found = dict(captions.sections(write(tmp_path / "run", pictures)))
    first = re.search(r"<dl>(.*?)</dl>", found["The best captions"])[1]
    terms = [re.sub(r"<[^>]+>", "", term) for term in re.findall(r"<d[td][^>]*>.*?</d[td]>", first)]
    assert terms == [
        *("dense 79", "a cow dense", "sparse 49", "a cow sparse", "redense 19", "a cow redense"),
        *("right", "a grey cow", "the cow"),
    ]


def test_pictures_are_embedded_small_and_in_their_shape(tmp_path, pictures):
    page = report([write(tmp_path / "run", pictures)]).read_text()
    found = re.findall(r'<img alt="([^"]+)" src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(found) == 15
    assert re.findall(r'<img[^>]*src="(?!data:)', page) == []
    for name, content in found:
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (200, 100)
            assert abs(picture.getpixel((50, 50))[0] - 12 * int(name.removesuffix(".png"))) <= 3


def test_a_transparent_picture_stands_on_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    text = captions._thumbnail(tmp_path / "clear.png")
    content = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    assert Image.open(io.BytesIO(content)).getpixel((20, 20)) == (255, 255, 255)


def test_a_picture_that_is_gone_or_broken_is_named(tmp_path, pictures):
    pictures[19].unlink()
    pictures[18].write_bytes(b"no picture")
    text = dict(captions.sections(write(tmp_path / "run", pictures)))["The best captions"]
    assert "19.png: no such file" in text
    assert "18.png: no picture that can be read" in text
    assert names(text) == [f"{n}.png" for n in (17, 16, 15, 14)]


def test_a_phase_whose_captions_are_missing_is_left_out(tmp_path, pictures):
    folder = write(tmp_path / "run", pictures)
    content = json.loads((folder / "captions.json").read_text())
    content["phases"].remove("dense")
    for image in content["images"]:
        del image["captions"]["dense"]
    (folder / "captions.json").write_text(json.dumps(content))
    text = dict(captions.sections(folder))["The best captions"]
    assert "a cow sparse" in text
    assert "a cow dense" not in text


def test_captions_references_and_file_names_are_escaped(tmp_path):
    file = tmp_path / f"{HOSTILE}.png"
    for _, text in captions.sections(
        write(tmp_path / "run", [file], said=HOSTILE, right=[HOSTILE])
    ):
        if "<li>" in text:
            assert "<img src" not in text
            assert text.count(html.escape(HOSTILE)) >= 5


def test_a_run_without_captions_has_no_section(tmp_path, pictures):
    folder = write(tmp_path / "run", pictures)
    (folder / "captions.json").unlink()
    assert captions.sections(folder) == []
