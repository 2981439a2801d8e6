"""Reading captions and making features: what is read, what is refused, what is done only once."""

import json

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models as zoo

from redense.recipes.captions import features, readers
from redense.recipes.captions.data import Batches, Images, build_vocabulary, load
from redense.recipes.captions.features import (
    Cnn,
    cached_features,
    extract,
    read_features,
    torchvision_cnn,
)
from redense.recipes.captions.options import CaptionOptions
from redense.recipes.captions.word_cnn import train_word_cnn, word_cnn

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "cache"))


def write_set(folder, sizes=(12, 6, 3), name="dataset.json", images="images"):
    """Karpathy's JSON: one coloured square an image, two captions each."""
    (folder / images).mkdir(parents=True)
    listed = []
    for split, many in zip(("train", "val", "test"), sizes, strict=True):
        for n in range(many):
            colour = list(COLOURS)[n % 3]
            file = f"{split}{n}.png"
            Image.new("RGB", (10 + n, 12), COLOURS[colour]).save(folder / images / file)
            sentences = [{"tokens": ["a", colour, "square"]}, {"raw": f"This is {colour.title()}!"}]
            listed.append(
                {"filename": file, "split": split, "sentences": sentences, "imgid": len(listed)}
            )
    (folder / name).write_text(json.dumps({"dataset": "squares", "images": listed}))
    return folder


def change(folder, how, name="dataset.json"):
    content = json.loads((folder / name).read_text())
    how(content)
    (folder / name).write_text(json.dumps(content))


def write_features(folder, images=21, width=6):
    matrix = np.random.default_rng(0).random((width, images))
    scipy.io.savemat(folder / "vgg_feats.mat", {"feats": matrix})
    return matrix


# annotations


@pytest.mark.parametrize(
    ("name", "images"), [("dataset.json", "imgs"), ("captions.json", "images")]
)
def test_karpathys_json_is_read(tmp_path, name, images):
    folder = write_set(tmp_path / "squares", name=name, images=images)
    for given in (folder, folder / name):
        found = readers.read(str(given))
        assert [p.split for p in found.pictures] == ["train"] * 12 + ["valid"] * 6 + ["test"] * 3
        assert found.pictures[1].captions == (("a", "green", "square"), ("this", "is", "green"))
        assert found.pictures[12].file == folder / images / "val0.png"
        readers.check_images(found.pictures, "")


def test_cocos_caption_json_is_read(tmp_path):
    for part, ids in (("train2017", (7, 3)), ("val2017", (5,))):
        (tmp_path / part).mkdir()
        (tmp_path / "annotations").mkdir(exist_ok=True)
        images = [{"id": i, "file_name": f"{i:012}.jpg"} for i in ids]
        said = [
            {"image_id": i, "caption": f"A Cat no. {i}, sitting."} for i in ids for _ in range(2)
        ]
        content = {"images": images, "annotations": said}
        (tmp_path / "annotations" / f"captions_{part}.json").write_text(json.dumps(content))
    found = readers.read(str(tmp_path))
    assert [(p.file.parent.name, p.file.name[-5], p.split) for p in found.pictures] == [
        *(("train2017", "7", "train"), ("train2017", "3", "train"), ("val2017", "5", "valid")),
    ]
    assert found.pictures[0].captions == (("a", "cat", "no", "7", "sitting"),) * 2


def test_restval_is_training_data(tmp_path):
    folder = write_set(tmp_path / "squares")
    change(folder, lambda content: content["images"][12].update(split="restval"))
    assert readers.read(str(folder)).pictures[12].split == "train"


def test_a_word_is_one_word_however_it_is_written(tmp_path):
    folder = write_set(tmp_path / "squares")
    sentences = [{"raw": "Le ‘Café’ d’Anne…"}, {"tokens": ["le", "cafe\u0301"]}]
    change(folder, lambda content: content["images"][0].update(sentences=sentences))
    said = readers.read(str(folder)).pictures[0].captions
    assert said == (("le", "café", "d'anne"), ("le", "café"))


