"""`redense eval` of every recipe: the run's own scores again, on data that training takes."""

import json
import shutil

import pytest
from trained_runs import write_captions, write_speech


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
        assert f"top-1  {record['valid']['top1']:.2f} % right" in answers[0].out
        return
    told = scores(answers[0])
    assert {"wer", "cer"} <= told.keys() or {"bleu4", "exact", "cider_d"} <= told.keys()
    for name, value in told.items():
        assert value == pytest.approx(record["test"][name], abs=0.006), name


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


def test_what_cannot_be_scored_is_one_line(trained_speech, trained_captions, pictures, redense):
    answer = redense("eval", trained_speech.run, "--data", "x.jsonl", "--size", 32)
    assert (answer.code, "--size says nothing to a network of speech" in answer.err) == (2, True)
    answer = redense("eval", trained_captions.run, "--data", pictures)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    answer = redense("eval", trained_speech.run, "--data", "none.jsonl")
    assert (answer.code, "none.jsonl" in answer.err) == (2, True)
