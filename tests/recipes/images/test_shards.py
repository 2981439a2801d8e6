"""Parquet shards in the hub's layout: each image once, the same order for the same seed, errors
that name a shard."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import CLASSES, write_pictures
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


def write_shard(file, rows, names=CLASSES, struct=True, group=3):
    """(encoded image, label) rows as ``datasets`` writes them: the image with its path, class names
    in the schema."""
    images = [{"bytes": image, "path": None} if struct else image for image, _ in rows]
    table = pa.table({"image": images, "label": pa.array([label for _, label in rows], pa.int64())})
    if names:
        features = {
            "image": {"_type": "Image"},
            "label": {"names": list(names), "_type": "ClassLabel"},
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
    assert ".parquet: label 2 lies outside the 2 classes (0 to 1)" in refused(redense, own)


def test_missing_validation_shards_are_told(own, redense):
    for file in (own / "validation").iterdir():
        file.unlink()
    assert f"{own} has no validation shards; they are called validation-00000.parquet" in refused(
        redense, own
    )


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