def test_empty_captions_are_left_out_named_and_counted(tmp_path, capsys):
    folder = write_set(tmp_path / "squares")

    def empty(content):
        content["images"][2]["sentences"][0] = {"tokens": []}
        content["images"][3]["sentences"] = [{"raw": " . "}]

    change(folder, empty)
    write_features(folder)
    data = load(str(folder), least=1)
    assert "2 empty captions, left out: train2.png, train3.png" in capsys.readouterr().err
    assert len(data.splits["train"]) == 11
    assert data.fingerprint()["left_out"] == {
        "empty captions": {"count": 2, "first": ["train2.png", "train3.png"]},
        "images without a caption": {"count": 1, "first": ["train3.png"]},
    }


def test_missing_images_are_named_and_counted(tmp_path):
    folder = write_set(tmp_path / "squares")
    for name in ("train3.png", "val0.png"):
        (folder / "images" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 of 21 images are missing: .*train3\.png, .*val0\.png; --images"
    ):
        load(str(folder))


MISTAKES = {
    "no JSON": (lambda f: (f / "dataset.json").write_text("{"), "is not valid JSON"),
    "no list": (lambda f: (f / "dataset.json").write_text("[1]"), "it must be a table, got"),
    "no split": (
        lambda f: change(f, lambda c: c["images"][4].pop("split")),
        r"it has no 'images\[4\].split'",
    ),
    "odd split": (
        lambda f: change(f, lambda c: c["images"][4].update(split="held")),
        "train4.png is in split 'held'",
    ),
    "no train": (
        lambda f: change(f, lambda c: c.update(images=c["images"][12:])),
        "no captioned image for train",
    ),
    "no folder": (
        lambda f: (f / "dataset.json").unlink(),
        r"no dataset\.json, no captions\.json, no other form .* annotations/captions_train",
    ),
    "broken image": (
        lambda f: (f / "images/val1.png").write_bytes(b"no"),
        r"val1\.png is not a whole image",
    ),
    "rare words": (
        lambda f: change(f, lambda c: c.update(images=c["images"][11:13])),
        "no word occurs 5 times",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_data_is_named(tmp_path, mistake):
    folder = write_set(tmp_path / "squares")
    spoil, message = MISTAKES[mistake]
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(str(folder), cnn="resnet18", weights="random", size=32)


def test_a_coco_caption_of_an_unknown_image_is_named_and_counted(tmp_path):
    file = tmp_path / "captions_train.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a"}],
                "annotations": [{"image_id": 9, "caption": "b"}],
            }
        )
    )
    with pytest.raises(ValueError, match="1 captions are of images that it does not list: 9"):
        readers.read(str(file))


def test_a_set_for_another_task_is_refused(tmp_path):
    folder = tmp_path / "cache" / "emoji-groups"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text('{"task": "images"}')
    with pytest.raises(ValueError, match="'emoji-groups' is for images, not for captions"):
        load("emoji-groups")
    with pytest.raises(FileNotFoundError, match="neither a packaged set"):
        load("nowhere")


# features from files


def test_vgg_feats_mat_beside_the_json_is_used_by_imgid(tmp_path):
    folder = write_set(tmp_path / "squares")
    change(
        folder, lambda content: content["images"].reverse()
    )  # imgid, not the order of the list, is the column
    matrix = write_features(folder)
    data = load(str(folder), least=1)
    valid = data.splits["valid"]
    for picture, row in zip(valid.pictures, valid.features, strict=True):
        number = 12 + int(picture.file.stem.removeprefix("val"))
        assert torch.equal(row, torch.from_numpy(matrix[:, number]).float())
    assert data.cnn is None


def test_features_of_other_images_or_of_no_form_are_refused(tmp_path):
    file = tmp_path / "vgg_feats.mat"
    scipy.io.savemat(file, {"feats": np.ones((4096, 20))})
    with pytest.raises(
        ValueError, match=r"features \(20, 4096\), but the captions are of 21 images"
    ):
        read_features(file, 21)
    scipy.io.savemat(file, {"other": np.ones(3)})
    with pytest.raises(ValueError, match="is no feature file"):
        read_features(file, 3)
    save_file({"features": torch.tensor([[1.0], [float("nan")]])}, tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="the features of 1 images are not finite"):
        read_features(tmp_path / "f.safetensors", 2)


# features by a CNN


def counting_cnn(name="count", bias=0.0):
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.full((3,), bias))
            self.seen = 0

        def forward(self, images):
            self.seen += len(images)
            return images.mean((2, 3)) + self.bias

    return Cnn(name, Mean(), 8, (0.5,) * 3, (0.5,) * 3)


