"""Wrong labels on purpose: how many, which, and that whoever reads a score is told."""

import json

import torch
from conftest import TINY

from redense.recipes.images.noise import mislabel


def test_wrong_labels_are_each_of_the_others_as_often_and_the_same_every_time():
    labels = torch.arange(8000) % 4
    noisy = mislabel(labels, 0.75, classes=4)
    changed = (noisy - labels) % 4
    assert changed.bincount()[0] == 2000
    assert changed.bincount()[1:].min() > 1850  # of 2000 each, sd 37
    assert torch.equal(noisy, mislabel(labels, 0.75, classes=4))
    assert torch.equal(labels, torch.arange(8000) % 4)


def test_a_run_with_wrong_labels_says_so_wherever_its_scores_are_read(pictures, redense, tmp_path):
    flags = ("--data", pictures, "--label-noise", 0.25, "--model", "vgg-small", "--lr", 0.02)
    plan = ("--dense", 1, "--sparse", 1, "--redense", 1)
    run = tmp_path / "run"
    answer = redense("train", "images", *flags, *plan, *TINY, "--out", run)
    assert answer.code == 0, answer.err
    said = "6 of 24 training labels are wrong on purpose (--label-noise)"
    assert said in answer.out
    record = json.loads((run / "record.json").read_text("utf-8"))
    assert record["options"]["label_noise"] == 0.25
    assert said in record["data"]["notes"][0]
    assert json.loads((run / "config.json").read_text("utf-8"))["options"]["label_noise"] == 0.25

    assert redense("report", run, "--out", tmp_path / "page.html").code == 0
    assert said in (tmp_path / "page.html").read_text("utf-8")
    assert redense("export", run, tmp_path / "hub").code == 0
    assert said in (tmp_path / "hub" / "README.md").read_text("utf-8")
