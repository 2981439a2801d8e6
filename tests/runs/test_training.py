"""One run, from flags to its folder: what it leaves behind, and that every number in it is
right."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import SIZES, TINY
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from redense import Plan, dsd, prunable
from redense.cli import main
from redense.files.records import read_record
from redense.recipes.images import models
from redense.runs.progress import print_result
from redense.runs.record import masks_of
from redense.runs.weights import weights_sha256
from redense.tensors.packing import pack

ROOT = Path(__file__).parents[2]

PLAN = dsd(
    dense=2, sparse=2, redense=1, sparsity=0.3, sparse_lr=0.1, redense_lr=0.1, decay="cosine"
)
LENGTHS = ("--dense", "2", "--sparse", "2", "--redense", "1", "--sparsity", "0.3")
DSD = (*LENGTHS, "--sparse-lr", "0.1", "--redense-lr", "0.1")


def train(folder, pictures, *flags):
    assert (
        main(["train", "images", "--data", str(pictures), *TINY, "--out", str(folder), *flags]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "first", pictures, *DSD)


@pytest.fixture(scope="module")
def record(run):
    return json.loads((run / "record.json").read_text())


def checkpoint(run, name):
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def weights(run, name):
    return {
        key: value
        for key, value in checkpoint(run, name)["state_dict"].items()
        if key.startswith("model.")
    }


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


def test_a_run_folder_holds_everything_it_promises_and_nothing_else(run):
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    events = {file for file in files if file.startswith("tensorboard/events.out.tfevents")}
    checkpoints = {
        f"checkpoints/{name}.ckpt"
        for name in ("dense", "sparse", "redense", "epoch-0004", "epoch-0005")
    }
    texts = {
        "config.json",
        "network.json",
        "plan.txt",
        "metrics.csv",
        "record.json",
        "histograms.json",
    }
    assert len(events) == 1
    assert files == events | checkpoints | texts | {
        "curves.png",
        "histograms.png",
        "model.safetensors",
    }


def test_config_and_plan_say_what_was_asked_for(run, pictures):
    config = json.loads((run / "config.json").read_text())
    assert Plan.from_records(config["plan"]) == PLAN
    assert config["options"]["data"] == str(pictures)
    assert config["options"]["batch"] == 8
    assert (run / "plan.txt").read_text() == f"{PLAN}\n"


def test_the_record_has_every_field_of_the_format(record):
    assert {key: record[key] for key in ("recipe", "method", "seed")} == {
        "recipe": "images",
        "method": "dsd",
        "seed": 0,
    }
    assert record["plan"] == PLAN.to_records()
    assert [(p["name"], p["epochs"], p["sparsity"]) for p in record["phases"]] == [
        ("dense", 2, 0.0),
        ("sparse", 2, 0.3),
        ("redense", 1, 0.0),
    ]
    for scores in (*(phase["valid"] for phase in record["phases"]), record["test"]):
        assert scores.keys() == {"loss", "top1", "top5", "ece"}
    assert all(phase["train_loss"] > 0 for phase in record["phases"])
    assert record["data"]["sizes"] == {
        "train": SIZES["train"],
        "valid": SIZES["val"],
        "test": SIZES["test"],
    }
    assert len(record["data"]["sha256"]) == len(record["weights_sha256"]) == 64
    assert record["versions"].keys() >= {"redense", "python", "torch", "torchvision", "lightning"}
    assert record["hardware"].keys() >= {"machine", "processor", "cores", "threads", "accelerator"}
    assert record["hardware"]["threads"] == torch.get_num_threads()
    assert record["cost"] == {"epochs": 5, "examples": 5 * SIZES["train"]}
    assert record["seconds"] > 0
    assert "commit" in record


def test_metrics_have_a_row_an_epoch_and_the_record_repeats_them(run, record):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["dense", "dense", "sparse", "sparse", "redense"]
    assert [float(row["rate"]) for row in rows] == pytest.approx([0.1, 0.05, 0.01, 0.005, 0.01])
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    for phase, row in zip(record["phases"], (rows[1], rows[3], rows[4]), strict=True):
        assert phase["train_loss"] == float(row["train_loss"])
        assert phase["valid"] == {
            name: float(row[f"valid_{name}"]) for name in ("loss", "top1", "top5", "ece")
        }
        assert phase["sparsity_measured"] == float(row["sparsity"])


def test_tensorboard_shows_the_same_numbers(run, record):
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("train_loss", "valid_loss", "valid_top1", "rate", "sparsity"):
        assert [event.value for event in board.Scalars(name)] == pytest.approx(
            [row[name] for row in record["history"]]
        )


def test_measured_sparsity_is_what_was_asked_exactly(run, record):
    model = models.build("small", 3, 3, 8)
    model.load_state_dict({name[6:]: value for name, value in weights(run, "sparse").items()})
    held = prunable(model)
    assert len(held) == 4  # the first convolution is left dense
    for weight in held.values():
        assert int((weight == 0).sum()) == round(0.3 * weight.numel())
    zeros, many = (
        sum(round(0.3 * w.numel()) for w in held.values()),
        sum(w.numel() for w in held.values()),
    )
    assert [phase["sparsity_measured"] for phase in record["phases"][:2]] == [0.0, zeros / many]
    assert record["phases"][2]["sparsity_measured"] < 0.3


def test_a_sparse_phases_checkpoint_holds_its_masks_one_bit_a_weight(run):
    state = checkpoint(run, "sparse")
    masks = masks_of(state)
    assert len(masks) == 4
    packed = state["callbacks"]["DSDCallback"]["masks"]
    for name, mask in masks.items():
        assert not state["state_dict"][name][~mask].any()
        assert packed[name].dtype == torch.uint8
        assert packed[name].numel() == -(-mask.numel() // 8)
        assert torch.equal(packed[name], pack(mask))
    assert not masks_of(checkpoint(run, "dense"))
    assert not masks_of(checkpoint(run, "redense"))


def test_growth_of_released_weights_equals_a_plain_computation(run, record):
    end, masks = weights(run, "redense"), masks_of(checkpoint(run, "sparse"))
    free = [float(w.abs()) for name, mask in masks.items() for w in end[name][~mask]]
    kept = [float(w.abs()) for name, mask in masks.items() for w in end[name][mask]]
    (grown,) = record["released"]
    assert (grown["phase"], grown["until"], grown["released"]) == ("sparse", "redense", len(free))
    assert grown["mean_released"] == pytest.approx(sum(free) / len(free))
    assert grown["mean_survivors"] == pytest.approx(sum(kept) / len(kept))
    assert grown["moved"] == sum(w > 0 for w in free) / len(free) > 0


def test_the_five_histograms_count_every_weight_in_range(run):
    masks = {name[6:]: mask for name, mask in masks_of(checkpoint(run, "sparse")).items()}
    layers = json.loads((run / "histograms.json").read_text())
    assert layers.keys() == masks.keys()
    for name, layer in layers.items():
        mask, reach = masks[name], layer["range"] * (1 + 1 / 100)  # half a bin on either side
        before, held, after = (
            weights(run, phase)[f"model.{name}"].abs() for phase in ("dense", "sparse", "redense")
        )
        assert {moment: sum(counts) for moment, counts in layer["moments"].items()} == {
            "dense": int((before <= reach).sum()),
            "just pruned": int((before[mask] <= reach).sum()),
            "end of sparse": int((held[mask] <= reach).sum()),
            "at release": int((held <= reach).sum()),
            "end of re-dense": int((after <= reach).sum()),
        }
        pruned, middle = (
            int((~mask).sum()),
            {moment: counts[50] for moment, counts in layer["moments"].items()},
        )
        assert sum(layer["moments"]["dense"]) - sum(layer["moments"]["just pruned"]) == pruned
        assert (
            sum(layer["moments"]["at release"]) - sum(layer["moments"]["end of sparse"]) == pruned
        )
        assert middle["just pruned"] == 0 < pruned <= middle["at release"]


def test_pictures_can_be_looked_at(run):
    for name in ("curves.png", "histograms.png"):
        with Image.open(run / name) as picture:
            assert picture.width > 800
            assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 10


def test_the_exported_weights_are_the_last_phases(run, record):
    final = {name[6:]: value for name, value in weights(run, "redense").items()}
    assert equal(load_file(run / "model.safetensors"), dict(sorted(final.items())))
    assert weights_sha256(final) == record["weights_sha256"]
    models.build("small", 3, 3, 8).load_state_dict(load_file(run / "model.safetensors"))


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(
    run, record, pictures, tmp_path
):
    def sha256(folder):
        return json.loads((folder / "record.json").read_text())["weights_sha256"]

    assert sha256(train(tmp_path / "again", pictures, *DSD)) == record["weights_sha256"]
    assert (
        sha256(train(tmp_path / "other", pictures, *DSD, "--seed", "1")) != record["weights_sha256"]
    )


def test_the_first_dense_phase_is_plain_dense_training(run, pictures, tmp_path):
    plan = tmp_path / "dense.toml"
    plan.write_text('[[phases]]\nname = "only"\nlength = 2\ndecay = "cosine"\n')
    alone = train(tmp_path / "alone", pictures, "--plan", str(plan))
    assert equal(weights(alone, "only"), weights(run, "dense"))
    record = json.loads((alone / "record.json").read_text())
    assert record["method"] == "dense"
    assert record["released"] == []


def test_the_table_at_the_end_has_a_row_a_phase(run, pictures, tmp_path, redense):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "record.json").unlink()  # as after kill -9 just before the end
    answer = redense("train", "images", "--resume", tmp_path / "copy")
    assert answer.code == 0
    (sparse,) = (line.split() for line in answer.out.splitlines() if line.split()[:1] == ["sparse"])
    assert sparse[1:6] == ["2", "0.01", "30", "%", "30.00"]
    assert "weights released after sparse" in answer.out
    assert "test, read once at the end: top1" in answer.out
    first, second = (
        json.loads((folder / "record.json").read_text()) for folder in (run, tmp_path / "copy")
    )
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["test"] == second["test"]


def test_the_table_of_the_default_run_breaks_no_cell_at_80_columns(capsys):
    shipped = read_record(ROOT / "models/fashion-mnist-dsd/record.json")
    print_result(shipped)
    lines = capsys.readouterr().out.splitlines()
    (rule,) = (number for number, line in enumerate(lines) if "───" in line)
    rows = lines[rule + 1 : rule + 4]
    assert [row.split()[0] for row in rows] == ["dense", "sparse", "redense"]
    assert all(len(row.split()) == 11 for row in rows)  # "30 %" and "30.00 %" are two words each
    assert all(len(line) <= 80 for line in lines[: rule + 4])


def test_on_a_terminal_one_bar_shows_phase_loss_score_and_time_left(
    pictures, tmp_path, redense, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    lengths = ("--dense", "1", "--sparse", "1", "--redense", "1")
    answer = redense(
        "train", "images", "--data", pictures, *TINY, *lengths, "--out", tmp_path / "run"
    )
    bar = [line for line in answer.err.split("\r") if line.startswith("redense 3/3")][-1]
    assert re.search(
        r"\| \d/9 \[\d\d:\d\d<\d\d:\d\d, .*loss \d\.\d{3}, valid top1 \d+\.\d\d\]", bar
    ), bar
    assert "epoch 1/3" not in answer.out


def test_a_finished_run_is_not_trained_again(run, redense):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    answer = redense("train", "images", "--resume", run)
    assert answer.code == 0
    assert "is finished" in answer.out
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*")}


@pytest.mark.parametrize("mask", ["random", "global"])
def test_other_masks_hold_as_many(mask, pictures, tmp_path):
    folder = train(
        tmp_path / mask, pictures, "--dense", "1", "--sparse", "1", "--redense", "1", "--mask", mask
    )
    masks = masks_of(checkpoint(folder, "sparse")).values()
    assert sum(int((~mask).sum()) for mask in masks) == pytest.approx(
        0.3 * sum(m.numel() for m in masks), abs=2
    )


def test_a_plan_of_two_passes_keeps_a_checkpoint_each(pictures, tmp_path):
    flags = (
        "--passes",
        "2",
        "--sparsity",
        "[0.5, 0.25]",
        "--dense",
        "1",
        "--sparse",
        "1",
        "--redense",
        "1",
    )
    folder = train(tmp_path / "dsdsd", pictures, *flags)
    assert {file.stem for file in (folder / "checkpoints").glob("[!e]*")} == {
        "dense",
        "sparse-1",
        "redense-1",
        "sparse-2",
        "redense-2",
    }
    record = json.loads((folder / "record.json").read_text())
    measured = {phase["name"]: phase["sparsity_measured"] for phase in record["phases"]}
    assert measured["sparse 1"] == pytest.approx(0.5, abs=1e-3)
    assert measured["sparse 2"] == pytest.approx(0.25, abs=1e-3)
    assert [grown["phase"] for grown in record["released"]] == ["sparse 1", "sparse 2"]


def test_include_and_exclude_choose_what_is_held(pictures, tmp_path):
    flags = (
        "--dense",
        "1",
        "--sparse",
        "1",
        "--redense",
        "1",
        "--include",
        "hidden.*,classifier.*",
        "--exclude",
        "classifier.*",
    )
    folder = train(tmp_path / "chosen", pictures, *flags)
    assert masks_of(checkpoint(folder, "sparse")).keys() == {"model.hidden.weight"}