def test_a_cnn_runs_once_for_the_same_images_and_network(tmp_path):
    folder = write_set(tmp_path / "squares")
    files = sorted((folder / "images").glob("*.png"))
    first = counting_cnn()
    found = cached_features(first, files)
    again = counting_cnn()
    assert torch.equal(cached_features(again, files), found)
    assert (first.network.seen, again.network.seen) == (21, 0)
    other = counting_cnn(bias=1.0)
    torch.testing.assert_close(cached_features(other, files), found + 1)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(files[4])
    cached_features(again, files)
    assert (other.network.seen, again.network.seen) == (21, 21)


def test_batches_of_images_give_the_features_of_single_ones(tmp_path):
    folder = write_set(tmp_path / "squares")
    files = sorted((folder / "images").glob("*.png"))
    cnn = counting_cnn()
    single = torch.cat([extract(cnn, [file], batch=1) for file in files])
    torch.testing.assert_close(extract(cnn, files, batch=8), single)
    red = [n for n, file in enumerate(files) if file.name in ("train0.png", "val3.png")]
    wanted = (torch.tensor(COLOURS["red"]) / 255 - 0.5) / 0.5
    torch.testing.assert_close(single[red], wanted.expand(2, 3))


def test_vgg16_gives_the_papers_4096_features(monkeypatch):
    with torch.device("meta"):
        cnn = torchvision_cnn("vgg16", "random")
        assert cnn.network(torch.empty(2, 3, 224, 224)).shape == (2, 4096)
    linear = [m for m in cnn.network.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(25088, 4096), (4096, 4096)]


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("densenet121", 1024)]
)
def test_any_torchvision_backbone_gives_the_input_of_its_last_layer(name, width):
    with torch.device("meta"):
        assert torchvision_cnn(name, "random").network(torch.empty(1, 3, 64, 64)).shape == (
            1,
            width,
        )


