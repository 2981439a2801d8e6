"""`redense eval` of every recipe: the run's own scores again, on data that training takes."""

import json
import pickle
import re
import shutil

import numpy as np
import pyarrow
import pytest
import torch
from conftest import CLASSES
from pyarrow import parquet
from trained_runs import write_captions, write_speech

from redense.recipes.images.evaluation import _answers
from redense.recipes.images.models import SmallNet


def scores(answer):
    """``{"wer": 97.5}`` of what was printed."""
    assert answer.code == 0, answer.err
    return {line.split()[0]: float(line.split()[1]) for line in answer.out.splitlines()}


@pytest.fixture
def data(trained, tmp_path, pictures):
    """The data of training, made again elsewhere."""
    if trained.recipe == "images":
        return pictures
    write = {"captions": write_captions, "speech": write_speech}[trained.recipe]
    return write(tmp_path / "data")


def test_a_run_and_its_export_score_what_the_record_says(trained, data, tmp_path, redense):
    record = json.loads((trained.run / "record.json").read_text())
    assert redense("export", trained.run, tmp_path / "hub").code == 0
    workers = ("--workers", 0) if trained.recipe == "images" else ()
    answers = [
        redense("eval", network, "--data", data, *workers)
        for network in (trained.run, tmp_path / "hub")
    ]
    assert answers[0].out == answers[1].out
    if trained.recipe == "images":
        assert f"top-1  {record['test']['top1']:.2f} % right" in answers[0].out
        assert "6 images of test" in answers[0].err
        return
    told = scores(answers[0])
    assert {"wer", "cer"} <= told.keys() or {"bleu4", "exact", "cider_d"} <= told.keys()
    for name, value in told.items():
        assert value == pytest.approx(record["test"][name], abs=0.006), name


def test_a_file_in_a_runs_folder_is_scored_as_the_run_is(
    trained_images, pictures, tmp_path, redense
):
    """Its own normalisation and crop, whatever --model would assume of a file from elsewhere."""
    wanted = redense("eval", trained_images.run, "--data", pictures, "--workers", 0)
    for file in (trained_images.run / "model.safetensors", newest(trained_images.run)):
        answer = redense("eval", file, "--data", pictures, "--workers", 0)
        assert answer.out == wanted.out, answer.err
    described = json.loads((trained_images.run / "network.json").read_text())
    model = ("--model", described["architecture"])
    answer = redense("eval", file, *model, "--data", pictures, "--workers", 0)
    assert answer.out == wanted.out
    apart = shutil.copy(file, tmp_path / file.name)
    answer = redense("eval", apart, "--data", pictures, "--workers", 0)
    assert answer.code == 2
    assert "--model names the network" in answer.err


def newest(run):
    return max((run / "checkpoints").glob("epoch-*.ckpt"))


def test_a_list_that_names_no_splits_says_how_it_is_split(trained_speech, tmp_path, redense):
    folder = write_speech(tmp_path / "data")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    mine = tmp_path / "data" / "mine.jsonl"
    mine.write_text(
        "".join(json.dumps({key: row[key] for key in row if key != "split"}) + "\n" for row in rows)
    )
    answer = redense("eval", trained_speech.run, "--data", mine)
    assert answer.code == 0, answer.err
    assert f"{mine}: {len(rows)} of {len(rows)} utterances name no split and are split by" in (
        answer.err
    )
    assert "a column split says which is which" in answer.err


