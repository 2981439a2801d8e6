"""The one listing of a folder: which pictures there are, of which class, and what is said."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from redense.files.folders import (
    files_below,
    find,
    list_classes,
    place_of,
    plain_name,
    split_folders,
)


def put(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file, "png")


def names(folder):
    return {
        label: [Path(path).name for path in paths] for label, paths in list_classes(folder).items()
    }


@pytest.fixture
def pets(tmp_path):
    put(*(tmp_path / "pets" / label / f"{n}.png" for label in ("cat", "dog") for n in (1, 2)))
    return tmp_path / "pets"


PETS = {"cat": ["1.png", "2.png"], "dog": ["1.png", "2.png"]}


@pytest.mark.parametrize(
    "place",
    [
        ".ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/cat/1.png",
        "@eaDir/1.png",
        "$RECYCLE.BIN/1.png",
        "cat/._1.png",
        "cat/@eaDir/1.png",
        "cat/Thumbs.db",
    ],
)
def test_what_tools_leave_behind_is_passed_over(pets, place, capsys):
    put(pets / place)
    assert names(pets) == PETS
    assert capsys.readouterr().err == ""


def test_an_empty_folder_is_no_class_and_that_is_said(pets, capsys):
    (pets / "fox").mkdir()
    assert names(pets) == PETS
    assert capsys.readouterr().err == f"{pets}: no classes, for they hold no picture: fox\n"


@pytest.mark.parametrize(
    "ending", ["jfif", "jpe", "JPEG", "avif", "jp2", "gif", "webp", "tiff", "qoi"]
)
def test_pictures_have_many_endings(pets, ending):
    put(pets / "cat" / f"3.{ending}")
    assert names(pets)["cat"][-1] == f"3.{ending}"


def test_files_that_are_no_pictures_are_counted_by_kind(pets, capsys):
    put(pets / "loose.png", pets / "cat/a.heic", pets / "dog/b.heic", pets / "dog/README")
    (pets / "dog/gone.png").symlink_to("nowhere.png")
    assert names(pets) == PETS
    said = capsys.readouterr().err
    assert said.startswith(f"{pets}: 5 files are not read as pictures: 2 .heic, ")
    for kind in (".png outside the folders of classes", "without an ending", "links to nothing"):
        assert f"1 {kind}" in said


def test_links_are_followed_and_circles_end(pets, tmp_path):
    put(tmp_path / "away/far/3.png")
    (pets / "cat/more").symlink_to(tmp_path / "away")
    (pets / "cat/again").symlink_to(tmp_path / "away/far")
    (pets / "dog/up").symlink_to(pets)
    (tmp_path / "away/round").symlink_to(tmp_path / "away")
    assert names(pets) == {"cat": [*PETS["cat"], "3.png"], "dog": PETS["dog"]}


def test_a_class_has_one_name_whichever_system_wrote_it(pets):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    put(pets / composed / "1.png", pets / apart / "2.png")
    assert names(pets) == {composed: ["2.png", "1.png"]} | PETS


def test_a_name_that_is_not_utf_8_is_refused_by_name(pets):
    put(pets / os.fsdecode(b"caf\xe9") / "1.png")
    with pytest.raises(ValueError, match=r"pets/caf\\xe9: the name is not UTF-8; rename it"):
        list_classes(pets)


def test_blanks_around_a_name_are_no_part_of_it():
    assert plain_name(" dog ", "list.csv") == "dog"


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_a_split_has_several_names(tmp_path, name):
    for part in ("train", name, "models"):
        (tmp_path / part).mkdir()
    assert split_folders(tmp_path) == {"train": tmp_path / "train", "valid": tmp_path / name}


def test_two_folders_of_one_split_are_refused(tmp_path):
    for part in ("train", "val", "validation"):
        (tmp_path / part).mkdir()
    with pytest.raises(ValueError, match="holds val/ and validation/; keep one"):
        split_folders(tmp_path)


def test_files_are_found_whatever_their_letters_and_not_what_tools_left(tmp_path):
    wanted = [tmp_path / name for name in ("TRAIN.CSV", "a/valid.csv", "test.csv")]
    left = [tmp_path / name for name in ("._train.csv", ".trash/a.csv", "@eaDir/test.csv")]
    for file in (*wanted, *left, tmp_path / "notes.txt"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert find(tmp_path, "*.csv", "*/*.csv", "**/*.csv") == sorted(wanted)
    assert sorted(files_below(tmp_path)) == sorted(map(str, [*wanted, tmp_path / "notes.txt"]))
    assert find(tmp_path / "none", "*.csv") == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("said", ["sub/caf\u00e9.png", "sub\\caf\u00e9.png", "sub/cafe\u0301.png"])
def test_a_lists_file_is_found_in_any_system_s_spelling(tmp_path, form, said):
    file = tmp_path / "sub" / unicodedata.normalize(form, "caf\u00e9.png")
    put(file)
    assert place_of(tmp_path, said) == file
    assert place_of(tmp_path, "none\\1.png") == tmp_path / "none\\1.png"
