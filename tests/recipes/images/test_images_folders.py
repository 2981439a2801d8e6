"""Pictures on disk: training in memory, streaming and eval see the same ones, labelled by name."""

import json
import resource
import unicodedata

import pytest
import torch
from conftest import CLASSES, SIZES, TINY, write_pictures
from PIL import Image

from redense.recipes.images import streams
from redense.recipes.images.data import load
from redense.recipes.images.evaluation import _pictures
from redense.recipes.images.folders import complete, list_pictures
from redense.recipes.images.streams import open_stream


def sizes(data):
    return data.fingerprint()["sizes"]


both_ways = pytest.mark.parametrize("read", [load, open_stream])


def convert(folder):
    for file in sorted((folder / "val/red").iterdir())[:2]:
        Image.open(file).save(file.with_suffix(".gif"))
        file.unlink()


def link(folder):
    (folder / "val/red").rename(folder / "away")
    (folder / "val/red").mkdir()
    (folder / "val/red/more").symlink_to(folder / "away")


def rename(folder):
    (folder / "val").rename(folder / "Validation")


def leave_behind(folder):
    for part in ("train", "val"):
        (folder / part / "@eaDir").mkdir()
        Image.new("RGB", (8, 8)).save(folder / part / "@eaDir" / "0.png")


@pytest.mark.parametrize("change", [convert, link, rename, leave_behind])
def test_training_streaming_and_eval_see_the_same_pictures(own_pictures, change):
    change(own_pictures)
    data = load(str(own_pictures), size=8)
    streamed = open_stream(str(own_pictures), 8)
    assert data.classes == streamed.classes == CLASSES
    assert sizes(data)["valid"] == SIZES["val"]
    assert sizes(data) == sizes(streamed)
    assert data.valid.labels.tolist() == [label for _, label in streamed.valid.samples]
    assert _pictures(own_pictures, "valid")[0] == streamed.valid


@both_ways
@pytest.mark.parametrize("loose", [0, 5])
def test_a_test_folder_without_labels_is_no_test_split(own_pictures, read, loose, capsys):
    for file in (own_pictures / "test").glob("*/*"):
        file.unlink()
    for folder in (own_pictures / "test").iterdir():
        folder.rmdir()
    for number in range(loose):
        Image.new("RGB", (8, 8)).save(own_pictures / "test" / f"{number}.png")
    assert sizes(read(str(own_pictures), size=8))["test"] == 0
    assert "test has no folder of a class that is trained; it is no test split" in (
        capsys.readouterr().err
    )


@both_ways
def test_unlabelled_pictures_in_one_folder_are_no_test_split(own_pictures, read):
    (own_pictures / "test/red").rename(own_pictures / "test/unknown")
    for label in ("blue", "green"):
        for file in (own_pictures / "test" / label).iterdir():
            file.unlink()
    assert sizes(read(str(own_pictures), size=8))["test"] == 0


@both_ways
def test_a_folder_without_val_makes_its_own_and_says_so(tmp_path, read, capsys):
    folder = write_pictures(tmp_path / "data", {"train": 40, "test": 6})
    data = read(str(folder), size=8)
    assert sizes(data) == {"train": 36, "valid": 4, "test": 6}
    assert f"{folder} has no validation split: 4 training images are held out" in (
        capsys.readouterr().err
    )
    assert sizes(read(str(folder), size=8, valid_share=0.25)) == {
        "train": 30,
        "valid": 10,
        "test": 6,
    }


def test_the_held_out_pictures_are_the_same_in_memory_streamed_and_in_eval(tmp_path):
    folder = write_pictures(tmp_path / "data", {"train": 40})
    memory, streamed = load(str(folder), size=8), open_stream(str(folder), 8)
    assert memory.valid.labels.tolist() == [label for _, label in streamed.valid.samples]
    assert not set(streamed.valid.samples) & set(streamed.train.samples)
    assert _pictures(folder, "valid")[0] == streamed.valid


