"""The plainest classifiers, by hand and in what a run prints and records."""

import json

import torch
from conftest import TINY

from redense.recipes.images.data import ImageData, Split
from redense.recipes.images.plain import class_means, nearest_mean, plain_scores


def of(values, labels):
    images = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 8)
    return Split(images, torch.tensor(labels))


def data(train, valid):
    return ImageData("hand", ("a", "b", "c"), train, valid, valid, (0.5,), (0.5,))


def test_scores_are_those_of_a_hand_count():
    train = of([0, 10, 200, 220, 240], [0, 0, 1, 1, 1])
    valid = of([20, 90, 130, 250], [0, 1, 1, 0])
    # the commonest is b: 2 of 4; the means are 5 and 220: a, a, b, b, of which the first and third
    assert plain_scores(data(train, valid)) == {
        "always the commonest class": 50.0,
        "the nearest class mean": 50.0,
    }


def test_a_class_without_pictures_is_never_the_nearest():
    train = of([0, 255], [0, 2])
    means = class_means(train.images, train.labels, 3)
    assert nearest_mean(means, of([0, 100, 200, 255], [0] * 4).images).tolist() == [0, 0, 2, 2]


def test_a_run_says_and_records_them(pictures, tmp_path, redense):
    out = tmp_path / "run"
    answer = redense("train", "images", "--data", pictures, *TINY, "--out", out)
    assert answer.code == 0, answer.err
    plain = json.loads((out / "record.json").read_text())["data"]["plain"]
    assert list(plain) == ["always the commonest class", "the nearest class mean"]
    common, nearest = plain.values()
    line = (
        f"the plainest answers, valid top1: always the commonest class {common:.2f}, "
        f"the nearest class mean {nearest:.2f}"
    )
    assert line in answer.out


def test_pictures_that_are_streamed_have_the_commonest_class(pictures, tmp_path, redense):
    out = tmp_path / "run"
    streamed = ("--augment", "resize-crop", "--workers", 0)
    answer = redense("train", "images", "--data", pictures, *TINY, *streamed, "--out", out)
    assert answer.code == 0, answer.err
    assert list(json.loads((out / "record.json").read_text())["data"]["plain"]) == [
        "always the commonest class"
    ]
