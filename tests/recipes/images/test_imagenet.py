"""The paper's ImageNet networks: presets, weights from elsewhere, streamed folders, evaluation."""

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, write_pictures
from lightning.pytorch import Callback
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import models as zoo
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import redense as package
from redense import datasets
from redense.files.weights import load_exactly, read_weights
from redense.lightning import DSDCallback
from redense.prunable import prunable
from redense.recipes import build_task
from redense.recipes.images import models, streams
from redense.recipes.images.folders import IMAGENET, open_folder
from redense.recipes.images.options import AUGMENTATIONS, STREAMED_AUGMENTATIONS, ImageOptions
from redense.recipes.images.presets import PRESETS
from redense.recipes.images.streams import StreamedBatches
from redense.recipes.images.task import ImageTask
from redense.runs.configuration import RunConfig
from redense.runs.trainer import build_trainer, quiet_lightning

ROOT = Path(__file__).parents[3]
FACTS = {  # paper.md's table: epochs, rates, (top-1, top-5) errors
    "googlenet": (
        (60, 11, 22),
        (1e-2, 1e-3, 1e-4),
        ((31.14, 10.96), (30.58, 10.58), (30.02, 10.34)),
    ),
    "vgg16": ((74, 1.25, 18), (1e-2, 1e-4, 1e-5), ((31.50, 11.32), (28.19, 9.23), (27.19, 8.67))),
    "resnet18": (
        (90, 45, 45),
        (1e-1, 1e-2, 1e-3),
        ((30.43, 10.76), (30.15, 10.56), (29.17, 10.13)),
    ),
    "resnet50": ((90, 45, 45), (1e-1, 1e-2, 1e-3), ((24.01, 7.02), (23.55, 6.88), (22.89, 6.47))),
}
FIRST = {"googlenet": "conv1.conv", "vgg16": "features.0", "resnet18": "conv1", "resnet50": "conv1"}
STEP = ("--batch", 2, "--train-images", 2, "--workers", 0, "--accelerator", "cpu")
SHORT = ("--dense", 1, "--sparse", 1, "--redense", 1)


def torchvision_network(name, classes):
    quick = {"init_weights": False, "aux_logits": True} if name == "googlenet" else {}
    return zoo.get_model(name, weights=None, num_classes=classes, **quick)


def draw(batches, epoch=0):
    batches.set_epoch(epoch)
    return list(batches)


# presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_papers(name, redense):
    epochs, rates, errors = FACTS[name]
    preset = PRESETS[name]
    assert (preset.epochs, preset.rates, preset.expected, preset.sparsity) == (
        epochs,
        rates,
        errors,
        0.3,
    )
    flags = preset.flags
    assert (flags["dense"], flags["sparse"], flags["redense"]) == tuple(
        round(many) for many in epochs
    )
    assert flags["lr"] == rates[0]
    assert (flags["lr"] * flags["sparse_lr"], flags["lr"] * flags["redense_lr"]) == pytest.approx(
        rates[1:]
    )
    answer = redense("train", "images", "--preset", name, "--print-plan")
    assert answer.code == 0
    for number in (f"{error:.2f} %" for pair in errors for error in pair):
        assert number in answer.out
    assert re.search(rf"sparse +{round(epochs[0])}(-\d+)? +{round(epochs[1])} +0\.3 ", answer.out)
    assert re.search(rf"model +{name}\n", answer.out)


def test_resnets_train_as_the_paper_says():
    for name in ("resnet18", "resnet50"):
        flags = PRESETS[name].flags
        settings = (
            flags["batch"],
            flags["momentum"],
            flags["nesterov"],
            flags["weight_decay"],
            flags["decay"],
        )
        assert settings == (256, 0.9, True, 1e-4, "step")
        assert (flags["size"], flags["augment"]) == (224, "scale-crop-colour")


def test_rounding_of_vggs_sparse_epochs_is_said(redense):
    answer = redense("train", "images", "--preset", "vgg16", "--print-plan")
    assert "1.25 sparse epochs are 1 here: a plan counts whole epochs" in " ".join(
        answer.out.split()
    )


def test_flags_win_over_the_preset_and_init_skips_the_dense_phase(redense):
    answer = redense(
        "train", "images", "--batch", 64, "--preset=resnet50", "--init", "zoo.pt", "--print-plan"
    )
    assert re.search(r"batch +64\n", answer.out)
    plan = answer.out.partition("\n\n")[0]
    assert [line.split()[0] for line in plan.splitlines()] == ["phase", "sparse", "redense"]
    assert "resnet50 (90 + 45 + 45 epochs" in " ".join(
        redense("train", "images", "--help").out.split()
    )
    wrong = redense("train", "images", "--preset", "resnet19", "--print-plan")
    assert (wrong.code, "there is no preset 'resnet19'; did you mean resnet18" in wrong.err) == (
        2,
        True,
    )


