"""Caption sets as they are in the world: forms, encodings, years, and what is said five times."""

import json

import pytest
from PIL import Image

from redense.recipes.captions import readers
from redense.recipes.captions.scores import bleu

CAPTIONS = ("A dog runs .", "The brown dog, running fast !")
WORDS = (("a", "dog", "runs"), ("the", "brown", "dog", "running", "fast"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "cache"))


def read(path):
    """{image name: (split, captions)}."""
    return {p.file.name: (p.split, p.captions) for p in readers.read(str(path)).pictures}


def karpathy(folder, sentences, more=()):
    images = [
        {"filename": f"{n}.jpg", "split": split, "sentences": [{"raw": "a cat"}]}
        for n, split in enumerate(("train", "train", "val"))
    ]
    images[1]["sentences"] = sentences
    (folder / "dataset.json").write_text(json.dumps({"images": [*images, *more]}))
    return folder


def coco(folder, parts):
    """{"train2017": (1, 2)}: annotations of those image ids."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, ids in parts.items():
        name = f"COCO_{part}_" if part.endswith("2014") else ""
        images = [{"id": n, "file_name": f"{name}{n:012}.jpg"} for n in ids]
        said = [{"image_id": n, "caption": f"A cat no. {n}"} for n in ids]
        content = {"images": images, "annotations": said}
        (folder / f"annotations/captions_{part}.json").write_text(json.dumps(content))
    return folder


# forms


def flickr(folder, lists=True):
    lines = [
        f"{name}.jpg#{n}\t{caption}"
        for name in ("a", "b", "c", "odd")
        for n, caption in enumerate(CAPTIONS)
    ]
    text = folder / "Flickr8k_text"
    text.mkdir(parents=True)
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (text / "Flickr8k.lemma.token.txt").write_text("\n".join(lines) + "\n")
    if lists:
        for part, name in (("train", "a"), ("dev", "b"), ("test", "c")):
            (text / f"Flickr_8k.{part}Images.txt").write_text(f"{name}.jpg\n")
    return folder


def test_flickrs_token_file_is_read_with_its_lists_of_splits(tmp_path, capsys):
    folder = flickr(tmp_path / "flickr")
    (folder / "Flicker8k_Dataset").mkdir()
    whole = {"a.jpg": ("train", WORDS), "b.jpg": ("valid", WORDS), "c.jpg": ("test", WORDS)}
    assert read(folder) == read(folder / "Flickr8k_text/Flickr8k.token.txt") == whole
    assert "token.txt: 1 images are in no list of a split, left out" in capsys.readouterr().err
    first = readers.read(str(folder)).pictures[0]
    assert first.file == folder / "Flicker8k_Dataset" / "a.jpg"


def test_without_lists_of_splits_a_tenth_validates(tmp_path, capsys):
    found = read(flickr(tmp_path / "flickr", lists=False))
    assert sorted(split for split, _ in found.values()) == ["train"] * 3 + ["valid"]
    assert found == read(tmp_path / "flickr")
    assert "no validation split: 1 training images are held out" in capsys.readouterr().err


TABLES = {
    "captions.txt": (
        "image,caption\n",
        '{0}.jpg,A dog runs .\n{0}.jpg,"The brown dog, running fast !"\n',
    ),
    "captions.csv": (
        "\ufeffImage;Caption\n",
        "{0}.jpg;A dog runs .\n{0}.jpg;The brown dog, running fast\n",
    ),
    "results.csv": (
        "image_name| comment_number| comment\n",
        "{0}.jpg| 0| A dog runs .\n{0}.jpg| 1| The brown dog, running fast !\n",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_kaggles_tables_are_read(tmp_path, name):
    header, rows = TABLES[name]
    text = header + rows.format("a") + rows.format("b")
    (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "Images").mkdir()
    found = readers.read(str(tmp_path)).pictures
    assert [p.file for p in found] == [tmp_path / "Images/a.jpg", tmp_path / "Images/b.jpg"]
    assert [p.captions for p in found] == [WORDS, WORDS]


def test_a_table_may_say_the_split(tmp_path):
    rows = ["image,caption,split", "a.jpg,a cat,train", "b.jpg,a dog,val", "c.jpg,a fox,test"]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    assert [split for split, _ in read(tmp_path).values()] == ["train", "valid", "test"]
    (tmp_path / "captions.csv").write_text("\n".join([*rows, "d.jpg,a cow,"]))
    with pytest.raises(ValueError, match=r"captions\.csv, line 5: needs an image, and train"):
        read(tmp_path)


def test_karpathys_file_is_found_by_the_name_that_it_has(tmp_path):
    karpathy(tmp_path, []).joinpath("dataset.json").rename(tmp_path / "dataset_flickr8k.json")
    assert len(read(tmp_path)) == 2
    (tmp_path / "dataset_coco.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several sets, .*dataset_coco\.json, .*; name one"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<a/>", "is no form of captions that is read; those are JSON .*Kaggle"),
        ("captions.txt", "a.jpg,a dog\n" * 2, "needs a header with the columns image and caption"),
        ("captions.csv", 'image,caption\na,"b\n' + "x" * 140_000, "is a quote left open"),
        ("x.token.txt", "a.jpg#0\ta dog\nb.jpg a dog\n", "line 2: needs a picture, #, a number"),
        ("a.json", "[" * 100_000, "is not valid JSON"),
        ("a.json", '{"images": [3]}', r"images\[0\] must be a table, got 3"),
    ],
)
def test_a_form_that_is_not_read_says_which_are(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        read(tmp_path / name)


# captions that are missing or of another shape


@pytest.mark.parametrize(
    ("sentences", "said"),
    [
        ([{"raw": None}, {"raw": "a dog runs"}], True),
        ([{"raw": float("nan")}, {"raw": "a dog runs"}], True),
        ([{"raw": "a dog runs", "tokens": None}], True),
        ([{"tokens": "a dog runs"}], True),
        (["a dog runs"], True),
        (None, False),
        ([None, 7], False),
    ],
)
def test_a_caption_is_words_or_left_out(tmp_path, sentences, said):
    found = read(karpathy(tmp_path, sentences))
    assert found.get("1.jpg") == (("train", (("a", "dog", "runs"),)) if said else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, ""),
        ({}, r"it has no 'annotations\[0\].caption'; COCO's captions_"),
        (
            {"caption": "a", "image_id": None},
            r"annotations\[0\].image_id must be a whole number, got None",
        ),
    ],
)
def test_a_coco_annotation_that_says_nothing_is_named(tmp_path, change, message):
    annotations = [{"image_id": 1, **change}, {"image_id": 1, "caption": "A dog"}]
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": annotations}
    (tmp_path / "set.json").write_text(json.dumps(content))
    if not message:
        assert read(tmp_path / "set.json") == {"1.jpg": ("train", (("a", "dog"),))}
        return
    with pytest.raises(ValueError, match=rf"set\.json is no file of captions: {message}"):
        read(tmp_path / "set.json")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"id": 1}, r"it has no 'images\[0\].file_name'"),
        ({"file_name": "1.jpg"}, r"it has no 'images\[0\].id'"),
    ],
)
def test_a_coco_image_without_name_or_number_is_named(tmp_path, image, message):
    (tmp_path / "set.json").write_text(json.dumps({"images": [image], "annotations": []}))
    with pytest.raises(ValueError, match=rf"set\.json is no file of captions: {message}"):
        read(tmp_path / "set.json")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            {"filename": None, "split": "train", "sentences": []},
            r"images\[3\].filename must be text, got None",
        ),
        (
            {"filename": "a", "split": "train", "sentences": "a dog"},
            r"images\[3\].sentences must be a list or nothing, got",
        ),
        (
            {"filename": "a", "split": "train", "sentences": [], "imgid": "x"},
            r"images\[3\].imgid must be a whole number, got 'x'",
        ),
    ],
)
def test_an_image_of_karpathys_form_that_lacks_something_is_named(tmp_path, image, message):
    with pytest.raises(ValueError, match=rf"dataset\.json is no file of captions: {message}"):
        read(karpathy(tmp_path, [], [image]))


# one photograph, one item


def test_a_photograph_listed_once_a_caption_is_one_item(tmp_path):
    rows = [
        {"filename": f"{split}{n}.jpg", "split": split, "sentences": [{"tokens": list(words)}]}
        for split in ("train", "val")
        for n in range(4)
        for words in WORDS
    ]
    (tmp_path / "rows.json").write_text(json.dumps({"images": rows}))
    found = read(tmp_path / "rows.json")
    assert set(found.values()) == {("train", WORDS), ("valid", WORDS)}
    assert len(found) == 8
    references = [[" ".join(c) for c in captions] for s, captions in found.values() if s == "valid"]
    assert bleu([" ".join(WORDS[1])] * 4, references)["bleu4"] == pytest.approx(100)
    rows[0]["split"] = "val"
    (tmp_path / "rows.json").write_text(json.dumps({"images": rows}))
    with pytest.raises(ValueError, match=r"train0\.jpg is in train and in valid; one photograph"):
        read(tmp_path / "rows.json")


def test_of_cocos_two_years_the_newer_is_read_and_that_is_said(tmp_path, capsys):
    parts = {"train2014": (1, 2), "val2014": (3, 4), "train2017": (1, 2, 3), "val2017": (4,)}
    found = read(coco(tmp_path, parts))
    assert [split for split, _ in found.values()] == ["train"] * 3 + ["valid"]
    assert "COCO's captions of 2017 are read, not those of 2014" in capsys.readouterr().err


def test_a_coco_photograph_of_two_splits_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"image 2 \(000000000002\.jpg\) is in train and in valid"):
        read(coco(tmp_path, {"train2017": (1, 2), "val2017": (2,)}))


def test_cocos_images_are_found_where_its_zips_unpack(tmp_path):
    coco(tmp_path, {"train2017": (1,), "val2017": (2,)})
    for number, part in enumerate(("train2017", "val2017"), start=1):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "images" / part / f"{number:012}.jpg").touch()
    readers.check_images(readers.read(str(tmp_path)).pictures, "")


# text


def test_a_byte_order_mark_is_no_part_of_the_json_and_utf_16_is_said(tmp_path):
    file = karpathy(tmp_path, ["un café"]) / "dataset.json"
    text = file.read_text()
    file.write_text(text, "utf-8-sig")
    assert read(file)["1.jpg"][1] == (("un", "café"),)
    file.write_text(text, "utf-16")
    with pytest.raises(ValueError, match=r"dataset\.json is UTF-16; save it as UTF-8"):
        read(file)


# a training on them


def test_kaggles_set_is_trained_on(tmp_path, redense):
    (tmp_path / "set/Images").mkdir(parents=True)
    rows = ["image,caption"]
    for number in range(20):
        name, colour = f"{number}.png", ("red", "blue")[number % 2]
        Image.new("RGB", (16, 16), colour).save(tmp_path / "set/Images" / name)
        rows += [f"{name},A {colour} square .", f"{name},It is {colour} !"]
    (tmp_path / "set/captions.txt").write_text("\n".join(rows))
    flags = ("--cnn-epochs", 1, "--hidden", 8, "--dense", 1, "--sparse", 1, "--redense", 1)
    run = tmp_path / "run"
    answer = redense(
        *("train", "captions", "--data", tmp_path / "set", *flags),
        *("--accelerator", "cpu", "--out", run),
    )
    assert answer.code == 0, answer.err
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["sizes"] == {"train": 18, "valid": 2, "test": 0}


@pytest.mark.parametrize(
    "said", ["caf\u00e9.png", "cafe\u0301.png", "images/caf\u00e9.png", "images\\caf\u00e9.png"]
)
def test_a_picture_is_found_however_the_list_spells_it(tmp_path, said):
    (tmp_path / "images").mkdir()
    rows = "".join(f"{n}.png,a dog\n" for n in range(4))
    for name in ("caf\u00e9.png", *(f"{n}.png" for n in range(4))):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
    (tmp_path / "captions.txt").write_text(f"image,caption\n{rows}{said},a cat\n", "utf-8")
    pictures = readers.read(str(tmp_path)).pictures
    readers.check_images(pictures, "")
    assert len(pictures) == 5


def test_what_a_mac_leaves_beside_captions_is_no_second_set(tmp_path):
    flickr(tmp_path)
    before = readers.read(str(tmp_path))
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7Mac OS X")
    assert readers.read(str(tmp_path)) == before


def test_a_table_s_dev_pictures_validate(tmp_path):
    rows = "".join(f"{n}.png,a dog,{'dev' if n > 4 else 'train'}\n" for n in range(7))
    (tmp_path / "captions.csv").write_text(f"image,caption,split\n{rows}")
    pictures = readers.read(str(tmp_path)).pictures
    assert [picture.split for picture in pictures].count("valid") == 2
