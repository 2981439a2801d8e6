"""Parquet shards in the hub's layout: each image once, the same order for the same seed, errors
that name a shard."""

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import CLASSES, write_pictures
from PIL import Image
from pyarrow import parquet

from redense.recipes.images import shards as module
from redense.recipes.images.folders import open_folder
from redense.recipes.images.shards import open_shards
from redense.recipes.images.streams import StreamedBatches

SMALL = (
    "--size",
    16,
    "--batch",
    8,
    "--workers",
    0,
    "--accelerator",
    "cpu",
    "--dense",
    1,
    "--sparse",
    1,
)


def write_shard(file, rows, names=CLASSES, struct=True, group=3, columns=("image", "label")):
    """(encoded image, label) rows as ``datasets`` writes them: the image with its path, class names
    in the schema."""
    image, label = columns
    images = [{"bytes": image, "path": None} if struct else image for image, _ in rows]
    table = pa.table({image: images, label: pa.array([label for _, label in rows])})
    if names:
        features = {
            image: {"_type": "Image"},
            label: {"names": list(names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, row_group_size=group, write_page_checksum=True)


def write_shards(
    pictures, folder, many=4, place="data/{part}-{number:05d}-of-{many:05d}.parquet", **how
):
    """A folder of pictures as shards: each image's bytes as they are."""
    for part, name in (("train", "train"), ("valid", "validation")):
        data = open_folder(str(pictures), 16)
        samples = [(Path(path).read_bytes(), label) for path, label in getattr(data, part).samples]
        for number in range(many):
            rows = samples[number * len(samples) // many : (number + 1) * len(samples) // many]
            write_shard(folder / place.format(part=name, number=number, many=many), rows, **how)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_pictures(
        tmp_path_factory.mktemp("plain") / "data", {"train": 50, "val": 9}, side=20
    )


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    return write_shards(plain, tmp_path_factory.mktemp("shards") / "set")


@pytest.fixture
def own(plain, tmp_path):
    """The same, for a test that breaks something in it."""
    return write_shards(
        plain, tmp_path / "own", names=(), place="{part}/{number}.parquet", struct=False
    )


def draw(data, split="train", batch=4, epoch=0, **how):
    batches = StreamedBatches(data, getattr(data, split), batch, **{"workers": 0, **how})
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    return found


def images_of(batches):
    return Counter(
        (x.numpy().tobytes(), int(label))
        for images, labels in batches
        for x, label in zip(images, labels, strict=True)
    )


def equal(ours, theirs):
    assert len(ours) == len(theirs)
    return all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(ours, theirs, strict=True)
    )


def test_shards_hold_the_same_images_as_the_folder_they_were_made_of(folder, plain):
    ours, theirs = open_shards(folder, 16), open_folder(str(plain), 16)
    assert (ours.classes, len(ours.train), len(ours.valid), len(ours.test)) == (CLASSES, 50, 9, 0)
    for split in ("train", "valid"):
        assert images_of(draw(ours, split)) == images_of(draw(theirs, split))
        assert sum(images_of(draw(ours, split)).values()) == len(getattr(theirs, split))


def test_an_epoch_is_decided_by_seed_and_epoch_alone_and_takes_each_image_once(folder):
    data = open_shards(folder, 16)
    epoch = draw(data, seed=3, epoch=1)
    assert equal(epoch, draw(data, seed=3, epoch=1))
    assert not equal(epoch, draw(data, seed=3, epoch=2))
    assert not equal(epoch, draw(data, seed=4, epoch=1))
    assert [len(labels) for _, labels in epoch] == [4] * (50 // 4)
    assert max(images_of(epoch).values()) == 1
    order = data.train.order(4, 3, 1, 0, 1)
    assert sorted(order) == list(range(50))
    assert order != list(range(50))


def test_worker_processes_change_nothing_and_load_each_row_group_once(folder, monkeypatch):
    data = open_shards(folder, 16)
    alone = draw(data, seed=0, epoch=1)
    for workers in (1, 2):
        assert equal(alone, draw(data, seed=0, epoch=1, workers=workers))
    read = []
    load = module.ShardReader._load
    monkeypatch.setattr(
        module.ShardReader, "_load", lambda self, *place: read.append(place) or load(self, *place)
    )
    draw(data, batch=1, seed=0, epoch=1)
    assert len(read) == len(set(read)) == len(data.train.groups)


def test_ranks_share_an_epoch_equally_and_without_overlap(folder):
    data = open_shards(folder, 16)
    parts = [draw(data, batch=4, seed=3, rank=rank, ranks=2) for rank in range(2)]
    assert [len(part) for part in parts] == [12, 12]
    assert max((images_of(parts[0]) + images_of(parts[1])).values()) == 1
    whole = sum(
        (images_of(draw(data, "valid", rank=rank, ranks=2)) for rank in range(2)), Counter()
    )
    assert whole == images_of(draw(data, "valid"))


def test_a_run_on_shards_resumes_bit_for_bit_and_its_record_and_eval_agree(
    folder, tmp_path, redense
):
    run = tmp_path / "run"
    answer = redense(
        "train",
        "images",
        "--data",
        folder,
        *SMALL,
        "--redense",
        1,
        "--augment",
        "scale-crop",
        "--out",
        run,
    )
    assert answer.code == 0, answer.err
    whole = json.loads((run / "record.json").read_text())
    assert whole["data"]["sizes"] == {"train": 50, "valid": 9, "test": 0}
    for name in (
        "record.json",
        "model.safetensors",
        "checkpoints/epoch-0003.ckpt",
        "checkpoints/redense.ckpt",
    ):
        (run / name).unlink()
    assert redense("train", "images", "--resume", run).code == 0
    assert (
        json.loads((run / "record.json").read_text())["weights_sha256"] == whole["weights_sha256"]
    )
    answer = redense("eval", run, "--data", folder, "--workers", 0)
    assert f"top-1  {whole['valid']['top1']:.2f} % right" in answer.out, answer.err


def test_folders_a_split_and_a_classes_file_do_as_well(own):
    (own / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    data = open_shards(own, 16)
    assert (data.classes, len(data.train), len(data.valid)) == (CLASSES, 50, 9)
    assert draw(data)[0][0].shape == (4, 3, 16, 16)


def test_so_many_training_images_are_exact_and_the_same_for_every_run(folder):
    data = open_shards(folder, 16, most=10)
    assert len(data.train) == len(data.train.labels) == 10
    assert images_of(draw(data)) == images_of(draw(open_shards(folder, 16, most=10)))
    assert images_of(draw(data)) <= images_of(draw(open_shards(folder, 16)))


def refused(redense, folder, *flags):
    answer = redense(
        "train", "images", "--data", folder, *SMALL, "--redense", 1, *flags, "--out", folder / "run"
    )
    assert answer.code == 2, answer.out
    return answer.err


def test_shards_without_class_names_ask_for_a_classes_file(own, redense):
    assert f"{own}/train/0.parquet names no classes; write them to {own}/classes.txt" in refused(
        redense, own
    )


def test_a_label_outside_the_classes_is_refused_with_its_shard(own, redense):
    (own / "classes.txt").write_text("blue\ngreen\n")
    assert ".parquet, row 9: label 2 lies outside the 2 classes (0 to 1)" in refused(redense, own)


def test_shards_under_other_names_are_told_theirs(own, redense):
    for number, file in enumerate((own / "train").iterdir()):
        file.rename(own / f"part-{number}.parquet")
    assert f"{own} has no train shards; they are called train-00000.parquet" in refused(
        redense, own
    )


def test_a_cut_off_shard_is_named(folder, own, redense):
    (own / "classes.txt").write_text("\n".join(CLASSES))
    broken = own / "train" / "2.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    assert f"{broken} is no whole Parquet file" in refused(redense, own)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_whose_bytes_have_changed_is_named_while_training(own, redense, workers):
    (own / "classes.txt").write_text("\n".join(CLASSES))
    broken = own / "train" / "2.parquet"
    content = bytearray(broken.read_bytes())
    content[300] ^= 255
    broken.write_bytes(content)
    assert f"{broken} is broken in row group 0" in refused(redense, own, "--workers", workers)


def test_an_image_that_is_none_is_named_by_shard_and_row(own, tmp_path, redense):
    (own / "classes.txt").write_text("\n".join(CLASSES))
    write_shard(own / "train" / "0.parquet", [(b"no image", 0)] * 3, names=(), struct=False)
    answer = refused(redense, own)
    assert f"{own}/train/0.parquet, row " in answer
    assert " of row group 0, is not a whole image" in answer


def test_columns_that_are_not_there_and_row_groups_too_large_are_told(own, redense, monkeypatch):
    (own / "classes.txt").write_text("\n".join(CLASSES))
    monkeypatch.setattr(module, "_MOST_BYTES", 0)
    assert "write it anew with row_group_size=100" in refused(redense, own)
    parquet.write_table(pa.table({"picture": [b""], "label": [0]}), own / "train" / "0.parquet")
    assert "0.parquet has the columns picture, label; it needs image and label" in refused(
        redense, own
    )


# labels by name


@pytest.fixture(scope="module")
def png():
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    return content.getvalue()


def write_splits(folder, png, **splits):
    """Shards called train, validation, test: {split: (labels, class names)}."""
    for split, (labels, names) in splits.items():
        file = folder / f"{split}-00000-of-00001.parquet"
        write_shard(file, [(png, label) for label in labels], names)
    return folder


def meant(data, split):
    return [data.classes[number] for number in getattr(data, split).labels.tolist()]


@pytest.mark.parametrize("listed", ["", "dog\ncat\n"])
@pytest.mark.parametrize("names", [("cat", "dog"), ("dog", "cat"), ("fox", "dog", "cat")])
def test_labels_are_those_that_each_shard_names(tmp_path, png, names, listed):
    pets = ("cat", "dog")
    numbers = [names.index(name) for name in ("cat", "dog", "cat")]
    write_splits(tmp_path, png, train=([0, 1, 0], pets), validation=(numbers, names))
    if listed:
        (tmp_path / "classes.txt").write_text(listed)
    data = open_shards(tmp_path, 8)
    assert set(data.classes) == set(pets)
    assert meant(data, "train") == meant(data, "valid") == ["cat", "dog", "cat"]
    data = open_shards(tmp_path, 8, classes=("dog", "cow", "cat"))  # as eval asks
    assert meant(data, "valid") == ["cat", "dog", "cat"]


def test_a_class_that_training_does_not_name_is_refused(tmp_path, png):
    write_splits(tmp_path, png, train=([0, 1], ("cat", "dog")), validation=([0, 1], ("cat", "fox")))
    with pytest.raises(ValueError, match=r"validation-.* is of class 'fox', which"):
        open_shards(tmp_path, 8)


def test_labels_that_are_names_are_read(tmp_path, png):
    for split, labels in (("train", ["dog", "cat", None]), ("validation", ["cat"])):
        write_shard(tmp_path / f"{split}.parquet", [(png, label) for label in labels], ())
    data = open_shards(tmp_path, 8)
    assert (meant(data, "train"), meant(data, "valid")) == (["dog", "cat"], ["cat"])


def test_rows_without_a_label_are_not_scored(tmp_path, png, capsys):
    pets = ("cat", "dog")
    write_splits(
        tmp_path,
        png,
        train=([0, 1], pets),
        validation=([0, 1], pets),
        test=([-1, 1, None, 0], pets),
    )
    data = open_shards(tmp_path, 8)
    assert meant(data, "test") == ["dog", "cat"]
    assert [data.test.place(number) for number in range(2)] == [(0, 1), (1, 0)]
    assert "test-00000-of-00001.parquet and its like: 2 rows without a label are left out" in (
        capsys.readouterr().err
    )
    write_splits(tmp_path, png, test=([None, -1], pets))
    assert len(open_shards(tmp_path, 8).test) == 0


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (b"\xef\xbb\xbfcat\r\ndog\r\n", ("cat", "dog")),
        (b"cat\ndog\n\n", ("cat", "dog")),
        (b"cat \ndog", ("cat", "dog")),
        ("cafe\u0301\ndog".encode(), ("caf\u00e9", "dog")),
        (b"cat\n\ndog\n", "line 3: 'dog' follows a blank line"),
        (b"cat\ncat\n", "line 2: 'cat' follows a blank line or is there twice"),
    ],
)
def test_a_classes_file_is_read_as_editors_leave_it(tmp_path, png, content, classes):
    write_splits(tmp_path, png, train=([0, 1], ()), validation=([0, 1], ()))
    (tmp_path / "classes.txt").write_bytes(content)
    if isinstance(classes, tuple):
        assert open_shards(tmp_path, 8).classes == classes
        return
    with pytest.raises(ValueError, match=f"classes.txt, {classes}"):
        open_shards(tmp_path, 8)


@pytest.mark.parametrize(
    ("place", "columns"),
    [
        ("plain_text/{}-00000-of-00001.parquet", ("img", "label")),  # CIFAR-10
        ("cifar100/{}-00000-of-00001.parquet", ("img", "fine_label")),
        ("mnist/{}-00000-of-00001.parquet", ("image", "label")),
        ("default/{}/0000.parquet", ("image", "label")),  # as the hub converts other sets
        ("data/{}-00000-of-00001.parquet", ("image", "breed")),
    ],
)
def test_the_hubs_sets_without_a_validation_split_are_trained_on(
    tmp_path, png, place, columns, redense
):
    for split, many in (("train", 40), ("test", 6)):
        rows = [(png, number % 3) for number in range(many)]
        write_shard(tmp_path / "set" / place.format(split), rows, columns=columns)
    run = tmp_path / "run"
    answer = redense(
        "train", "images", "--data", tmp_path / "set", *SMALL, "--redense", 1, "--out", run
    )
    assert answer.code == 0, answer.err
    assert "set has no validation split: 4 training images are held out for it" in answer.err
    record = json.loads((run / "record.json").read_text())
    assert record["data"]["sizes"] == {"train": 36, "valid": 4, "test": 6}
    answer = redense("eval", run, "--data", tmp_path / "set", "--workers", 0)
    assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out, answer.err


def test_held_out_images_are_not_trained_on_and_keep_their_bytes(folder):
    for file in (folder / "data").glob("validation*"):
        file.rename(file.with_suffix(".away"))
    try:
        data = open_shards(folder, 16, valid_share=0.2)
    finally:
        for file in (folder / "data").glob("*.away"):
            file.rename(file.with_suffix(".parquet"))
    assert (len(data.train), len(data.valid)) == (40, 10)
    train, valid = images_of(draw(data)), images_of(draw(data, "valid"))
    assert not train & valid
    assert train + valid == images_of(draw(open_shards(folder, 16)))
    assert sorted(data.train.order(4, 3, 1, 0, 1)) == list(range(40))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00004", "train-00003-of-00004"], "lacks 2 of 4 shards like"),
        (["train-00003-of-00004"], "lacks 3 of 4 shards .*, number 00000 first; fetch"),
        (
            ["train-00000-of-00002", "train-00001-of-00002", "train-00000-of-00001"],
            "two generations",
        ),
        (["train-00000-of-00001", "train-00000-of-00001-9f3a77c1"], "two generations"),
        (["train-00000-of-00001", "train-new"], "two generations"),
        (["train-00000-of-00001", "data/train-00000-of-00001"], "train shards of several kinds"),
        (["train/0", "train-0"], "train shards of several kinds"),
    ],
)
def test_shards_that_are_missing_or_there_twice_are_refused(tmp_path, png, names, message):
    for name in [*names, "validation-0"]:
        write_shard(tmp_path / f"{name}.parquet", [(png, 0), (png, 1)])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_shards(tmp_path, 8)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[]", "it must be a table, got []"),
        (b'{"info": 3}', "info must be a table, got 3"),
        (
            b'{"info": {"features": {"label": {"names": 3}}}}',
            "info.features.label.names must be a table or a list or nothing, got 3; fetch it again",
        ),
    ],
)
def test_damaged_metadata_are_named_with_key_and_value(tmp_path, png, written, said):
    table = pa.table({"image": [png], "label": [0]})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": written}), tmp_path / "train.parquet"
    )
    with pytest.raises(ValueError, match=r"train\.parquet, 'huggingface' in its metadata,") as told:
        open_shards(tmp_path, 8)
    assert said in str(told.value)


def test_a_label_that_is_no_class_is_named_with_its_row(tmp_path, png):
    table = pa.table({"image": [png] * 4, "label": [0, 1, 7, 1]})
    parquet.write_table(table, tmp_path / "train.parquet")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(
        ValueError, match=r"train\.parquet, row 2: label 7 lies outside the 2 class"
    ):
        open_shards(tmp_path, 8)
