"""The image recipe's three rooms: networks, data, task."""

import csv
import struct

import numpy as np
import pytest
import torch
from conftest import CLASSES, SIZES
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import models as zoo

from redense.recipes.images import models
from redense.recipes.images.data import Batches, ImageData, Split, load
from redense.recipes.images.erasing import erase
from redense.recipes.images.options import AUGMENTATIONS, ImageOptions
from redense.recipes.images.task import ImageTask

FAMILIES = [  # the smallest of each
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
    "wide_resnet50_2",
]


def some(many, *, side=8, channels=3, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(
        256, (many, channels, side, side), generator=generator, dtype=torch.uint8
    )
    split = Split(images, torch.arange(many) % classes)
    return ImageData(
        "noise", ("a",) * classes, split, split, split, (0.4,) * channels, (0.2,) * channels
    )


def draw(batches, epoch=0):
    batches.set_epoch(epoch)
    return list(batches)


def rows(split):
    return {image.numpy().tobytes() for image in split.images}


# networks


@pytest.mark.parametrize(("depth", "layers", "millions"), [(20, 20, 0.27), (56, 56, 0.85)])
def test_cifar_resnets_have_the_size_that_he_et_al_report(depth, layers, millions):
    model = models.build(f"cifar-resnet{depth}", 10, 3, 32)
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == layers
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_the_small_vgg_is_the_papers_kind():
    network = models.build("vgg-small", 10, 1, 28)
    assert sum(weight.numel() for weight in network.parameters()) == 273_474
    linear = sum(weight.numel() for weight in network.classifier.parameters())
    assert linear / 273_474 > 0.98
    assert not any("Norm" in type(module).__name__ for module in network.modules())
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5] * 2
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert models.build("vgg-small", 10, 3, 32)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_small_vgg_with_batch_norm():
    network = models.build("vgg-small-bn", 10, 1, 28)
    assert sum(weight.numel() for weight in network.parameters()) == 426_602
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert models.build("vgg-small-bn", 3, 3, 32)(torch.rand(2, 3, 32, 32)).shape == (2, 3)