def test_a_list_of_one_split_is_scored(trained_speech, tmp_path, redense):
    folder = write_speech(tmp_path / "data")
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    (tmp_path / "data" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = redense("eval", trained_speech.run, "--data", folder / "mine.jsonl")
    record = json.loads((trained_speech.run / "record.json").read_text())
    assert scores(answer)["wer"] == pytest.approx(record["test"]["wer"], abs=0.006)
    shutil.copyfile(folder / "test1.wav", folder / "test0.wav")
    (folder / "test1.wav").write_bytes(b"no sound")
    answer = redense("eval", trained_speech.run, "--data", folder / "mine.jsonl")
    assert answer.code == 0
    assert "left out: " in answer.err
    assert "test1.wav" in answer.err


@pytest.fixture
def forms(own_pictures, tmp_path):
    """The pictures of training as every form of data that it takes, each with the same parts."""
    rows = ["path,label,split"]
    shards = tmp_path / "shards"
    shards.mkdir()
    names = {"train": "train", "val": "validation", "test": "test"}
    for part, called in names.items():
        files = sorted((own_pictures / part).glob("*/*.png"))
        rows += [f"{file},{file.parent.name},{part}" for file in files]
        table = {
            "image": [file.read_bytes() for file in files],
            "label": [CLASSES.index(file.parent.name) for file in files],
        }
        parquet.write_table(pyarrow.table(table), shards / f"{called}-00000.parquet")
    (shards / "classes.txt").write_text("\n".join(CLASSES))
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return [own_pictures, tmp_path / "list.csv", shards]


def test_pictures_are_scored_alike_in_every_form(trained_images, forms, redense):
    record = json.loads((trained_images.run / "record.json").read_text())
    for form in forms:
        for flags, split, many in (((), "test", 6), (("--split", "valid"), "valid", 9)):
            arguments = ("--data", form, "--workers", 0, *flags)
            answer = redense("eval", trained_images.run, *arguments)
            assert answer.code == 0, answer.err
            assert f"top-1  {record[split]['top1']:.2f} % right" in answer.out, form
            assert f"{many} images of {split}" in answer.err
    answer = redense("eval", trained_images.run, "--data", forms[0], "--split", "dev")
    assert (answer.code, "no split 'dev'; it has test, valid, train" in answer.err) == (2, True)
    for part in ("train", "val"):
        shutil.rmtree(forms[0] / part)
    answer = redense("eval", trained_images.run, "--data", forms[0], "--workers", 0)
    assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out


def test_torchvisions_data_are_scored_by_their_name(tmp_path, redense):
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    write_cifar(folder)
    data = ("--data", "CIFAR10", "--data-root", tmp_path / "root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda _: True)
        patch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        once = ("--dense", 1, "--sparse", 1, "--redense", 1, "--accelerator", "cpu")
        out = ("--batch", 8, "--out", tmp_path / "run")
        assert redense("train", "images", *data, *once, *out).code == 0
        answer = redense("eval", tmp_path / "run", *data)
    assert answer.code == 0, answer.err
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out


def write_cifar(folder):
    """CIFAR-10's files of noise, eight pictures a batch."""
    noise = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        pixels = noise.integers(0, 256, (8, 3072), dtype=np.uint8)
        labels = [number % 10 for number in range(8)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    about = {"label_names": [f"class {number}" for number in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(about))


def test_the_split_that_is_asked_for_is_scored(trained_captions, trained_speech, tmp_path, redense):
    wrote = {
        trained_captions: write_captions(tmp_path / "captions"),
        trained_speech: write_speech(tmp_path / "speech"),
    }
    for trained, data in wrote.items():
        record = json.loads((trained.run / "record.json").read_text())
        metric = record["metric"]["name"]
        for split in ("valid", "test"):
            answer = redense("eval", trained.run, "--data", data, "--split", split)
            assert scores(answer)[metric] == pytest.approx(record[split][metric], abs=0.006)
            assert f" of {split}" in answer.err


def test_what_cannot_be_scored_is_one_line(trained_speech, trained_captions, pictures, redense):
    answer = redense("eval", trained_speech.run, "--data", "x.jsonl", "--size", 32)
    assert (answer.code, "--size says nothing to a network of speech" in answer.err) == (2, True)
    answer = redense("eval", trained_captions.run, "--data", pictures)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    answer = redense("eval", trained_speech.run, "--data", "none.jsonl")
    assert (answer.code, "none.jsonl" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--size", 0), "--size: must be at least 1, got 0"),
        (("--size", -5), "--size: must be at least 1, got -5"),
        (("--size", 10**6), "--size: must be at most 4096, got 1000000"),
        (("--size", 10**20), "--size: expected a whole number"),
        (("--batch", 0), "--batch: must be at least 1, got 0"),
        (("--workers", -1), "--workers: must be at least 0, got -1"),
        (("--device", "foo"), "device 'foo' cannot be used here"),
        (("--model", "resnet18"), "knows its architecture; leave out model 'resnet18'"),
        (("--data-root", "x"), "is no set of torchvision's; leave out data_root"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line(flags, said, trained_images, own_pictures, redense):
    answer = redense("eval", trained_images.run, "--data", own_pictures, *flags)
    assert (answer.code, answer.err.count("\n") <= 2) == (2, True), answer.err
    assert said in answer.err.splitlines()[-1]


def test_a_size_that_the_network_does_not_take_is_named():
    net = SmallNet(3, 1, 28)
    with pytest.raises(ValueError, match=r"takes no 2 images of 3 px \(.*leave out --size"):
        _answers(net, torch.zeros(2, 1, 3, 3))


def test_a_folder_of_classes_has_no_splits_and_says_what_it_holds(
    trained_images, own_pictures, tmp_path, redense
):
    def score(folder, *flags):
        return redense("eval", trained_images.run, "--data", folder, "--workers", 0, *flags)

    answer = score(own_pictures / "test")
    assert (answer.code, "6 images of 3 classes" in answer.err) == (0, True)
    answer = score(own_pictures / "test", "--split", "test")
    assert (answer.code, "has no split 'test': its folders are classes" in answer.err) == (2, True)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", own_pictures / "test" / "red"):
        answer = score(folder)
        assert (answer.code, "no folder of a class with a picture" in answer.err) == (2, True)


def test_a_list_of_test_rows_alone_is_scored_and_what_is_held_out_is_said(
    trained_images, forms, redense
):
    record = json.loads((trained_images.run / "record.json").read_text())
    head, *rows = forms[1].read_text().splitlines()
    for part, said in (("test", "6 images of test"), ("train", "are held out for it")):
        kept = [row for row in rows if row.endswith(f",{part}")]
        forms[1].write_text("\n".join([head, *kept]) + "\n")
        answer = redense("eval", trained_images.run, "--data", forms[1], "--workers", 0)
        assert (answer.code, said in answer.err) == (0, True), answer.err
        if part == "test":
            assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out


def test_what_has_no_words_is_left_out_by_name(trained_speech, trained_captions, tmp_path, redense):
    folder = write_speech(tmp_path / "speech")
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    rows[0]["text"] = ""
    rows.append(rows[1] | {"text": "ab 42"})
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = redense("eval", trained_speech.run, "--data", folder)
    assert (answer.code, f"{len(rows) - 2} recordings of test" in answer.err) == (0, True)
    assert re.search(r"left out: .*\.wav: no text: the transcript is empty", answer.err)
    assert re.search(r"left out: .*\.wav: symbol outside the alphabet: '42' in 'ab 42'", answer.err)
    pictures = write_captions(tmp_path / "captions")
    (file,) = pictures.glob("*.json")
    content = json.loads(file.read_text())
    one = next(image for image in content["images"] if image["split"] == "test")
    one["sentences"] = []
    file.write_text(json.dumps(content))
    answer = redense("eval", trained_captions.run, "--data", pictures)
    assert f"1 images without a caption, left out: {one['filename']}" in answer.err
    (pictures / "images" / one["filename"]).unlink()
    for image in content["images"]:
        if image["split"] == "test":
            (pictures / "images" / image["filename"]).unlink(missing_ok=True)
    answer = redense("eval", trained_captions.run, "--data", pictures)
    assert (answer.code, "put them there, or correct the list" in answer.err) == (2, True)