# the four networks


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """Real drawings in ImageNet's layout: three classes, two training images each, as JPEG."""
    source = datasets.prepare("emoji-groups")
    folder = tmp_path_factory.mktemp("emoji")
    for part, kind, many in (("train", "train", 2), ("val", "valid", 1)):
        content = load_file(source / f"{kind}.safetensors")
        for label in range(3):
            for number, image in enumerate(content["images"][content["labels"] == label][:many]):
                file = folder / part / f"n{label:08d}" / f"{part}_{number}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).resize((90, 70)).save(
                    file, quality=95
                )
    return folder


class Phases(Callback):
    """At the end of each phase: strictly into torchvision's network, and what is zero."""

    def __init__(self, name):
        with torch.device("meta"):
            self.network = torchvision_network(name, 3)
        self.zeros, self.heads = [], []

    def on_train_epoch_end(self, trainer, pl_module):
        state = pl_module.model.state_dict()
        self.network.load_state_dict(state, strict=True, assign=True)
        self.zeros.append(
            {key: int((weight == 0).sum()) for key, weight in prunable(self.network).items()}
        )
        self.heads.append(
            {key: value.clone() for key, value in state.items() if key.startswith("aux")}
        )


@pytest.mark.network
@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_networks_go_through_all_phases_at_224_pixels(name, emoji):
    flags = PRESETS[name].flags | {"data": str(emoji), "batch": 2, "train_images": 2, "workers": 0}
    options = ImageOptions(
        **{key: flags[key] for key in flags if key in ImageOptions.__dataclass_fields__}
    )
    task = ImageTask(options, seed=0)
    plan = package.dsd(
        1, 1, 1, flags["sparsity"], sparse_lr=flags["sparse_lr"], redense_lr=flags["redense_lr"]
    )
    seen = Phases(name)
    trainer = build_trainer(RunConfig(accelerator="cpu"), 3, [DSDCallback(plan), seen])
    with quiet_lightning():
        trainer.fit(task)
    assert trainer.global_step == 3
    assert task.data.size == 224
    dense, sparse, redense = seen.zeros
    assert f"{FIRST[name]}.weight" not in sparse
    assert (task.model.get_submodule(FIRST[name]).weight != 0).all()
    linear = [
        key for key, module in task.model.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    assert {f"{key}.weight" for key in linear} <= sparse.keys()  # the classifier is pruned too
    sizes = {key: weight.numel() for key, weight in task.model.named_parameters()}
    assert sparse == {key: round(0.3 * sizes[key]) for key in sparse}
    assert all(dense[key] < sparse[key] for key in sparse)
    assert sum(redense.values()) < sum(sparse.values())
    if name == "googlenet":
        for before, after in pairwise(seen.heads):
            assert {key.split(".")[0] for key in before} == {"aux1", "aux2"}
            assert not any(
                torch.equal(before[key], after[key]) for key in before if key.endswith("weight")
            )


# weights from elsewhere


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A resnet18 for three classes, as a file."""
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("zoo") / "resnet18.pt"
    torch.save({"state_dict": torchvision_network("resnet18", 3).state_dict(), "epoch": 90}, file)
    return file


@pytest.mark.parametrize("kind", ["pt", "module.", "ckpt", "safetensors"])
def test_training_starts_from_a_checkpoint(kind, checkpoint, pictures, tmp_path):
    weights, file = read_weights(checkpoint), tmp_path / f"weights.{kind.removesuffix('.')}"
    if kind == "safetensors":
        save_file(weights, file)
    else:
        prefix = {"pt": "", "module.": "module.", "ckpt": "model."}[kind]
        torch.save(
            {"state_dict": {f"{prefix}{key}": value for key, value in weights.items()}}, file
        )
    options = {"data": str(pictures), "size": 32, "model": "resnet18", "init": str(file)}
    state = build_task(RunConfig(recipe="images", options=options)).model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_a_run_from_a_checkpoint_has_no_dense_phase(checkpoint, pictures, tmp_path, redense):
    flags = (
        "--model",
        "resnet18",
        "--size",
        32,
        "--init",
        checkpoint,
        "--sparse",
        1,
        "--redense",
        1,
        *STEP,
    )
    assert (
        redense("train", "images", "--data", pictures, *flags, "--out", tmp_path / "run").code == 0
    )
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["sparse", "redense"]


def test_keys_and_shapes_that_do_not_fit_are_listed(checkpoint, pictures, tmp_path, redense):
    weights = read_weights(checkpoint)
    weights["fc.weight"] = torch.zeros(1000, 512)
    weights["conv1_w"] = weights.pop("conv1.weight")
    torch.save(weights, tmp_path / "caffe.pt")
    flags = ("--model", "resnet18", "--size", 32, "--init", tmp_path / "caffe.pt", *STEP)
    answer = redense("train", "images", "--data", pictures, *flags, "--out", tmp_path / "run")
    assert answer.code == 2
    assert (
        "1 missing: conv1.weight; 1 unexpected: conv1_w; 1 of another shape: fc.weight (1000, 512)"
        in answer.err
    )
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        ValueError, match=r"102 missing: conv1.weight, bn1.weight, .*, \.\.\.; 1 unexpected: weight"
    ):
        load_exactly(
            torchvision_network("resnet18", 3), {"weight": torch.zeros(1)}, "x.pt", "resnet18"
        )


def test_a_network_of_other_classes_gives_all_but_its_last_layer(pictures, tmp_path, redense):
    torch.manual_seed(1)
    for name in ("resnet18", "googlenet"):
        other = torchvision_network(name, 1000)
        file = tmp_path / f"{name}.pt"
        torch.save({f"module.{key}": value for key, value in other.state_dict().items()}, file)
        flags = ("--model", name, "--size", 32, "--init", file, *STEP, "--data", pictures)
        answer = redense("train", "images", *flags, "--out", tmp_path / "run")
        assert answer.code == 2
        assert "of another shape: fc.weight (1000, " in answer.err or "aux" in answer.err
        assert "all but the last layer fits" in answer.err
        assert "--head new starts that one afresh" in answer.err
        options = {"data": str(pictures), "size": 32, "model": name, "init": str(file)}
        task = build_task(RunConfig(recipe="images", options={**options, "head": "new"}))
        state = task.model.state_dict()
        assert state["fc.weight"].shape[0] == 3
        new = {key for key in state if key.rpartition(".")[0] in ("fc", "aux1.fc2", "aux2.fc2")}
        assert all(torch.equal(state[key], other.state_dict()[key]) for key in state.keys() - new)
    answer = redense("train", "images", "--head", "new", *STEP)
    assert (answer.code, "head new needs trained weights" in answer.err) == (2, True)
    answer = redense("train", "images", "--head", "none", *STEP)
    assert (answer.code, "head must be kept or new, got 'none'" in answer.err) == (2, True)


def test_published_weights_come_from_the_local_cache_only(pictures, tmp_path, monkeypatch, redense):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    flags = ("--model", "googlenet", "--size", 32, "--init", "pretrained", *STEP)
    answer = redense("train", "images", "--data", pictures, *flags, "--out", tmp_path / "run")
    assert answer.code == 2
    assert f"not in {tmp_path}/checkpoints/googlenet-1378be20.pth; put https://" in answer.err
    (tmp_path / "checkpoints").mkdir()
    published = torchvision_network("googlenet", 3)
    torch.save(published.state_dict(), tmp_path / "checkpoints" / "googlenet-1378be20.pth")
    options = {"data": str(pictures), "size": 32, "model": "googlenet", "init": "pretrained"}
    task = build_task(RunConfig(recipe="images", options=options))
    assert task.model.transform_input  # these weights expect pixels in [-1, 1]
    assert task.config()["transform_input"]
    assert torch.equal(task.model.aux1.fc2.weight, published.aux1.fc2.weight)


# streamed folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("folder"), {"train": 23, "val": 9}, side=20)


@pytest.mark.parametrize("augment", [*STREAMED_AUGMENTATIONS, *AUGMENTATIONS[1:]])
def test_streamed_batches_are_decided_by_seed_and_epoch_alone(augment, folder):
    data = open_folder(str(folder), 16)

    def batches(seed, **how):
        return StreamedBatches(data, data.train, 4, seed=seed, augment=augment, workers=0, **how)

    whole = draw(batches(3), 1)
    assert len(whole) == 5
    for (a, a_labels), (b, b_labels) in zip(whole, draw(batches(3), 1), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a_labels, b_labels)
    assert not torch.equal(whole[0][0], draw(batches(3), 2)[0][0])
    assert not torch.equal(whole[0][0], draw(batches(4), 1)[0][0])
    parts = [draw(batches(3, rank=rank, ranks=2), 1) for rank in range(2)]
    for number, (images, _) in enumerate(whole):
        shared = torch.cat([part[number][0] for part in parts])
        assert sorted(x.numpy().tobytes() for x in shared) == sorted(
            x.numpy().tobytes() for x in images
        )


def test_worker_processes_change_nothing(folder):
    data = open_folder(str(folder), 16)
    plain, worked = (
        StreamedBatches(data, data.train, 8, seed=0, augment="scale-crop-colour", workers=workers)
        for workers in (0, 2)
    )
    for epoch in (0, 1):
        assert all(
            torch.equal(a, b)
            for (a, _), (b, _) in zip(draw(plain, epoch), draw(worked, epoch), strict=True)
        )


def test_streaming_leaves_the_generators_alone(folder):
    data = open_folder(str(folder), 16)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(StreamedBatches(data, data.train, 8, seed=0, augment="scale-crop", workers=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_too_large_for_memory_is_streamed(folder, monkeypatch):
    assert not streams.wanted(str(folder), "flip", 64)
    assert streams.wanted(str(folder), "scale-crop", 64)
    monkeypatch.setattr(streams, "_MOST_BYTES", 7 * 3 * 64 * 64)
    assert streams.wanted(str(folder), "flip", 64)


def test_a_broken_image_is_named(tmp_path, redense):
    write_pictures(tmp_path / "data", side=20)
    broken = tmp_path / "data" / "train" / "red" / "0002.png"
    broken.write_bytes(broken.read_bytes()[:100])
    flags = (
        "--size",
        16,
        "--augment",
        "scale-crop",
        "--workers",
        1,
        "--batch",
        24,
        "--accelerator",
        "cpu",
    )
    answer = redense(
        "train", "images", "--data", tmp_path / "data", *flags, "--out", tmp_path / "run"
    )
    assert answer.code == 2
    assert f"{broken} is not a whole image" in answer.err


def test_a_missing_imagenet_is_refused_with_its_place(tmp_path, redense):
    answer = redense("train", "images", "--preset", "resnet18", "--data-root", tmp_path)
    assert answer.code == 2
    assert f"torchvision's ImageNet is not in --data-root {tmp_path}" in answer.err


SMALL = ("--size", 16, "--batch", 8, "--workers", 0, "--accelerator", "cpu", *SHORT)


def train(redense, folder, run, *flags):
    answer = redense("train", "images", "--data", folder, *SMALL, *flags, "--out", run)
    assert answer.code == 0, answer.err
    return json.loads((run / "record.json").read_text())


def test_a_streamed_run_resumes_bit_for_bit(folder, tmp_path, redense):
    whole = train(redense, folder, tmp_path / "whole", "--augment", "scale-crop-colour")
    run = tmp_path / "whole"
    for name in (
        "record.json",
        "model.safetensors",
        "checkpoints/epoch-0003.ckpt",
        "checkpoints/redense.ckpt",
    ):
        (run / name).unlink()
    assert redense("train", "images", "--resume", run).code == 0
    resumed = json.loads((run / "record.json").read_text())
    assert whole["weights_sha256"] == resumed["weights_sha256"]


@pytest.mark.filterwarnings("ignore:the released weights")  # of so few steps
@pytest.mark.parametrize("augment", ["flip", "scale-crop"])
def test_accumulated_parts_train_as_the_whole_batch(
    augment, folder, tmp_path, redense, monkeypatch
):
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)  # which would draw in parts
    flags = ("--model", "squeezenet1_1", "--size", 32, "--augment", augment, "--decay", "constant")
    flags += ("--lr", 0.01)  # and squeezenet has no batch-norm
    train(redense, folder, tmp_path / "1", *flags)
    train(redense, folder, tmp_path / "4", *flags, "--accumulate", 4)
    whole, parts = (load_file(tmp_path / run / "model.safetensors") for run in ("1", "4"))
    for key, weight in whole.items():
        assert torch.allclose(weight, parts[key], atol=1e-5), key
    answer = redense("train", "images", "--data", folder, "--batch", 8, "--accumulate", 3)
    assert (answer.code, "accumulate must divide batch 8, got 3" in answer.err) == (2, True)


# evaluation and loading


def plain_top1_top5(network, folder, mean, std):
    """What anyone would write."""
    transform = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    top1 = top5 = 0
    for image, label in ImageFolder(folder, transform):
        with torch.no_grad():
            order = network.eval()((image - mean)[None] / std)[0].argsort(descending=True).tolist()
        top1 += order[0] == label
        top5 += label in order[:5]
    return top1, top5


@pytest.fixture
def seven(tmp_path):
    """Seven classes, so that top-5 is not all."""
    for number in range(21):
        file = tmp_path / "seven" / "val" / f"class{number % 7}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(
            256, (3, 9, 7), generator=torch.Generator().manual_seed(number), dtype=torch.uint8
        )
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((300, 260)).save(file)
    return tmp_path / "seven"


def test_eval_equals_a_plain_script_to_the_image(seven, tmp_path, redense):
    torch.manual_seed(1)
    network = torchvision_network("squeezenet1_1", 7)
    torch.save(network.state_dict(), tmp_path / "squeezenet.pt")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    top1, top5 = plain_top1_top5(network, seven / "val", mean, std)
    flags = ("--model", "squeezenet1_1", "--data", seven, "--workers", 0, "--batch", 5)
    answer = redense("eval", tmp_path / "squeezenet.pt", *flags)
    assert answer.code == 0, answer.err
    assert f"({top1} of 21 images)" in answer.out.splitlines()[0]
    assert f"({top5} of 21 images)" in answer.out.splitlines()[1]
    assert 0 < top5 < 21


def test_eval_of_a_run_equals_its_record_and_an_export_loads_back(folder, tmp_path, redense):
    run, hub = tmp_path / "run", tmp_path / "hub"
    record = train(redense, folder, run, "--augment", "scale-crop")
    assert redense("export", run, hub).code == 0
    for network in (run, hub):
        answer = redense("eval", network, "--data", folder, "--workers", 0)
        assert answer.code == 0, answer.err
        assert f"top-1  {record['valid']['top1']:.2f} % right" in answer.out
    loaded = package.load(hub)
    assert not loaded.training
    saved = load_file(run / "model.safetensors")
    assert all(torch.equal(value, saved[key]) for key, value in loaded.state_dict().items())


@pytest.mark.network
def test_eval_on_a_packaged_set_equals_the_record_and_a_plain_script(tmp_path, redense):
    run = tmp_path / "run"
    flags = ("--train-images", 600, "--lr", 0.02, "--accelerator", "cpu", *SHORT, "--out", run)
    assert redense("train", "images", "--data", "emoji-groups", *flags).code == 0
    record = json.loads((run / "record.json").read_text())
    answer = redense("eval", run, "--data", "emoji-groups")
    assert f"top-1  {record['test']['top1']:.2f} % right" in answer.out, answer.err
    config, network = json.loads((run / "network.json").read_text()), package_network(run)
    test = load_file(datasets.prepare("emoji-groups") / "test.safetensors")
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        right = network((test["images"] / 255 - mean) / std).argmax(1) == test["labels"]
    assert f"({int(right.sum())} of {len(right)} images)" in answer.out.splitlines()[0]
    file = redense("eval", run / "model.safetensors", "--model", "small", "--data", "emoji-groups")
    assert f"of {len(right)} images)" in file.out, file.err
    wrong = redense("eval", run, "--data", "fashion-mnist")
    assert (wrong.code, "fashion-mnist has 10 classes (T-shirt" in wrong.err) == (2, True), (
        wrong.err
    )


def package_network(run):
    """The trained network, by hand."""
    config = json.loads((run / "network.json").read_text())
    network = models.build("small", len(config["classes"]), config["channels"], config["size"])
    network.load_state_dict(load_file(run / "model.safetensors"))
    return network.eval()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.pt", "--model", "resnet18"), "nowhere.pt: no such file"),
        (("nowhere.pt",), "--model names the network whose weights nowhere.pt are"),
        (("nowhere.pt", "--model", "resnet19"), "no model is called 'resnet19'; did you mean "),
    ],
)
def test_mistakes_in_eval_are_told(arguments, message, pictures, redense):
    answer = redense("eval", *arguments, "--data", pictures)
    assert (answer.code, message in answer.err) == (2, True), answer.err


def test_what_is_no_export_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither a run nor an export: it has no config"):
        package.load(tmp_path)


def test_classes_that_the_network_does_not_know_are_named(folder, tmp_path, redense):
    write_pictures(tmp_path / "other", side=20)
    (tmp_path / "other" / "val" / CLASSES[0]).rename(tmp_path / "other" / "val" / "purple")
    with pytest.raises(
        ValueError,
        match=r"png is of class 'purple', which is none of 3 classes \(blue, green, red\)",
    ):
        open_folder(str(tmp_path / "other"), 16)


# clusters


def test_the_cluster_script_uses_flags_that_there_are(redense):
    script = ROOT / "examples" / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    known = redense("train", "images", "--help").out
    arrays = " ".join(re.findall(r"flags=\((.*?)\)", script.read_text("utf-8")))
    flags = re.findall(r"--[\w-]+", arrays)
    assert {"--resume", "--preset", "--data", "--precision", "--out"} <= set(flags)
    assert all(f"{flag} " in known for flag in flags)