def test_weights_come_from_a_local_file(tmp_path):
    torch.manual_seed(5)
    whole = zoo.resnet18(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    save_file({k: v.clone() for k, v in whole.state_dict().items()}, tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 32, 32)
    digests = set()
    for file in ("w.pth", "w.safetensors"):
        cnn = torchvision_cnn("resnet18", str(tmp_path / file), 32)
        torch.testing.assert_close(whole.fc(cnn.network(images)), whole(images))
        digests.add(cnn.digest())
    assert len(digests) == 1
    with pytest.raises(FileNotFoundError, match="no such file; 'pretrained'"):
        torchvision_cnn("resnet18", str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="does not fit resnet34 with its"):
        torchvision_cnn("resnet34", str(tmp_path / "w.pth"))


def test_an_unknown_cnn_is_named_with_near_names():
    with pytest.raises(ValueError, match=r"no CNN is called 'vgg61'; did you mean vgg1"):
        torchvision_cnn("vgg61", "random")
    with pytest.raises(ValueError, match="no linear layer"):
        torchvision_cnn("squeezenet1_1", "random")


def test_transparent_pictures_are_read_on_white(tmp_path):
    Image.new("RGBA", (6, 6), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert bool((features.read_image(tmp_path / "clear.png", 4) == 255).all())


def test_the_word_cnn_is_trained_once_and_learns_colours():
    noise = torch.Generator().manual_seed(0)
    labels = torch.arange(192) % 3
    images = torch.randint(80, (192, 3, 48, 48), generator=noise, dtype=torch.uint8)
    images[torch.arange(192), labels] += 150
    targets = torch.nn.functional.one_hot(labels, 3).bool()
    before = torch.random.get_rng_state()
    file = train_word_cnn(images, targets, 6)
    assert torch.equal(torch.random.get_rng_state(), before)
    written = file.stat().st_mtime_ns
    assert train_word_cnn(images, targets, 6) == file
    assert file.stat().st_mtime_ns == written
    assert train_word_cnn(images, ~targets, 1) != file
    cnn = word_cnn(file)
    outputs = cnn.network((images.float() / 255 - 0.8) / 0.3)
    assert outputs.shape == (192, 256)
    assert float((cnn.network.words(outputs).argmax(1) == labels).float().mean()) > 0.95


# vocabulary and batches


def test_rare_words_and_words_of_other_splits_are_left_out(tmp_path):
    folder = write_set(tmp_path / "squares")
    change(
        folder,
        lambda content: content["images"][12]["sentences"].append({"raw": "unseen unseen unseen"}),
    )
    write_features(folder)
    pictures = [p for p in readers.read(str(folder)).pictures if p.split == "train"]
    assert build_vocabulary(pictures, 9) == ("a", "is", "square", "this")
    data = load(str(folder), least=1)
    valid = data.splits["valid"]
    assert "unseen" not in data.vocabulary
    assert valid.references[0][2] == "unseen unseen unseen"  # references keep every word
    assert int(valid.lengths[2]) == 0
    assert data.text(valid.words[0, :3].tolist()) == "a red square"


def test_a_training_caption_without_a_known_word_does_not_teach_silence(tmp_path):
    folder = write_set(tmp_path / "squares")
    change(folder, lambda content: content["images"][5]["sentences"].append({"raw": "Unheard."}))
    write_features(folder)
    data = load(str(folder), least=2)
    assert int(data.splits["train"].lengths.min()) > 0
    assert len(data.splits["train"].owners) == 24
    left_out = data.fingerprint()["left_out"]
    assert left_out == {
        "training captions without a known word": {"count": 1, "first": ["train5.png"]}
    }


def some_data(tmp_path, **options):
    folder = write_set(tmp_path / "squares")
    write_features(folder)
    return load(str(folder), least=1, **options)


def test_an_epoch_is_decided_by_seed_and_epoch_alone(tmp_path):
    split = some_data(tmp_path).splits["train"]

    def epoch(number, seed=0):
        batches = Batches(split, 5, seed=seed)
        batches.set_epoch(number)
        return [torch.cat([part.flatten().double() for part in batch]) for batch in batches]

    assert all(map(torch.equal, epoch(3), epoch(3)))
    assert not torch.equal(epoch(3)[0], epoch(4)[0])
    assert not torch.equal(epoch(3)[0], epoch(3, seed=1)[0])
    assert len(epoch(0)) == len(Batches(split, 5, seed=0)) == 4


def test_ranks_share_an_epoch_without_overlap(tmp_path):
    split = some_data(tmp_path).splits["train"]
    seen = [
        words
        for rank in (0, 1)
        for batch in Batches(split, 8, seed=0, rank=rank, ranks=2)
        for words in batch[0]
    ]
    whole = [words for batch in Batches(split, 8, seed=0) for words in batch[0]]
    assert len(seen) == 24
    assert sorted(map(str, seen)) == sorted(map(str, whole))


def test_evaluation_gives_each_image_once_with_all_its_captions(tmp_path):
    split = some_data(tmp_path).splits["valid"]
    batches = list(Images("valid", split, 4))
    assert [chosen for _, chosen, _, _ in batches] == [[0, 1, 2, 3], [4, 5]]
    assert len(Images("valid", split, 4)) == 2
    assert [len(lengths) for *_, (_, _, lengths) in batches] == [8, 4]
    assert torch.equal(torch.cat([features for _, _, features, _ in batches]), split.features)


def test_a_cnn_that_is_asked_for_beats_features_that_lie_there(tmp_path, capsys):
    folder = write_set(tmp_path / "squares")
    write_features(folder)
    data = load(str(folder), cnn="resnet18", weights="random", size=32, least=1)
    assert data.splits["train"].features.shape[1] == 512
    data = load(str(folder), least=1)
    assert data.splits["train"].features.shape[1] == 6
    assert "the features are those of " in capsys.readouterr().err
    with pytest.raises(ValueError, match="need no cnn, got words; pass one"):
        CaptionOptions(features="x.mat", cnn="words")


def kept(state, how, file):
    """Weights in the forms in which they are handed around."""
    if how == "legacy":
        torch.save(state, file, _use_new_zipfile_serialization=False)
    elif how == "checkpoint":
        torch.save({"state_dict": state, "epoch": 90}, file)
    else:
        torch.save({"state_dict": {f"module.{key}": part for key, part in state.items()}}, file)


@pytest.mark.parametrize("how", ["legacy", "checkpoint", "parallel"])
def test_a_cnns_weights_are_taken_in_every_form_that_init_takes(tmp_path, how):
    torch.manual_seed(1)
    whole = zoo.mobilenet_v2()
    kept(whole.state_dict(), how, tmp_path / "w.pth")
    cnn = torchvision_cnn("mobilenet_v2", str(tmp_path / "w.pth"), 32)
    assert torch.equal(cnn.network.features[0][0].weight, whole.features[0][0].weight)