def test_eval_of_a_run_holds_out_the_share_that_the_run_did(tmp_path, redense):
    folder, run = write_pictures(tmp_path / "data", {"train": 40}), tmp_path / "run"
    flags = (*TINY, "--dense", 1, "--sparse", 1, "--redense", 1, "--valid-share", 0.3)
    answer = redense("train", "images", "--data", folder, *flags, "--out", run)
    assert "12 training images are held out" in answer.err
    valid = json.loads((run / "record.json").read_text())["valid"]["top1"]
    answer = redense("eval", run, "--data", folder, "--workers", 0)
    assert f"top-1  {valid:.2f} % right" in answer.out, answer.err
    assert "of 12 images" in answer.out


def test_of_many_images_5000_are_held_out(tmp_path):
    folder = write_pictures(tmp_path / "data", {"train": 3})
    files = list_pictures(folder)[0]["train"]
    many = type(files)(files.samples * 20_000)
    assert [len(part) for part in complete("x", {"train": many}, None, None)] == [55_000, 5_000, 0]
    with pytest.raises(ValueError, match="x has 1 training image; it needs two or more"):
        complete("x", {"train": files.pick(torch.tensor([0]))}, None, None)


def test_eval_maps_labels_by_name_not_by_place(own_pictures):
    for part in ("train", "val", "test"):
        (own_pictures / part / "blue").rename(own_pictures / part / "zebra")
    split, classes = _pictures(own_pictures, "valid", ("zebra", "red", "green"))
    assert {(path.split("/")[-2], classes[label]) for path, label in split.samples} == {
        (name, name) for name in classes
    }


@both_ways
def test_the_names_of_one_class_may_come_from_two_systems(own_pictures, read):
    for part, form in (("train", "NFD"), ("val", "NFC"), ("test", "NFC")):
        name = unicodedata.normalize(form, "café")
        (own_pictures / part / "blue").rename(own_pictures / part / name)
    assert unicodedata.normalize("NFC", "café") in read(str(own_pictures), size=8).classes


@both_ways
def test_file_names_of_any_bytes_are_read(own_pictures, read):
    file = own_pictures / "train/red/0002.png"
    file.rename(file.with_name("caf\udce9.png"))
    assert sizes(read(str(own_pictures), size=8))["train"] == SIZES["train"]


# lists


def write_list(folder, name="list.csv", change=lambda text: text, encoding="utf-8"):
    lines = ["path,label,split"]
    for file in sorted(folder.glob("*/*/*.png")):
        path = file.relative_to(folder)
        lines.append(f"{path},{path.parts[1]},{path.parts[0]}")
    (folder / name).write_bytes(change("\r\n".join(lines) + "\r\n").encode(encoding))
    return folder / name


AS_EXCEL = {
    "a mark": {"encoding": "utf-8-sig"},
    "semicolons": {"change": lambda text: text.replace(",", ";")},
    "blanks": {"change": lambda text: text.replace("blue,train", "blue ,train", 3)},
    "capitals": {"change": lambda text: text.replace("path,label", "Path,Label")},
    "other words": {"change": lambda text: text.replace(",val", ",validation")},
}


@pytest.mark.parametrize("how", AS_EXCEL)
def test_a_list_is_read_as_excel_writes_it(own_pictures, how):
    data = load(str(write_list(own_pictures, **AS_EXCEL[how])), size=8)
    assert data.classes == CLASSES
    assert data.fingerprint()["sha256"] == load(str(own_pictures), size=8).fingerprint()["sha256"]