def test_cifar_resnet_shortcuts_pad_with_zeros_and_have_no_weights():
    block = models._Block(16, 32)
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"first", "second"}
    nn.init.zeros_(block.second[1].weight)  # the branch gives nothing, the shortcut is left
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_every_torchvision_classifier_is_known_by_its_name():
    names = zoo.list_models(zoo)
    assert len(names) >= 80
    for name in names:
        models.check_name(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_classifiers_are_built_for_the_datas_classes(name, monkeypatch):
    for initialiser in (
        "kaiming_uniform_",
        "kaiming_normal_",
        "normal_",
        "trunc_normal_",
        "uniform_",
    ):
        monkeypatch.setattr(
            nn.init, initialiser, lambda tensor, *_, **__: tensor
        )  # the values don't matter here
    model = models.build(name, 7, 3, 64)
    heads = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert any(
        (h.out_features if isinstance(h, nn.Linear) else h.out_channels) == 7 for h in heads[-2:]
    )


@pytest.mark.parametrize(
    ("name", "channels", "size", "message"),
    [
        ("resnet19", 3, 32, "no model is called 'resnet19'; did you mean resnet1"),
        ("resnet18", 1, 32, "resnet18 takes 3 channels, got images with 1"),
        ("alexnet", 3, 16, "alexnet takes no images of 16 px"),
        ("vit_b_32", 3, 40, "vit_b_32 takes no images of 40 px"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_name(name, channels, size, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, 10, channels, size)


def test_googlenets_auxiliary_heads_count_three_tenths_each(pictures):
    task = ImageTask(ImageOptions(data=str(pictures), size=32, model="googlenet"), seed=0)
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    for dropout in (m for m in task.model.modules() if isinstance(m, nn.Dropout)):
        dropout.p = 0.0
    main, second, first = task.model(images)
    assert first.shape == second.shape == (4, 3)
    wanted = F.cross_entropy(main, labels) + 0.3 * (
        F.cross_entropy(first, labels) + F.cross_entropy(second, labels)
    )
    assert torch.allclose(task.training_step((images, labels), 0), wanted)
    task.eval()
    logits, auxiliary = models.logits_and_auxiliary(task.model(images))
    assert logits.shape == (4, 3)
    assert not auxiliary


# data


def test_a_folder_is_read_pixel_for_pixel(pictures):
    data = load(str(pictures), size=8)
    assert data.classes == CLASSES
    assert data.fingerprint()["sizes"] == {
        "train": SIZES["train"],
        "valid": SIZES["val"],
        "test": SIZES["test"],
    }
    for part, split in (("train", data.train), ("val", data.valid), ("test", data.test)):
        files = sorted((pictures / part).glob("*/*.png"))
        wanted = np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2)
        assert np.array_equal(split.images.numpy(), wanted)
        assert [CLASSES[label] for label in split.labels] == [file.parent.name for file in files]
    scaled = data.train.images.double() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(scaled.transpose(0, 1).flatten(1).std(1).tolist(), rel=1e-4)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_list_reads_the_same_as_its_folder(pictures, tmp_path, ending):
    with (tmp_path / f"list.{ending}").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if ending == "tsv" else ",")
        writer.writerow(["path", "label", "split"])
        writer.writerows(
            [path, path.parent.name, path.parents[1].name]
            for path in sorted(pictures.glob("*/*/*.png"))
        )
    listed, folder = load(str(tmp_path / f"list.{ending}"), size=8), load(str(pictures), size=8)
    assert listed.fingerprint()["sha256"] == folder.fingerprint()["sha256"]
    assert listed.classes == folder.classes


def test_pictures_of_any_size_and_mode_come_out_as_asked(tmp_path):
    for part, mode in (("train", "P"), ("val", "LA")):
        for label in ("a", "b"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 12), (200, 0, 0)).convert(mode).save(folder / "1.png")
            Image.new("RGB", (9, 31), (200, 0, 0)).convert(mode).save(folder / "2.png")
    assert load(str(tmp_path)).train.images.shape == (4, 3, 64, 64)
    assert load(str(tmp_path), size=10).valid.images.shape == (4, 3, 10, 10)
    assert load(str(tmp_path), size=10, channels=1).train.images.shape == (4, 1, 10, 10)


@pytest.fixture
def mnist(tmp_path):
    """torchvision's MNIST on disk, in its own file format, with forty training pictures."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for part, many in (("train", 40), ("t10k", 10)):
        pixels = noise.integers(0, 256, (many, 28, 28), dtype=np.uint8)
        labels = np.arange(many, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, many, 28, 28) + pixels.tobytes()
        )
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, many) + labels.tobytes()
        )
    return tmp_path


@pytest.mark.parametrize("name", ["MNIST", "mnist"])
def test_torchvisions_data_sets_are_read_by_name_when_on_disk(mnist, name):
    data = load(name, root=mnist)
    assert data.train.images.shape == (36, 1, 28, 28)
    assert data.fingerprint()["sizes"] == {"train": 36, "valid": 4, "test": 10}
    assert len(data.classes) == 10
    raw = (mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert data.test.images.numpy().tobytes() == raw
    assert data.test.labels.tolist() == list(range(10))


def test_a_data_set_that_is_not_on_disk_is_refused_with_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"CIFAR10 is not in --data-root {tmp_path}"):
        load("CIFAR10", root=tmp_path)


def test_a_label_outside_the_classes_is_refused(mnist):
    file = mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + bytes([12]))
    with pytest.raises(
        ValueError, match=r"MNIST train: label 12 lies outside the 10 classes \(0 to 9\)"
    ):
        load("MNIST", root=mnist)


def test_the_held_out_part_is_the_same_for_every_seed_and_never_trained_on(mnist):
    first, second = (
        ImageTask(ImageOptions(data="MNIST", data_root=str(mnist)), seed) for seed in (0, 1)
    )
    assert torch.equal(first.data.valid.images, second.data.valid.images)
    assert torch.equal(first.data.valid.labels, second.data.valid.labels)
    assert not rows(first.data.train) & rows(first.data.valid)
    assert len(rows(first.data.train) | rows(first.data.valid)) == 40
    fewer = load("MNIST", root=mnist, most=10)
    assert torch.equal(fewer.valid.images, first.data.valid.images)
    assert rows(fewer.train) < rows(first.data.train)


def test_label_noise_makes_that_share_of_training_labels_wrong_and_no_other(mnist):
    clean = load("MNIST", root=mnist)
    noisy = load("MNIST", root=mnist, label_noise=0.25)
    wrong = noisy.train.labels != clean.train.labels
    assert int(wrong.sum()) == round(0.25 * len(clean.train))
    for split in ("valid", "test"):
        assert torch.equal(getattr(noisy, split).labels, getattr(clean, split).labels)
    assert torch.equal(noisy.train.images, clean.train.images)
    assert noisy.fingerprint()["sha256"] != clean.fingerprint()["sha256"]
    assert "notes" not in clean.fingerprint()
    assert noisy.fingerprint()["notes"] == [
        f"{int(wrong.sum())} of {len(clean.train)} training labels are wrong on purpose "
        "(--label-noise); those of validation and test are the data's own"
    ]


def test_label_noise_is_refused_where_images_are_streamed(pictures):
    options = ImageOptions(data=str(pictures), augment="resize-crop", label_noise=0.2)
    with pytest.raises(ValueError, match=r"label_noise needs images in memory, and .* is streamed"):
        ImageTask(options, 0)


@pytest.mark.network
def test_fashion_mnist_is_55000_pictures_to_train_on_and_5000_held_out():
    data = load("fashion-mnist")
    assert data.fingerprint()["sizes"] == {"train": 55_000, "valid": 5_000, "test": 10_000}
    assert data.train.images.shape[1:] == (1, 28, 28)
    assert data.classes[0] == "T-shirt/top"
    assert data.test.labels.bincount().tolist() == [1000] * 10


# batches


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_batches_are_decided_by_seed_and_epoch_alone(augment):
    data = some(40)

    def batches(seed):
        return Batches(data, data.train, 8, seed=seed, augment=augment)

    first, again = batches(3), batches(3)
    draw(first, 0)  # what was drawn before must not matter
    for (a, a_labels), (b, b_labels) in zip(draw(first, 1), draw(again, 1), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a_labels, b_labels)
    assert not torch.equal(draw(first, 1)[0][0], draw(first, 2)[0][0])
    assert not torch.equal(draw(first, 1)[0][0], draw(batches(4), 1)[0][0])


def test_batches_are_normalised_by_the_training_pixels(pictures):
    data = load(str(pictures), size=8)
    images = torch.cat([images for images, _ in Batches(data, data.train, 4, augment="flip-crop")])
    assert len(images) == len(data.train)  # without a seed in order, and nothing is mirrored
    plain = (data.train.images / 255 - torch.tensor(data.mean).view(-1, 1, 1)) / torch.tensor(
        data.std
    ).view(-1, 1, 1)
    assert torch.allclose(images, plain, atol=1e-6)
    assert torch.allclose(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_out_each_batch_of_the_epoch(ranks):
    data = some(43)
    whole = draw(Batches(data, data.train, 8, seed=0), 5)
    parts = [
        draw(Batches(data, data.train, 8, seed=0, rank=rank, ranks=ranks), 5)
        for rank in range(ranks)
    ]
    assert {len(part) for part in parts} == {len(whole)} == {5}
    for number, (images, _) in enumerate(whole):
        shared = torch.cat([part[number][0] for part in parts])
        assert sorted(map(bytes, shared.numpy())) == sorted(map(bytes, images.numpy()))


def test_ranks_together_validate_every_picture_once():
    data = some(43)
    parts = [
        torch.cat([x for x, _ in Batches(data, data.valid, 8, rank=rank, ranks=4)])
        for rank in range(4)
    ]
    plain = torch.cat([x for x, _ in Batches(data, data.valid, 8)])
    assert sorted(bytes(x) for part in parts for x in part.numpy()) == sorted(
        map(bytes, plain.numpy())
    )


@pytest.mark.parametrize(("side", "pad"), [(8, 1), (32, 4)])
def test_flip_crop_matches_a_slow_plain_one(side, pad):
    data = some(16, side=side)
    (images, _), *_ = draw(Batches(data, data.train, 16, seed=7, augment="flip-crop"), 2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(7 * 1_000_003 + 2))
    generator = torch.Generator().manual_seed((7 * 1_000_003 + 2) * 4099)
    mirrored = torch.rand(16, generator=generator) < 0.5
    shifts = torch.randint(2 * pad + 1, (2, 16, 1), generator=generator)[:, :, 0]
    assert mirrored.any()
    assert not mirrored.all()
    assert {int(shifts.min()), int(shifts.max())} == {0, 2 * pad}
    for number, image in enumerate(images):
        picture = data.train.images[order[number]].numpy()
        if mirrored[number]:
            picture = picture[:, :, ::-1]
        canvas = np.zeros((3, side + 2 * pad, side + 2 * pad), np.uint8)
        canvas[:, pad:-pad, pad:-pad] = picture
        down, right = shifts[:, number].tolist()
        wanted = canvas[:, down : down + side, right : right + side]
        assert torch.allclose(image, (torch.tensor(wanted) / 255 - 0.4) / 0.2, atol=1e-5)


def test_half_of_the_pictures_lose_one_rectangle_of_up_to_a_third():
    blank = torch.full((2000, 2, 28, 20), 7, dtype=torch.uint8)
    erased = erase(blank, torch.Generator().manual_seed(0))
    lost = (erased != 7).any(1)  # of the noise both channels may be 7 too, seldom
    share = lost.float().mean((1, 2))
    assert 0.45 < float((share > 0).float().mean()) < 0.55
    assert 0.01 < float(share[share > 0].min()) < 0.03
    assert 0.29 < float(share.max()) < 0.35
    for picture in lost[share > 0][:200]:
        rows, columns = picture.any(1).nonzero(), picture.any(0).nonzero()
        piece = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert piece.float().mean() > 0.95
    often = lost.float().mean(0)
    assert float(often[[0, 0, -1, -1], [0, -1, 0, -1]].min()) > 0  # every corner is reached
    assert torch.equal(erase(blank), blank) is False
    assert blank.eq(7).all()  # the data's own pictures stay


def test_a_piece_longer_than_the_picture_ends_with_it():
    wide = torch.zeros(500, 1, 2, 60, dtype=torch.uint8)
    lost = (erase(wide, torch.Generator().manual_seed(0)) > 0).any(1)
    assert lost.all(1).any()  # of its full height
    assert int(lost.any(1).sum(1).max()) == 11  # (0.33 * 120 * 3.3) ** 0.5, as long as it may be


# task


def calibration_error(logits, labels):
    """Mean distance of confidence and accuracy, over 15 equal bins of confidence."""
    confidence, answers = logits.softmax(1).max(1)
    right = (answers == labels).float()
    bins = (confidence * 15).ceil()
    return sum(
        abs(float(right[bins == number].mean() - confidence[bins == number].mean()))
        * float((bins == number).float().mean())
        for number in bins.unique()
    )


def test_scores_equal_a_plain_computation(mnist):
    task = ImageTask(ImageOptions(data="MNIST", data_root=str(mnist)), seed=1).eval()
    with torch.no_grad():
        for number, batch in enumerate(
            Batches(task.data, task.data.train, 7)
        ):  # 36 pictures: the last batch is short
            task.validation_step(batch, number)
        ((images, labels),) = Batches(task.data, task.data.train, 36)
        logits = task.model(images)
    ranks = [
        (row.argsort(descending=True) == label).nonzero().item()
        for row, label in zip(logits, labels, strict=True)
    ]
    wanted = {
        "loss": sum(
            -row.log_softmax(0)[label].item() for row, label in zip(logits, labels, strict=True)
        )
        / 36,
        "top1": 100 * sum(rank < 1 for rank in ranks) / 36,
        "top5": 100 * sum(rank < 5 for rank in ranks) / 36,
        "ece": 100 * calibration_error(logits, labels),
    }
    assert task.scores() == pytest.approx(wanted, rel=1e-5)
    task.validation_step((images[:4], labels[:4]), 0)
    assert task.scores()["loss"] == pytest.approx(
        float(F.cross_entropy(logits[:4], labels[:4])), rel=1e-5
    )


def test_the_seed_decides_the_initial_weights(pictures):
    def weights(seed):
        return ImageTask(ImageOptions(data=str(pictures), size=8), seed).model.hidden.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_training_follows_the_papers_sgd(pictures):
    task = ImageTask(ImageOptions(data=str(pictures), size=8, lr=0.05), seed=0)
    optimizer = task.configure_optimizers()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (
        0.05,
        0.9,
        True,
        5e-4,
    )
    assert len(group["params"]) == len(list(task.parameters()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"augment": "crop"},
            "augment must be one of none, flip, flip-crop, flip-erase, got 'crop'",
        ),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"size": 4}, "size must be at least 8, got 4"),
        ({"valid_share": 1.0}, "valid_share must lie between 0 and 1, got 1.0; 0.1 is usual"),
        ({"label_noise": 1.0}, r"label_noise must lie in \[0, 1\), got 1.0"),
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"momentum": -1.0}, "momentum must be a finite number at least 0, got -1.0"),
        (
            {"weight_decay": float("nan")},
            "weight_decay must be a finite number at least 0, got nan",
        ),
    ],
)
def test_options_are_checked_where_they_enter(wrong, message):
    with pytest.raises(ValueError, match=message):
        ImageOptions(**wrong)