UNREADABLE = {
    "UTF-16": {"encoding": "utf-16"},
    "latin-1": {
        "encoding": "latin-1",
        "change": lambda text: text.replace("red,", "réd,"),
    },
    "a quote left open": {
        "change": lambda text: text.replace("train/blue", '"train/blue', 1) + "x" * 140_000
    },
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_list_that_cannot_be_read_is_named(own_pictures, how):
    file = write_list(own_pictures, **UNREADABLE[how])
    with pytest.raises(ValueError, match=f"{file}.*(save|quote)"):
        load(str(file), size=8)


def test_rows_without_a_label_are_left_out_and_said(own_pictures, capsys):
    file = write_list(own_pictures, change=lambda text: text.replace(",red,test", ",,test"))
    assert sizes(load(str(file), size=8))["test"] == 4
    assert f"{file}: 2 rows without a label are left out" in capsys.readouterr().err


def test_a_picture_that_is_trained_on_and_validates_is_said(own_pictures, capsys):
    file = write_list(own_pictures, change=lambda text: text + "train/red/0002.png,red,val\r\n")
    load(str(file), size=8)
    assert "1 images are in train and in valid, " in capsys.readouterr().err


def test_a_picture_that_is_trained_on_and_tests_is_said(own_pictures, capsys):
    file = write_list(own_pictures, change=lambda text: text + "train/red/0002.png,red,test\r\n")
    load(str(file), size=8)
    assert "1 images are in train and in test, " in capsys.readouterr().err


def test_a_picture_of_two_classes_is_refused(own_pictures):
    file = write_list(own_pictures, change=lambda text: text + "train/red/0002.png,blue,train\r\n")
    with pytest.raises(ValueError, match=r"0002\.png is of class 'red' and of class 'blue'"):
        load(str(file), size=8)


def test_a_list_too_large_for_memory_is_streamed(own_pictures, tmp_path, redense, monkeypatch):
    file = write_list(own_pictures)
    assert not streams.wanted(str(file), "flip", 64)
    monkeypatch.setattr(streams, "_MOST_BYTES", 7 * 3 * 64 * 64)
    assert streams.wanted(str(file), "flip", 64)
    flags = (*TINY, "--dense", 1, "--sparse", 1, "--redense", 1, "--workers", 0)
    answer = redense("train", "images", "--data", file, *flags, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    record = json.loads((tmp_path / "run/record.json").read_text())
    answer = redense("eval", tmp_path / "run", "--data", file, "--workers", 0)
    assert f"top-1  {record['valid']['top1']:.2f} % right" in answer.out, answer.err


def test_a_list_takes_little_more_memory_than_its_pixels(tmp_path):
    for name, colour in (("a", 0), ("b", 200)):
        Image.new("RGB", (64, 64), (colour, 9, 9)).save(tmp_path / f"{name}.png")
    lines = [f"{'ab'[n % 2]}.png,{'ab'[n % 2]},train" for n in range(19_999)]
    lines = ["path,label,split", *lines, "a.png,a,val"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = load(str(tmp_path / "list.csv"), size=64)
    data.fingerprint()
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert used < 2 * data.train.images.numel() / 2**20
    assert data.mean == pytest.approx((100 / 255, 9 / 255, 9 / 255), abs=1e-3)


def test_a_list_written_on_windows_names_the_same_pictures(own_pictures):
    file = write_list(own_pictures)
    whole = load(str(file)).fingerprint()
    lines = file.read_text().splitlines()
    file.write_text("\r\n".join([lines[0], *(line.replace("/", "\\") for line in lines[1:])]))
    load.cache_clear()
    assert load(str(file)).fingerprint() == whole


@pytest.mark.parametrize("read", [load, lambda name: open_stream(name, 8)])
def test_an_archive_is_told_to_be_unpacked(tmp_path, read):
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"pets\.zip.*kind that is not read.*unpacked"):
        read(str(tmp_path / "pets.zip"))


@pytest.mark.parametrize("name", ["dev", "Development", "valid"])
def test_validation_goes_by_all_its_names_in_folders_and_lists(own_pictures, name):
    (own_pictures / "val").rename(own_pictures / name)
    assert sizes(load(str(own_pictures)))["valid"] == SIZES["val"]
    assert sizes(load(str(write_list(own_pictures))))["valid"] == SIZES["val"]
