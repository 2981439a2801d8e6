"""The trained networks that come along: whole, small, loadable, and as good as their records and
cards say."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

import redense as package
from redense.runs.weights import weights_sha256

MODELS = sorted(
    folder for folder in (Path(__file__).parents[3] / "models").iterdir() if folder.is_dir()
)


def record_of(folder):
    return json.loads((folder / "record.json").read_text("utf-8"))


def test_all_together_are_below_5_megabytes():
    assert MODELS
    assert sum(file.stat().st_size for folder in MODELS for file in folder.rglob("*")) < 5_000_000


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_model_is_its_records_and_came_from_a_committed_tree(folder):
    record = record_of(folder)
    network = package.load(folder)
    assert weights_sha256(network.state_dict()) == record["weights_sha256"]
    network.load_state_dict(load_file(folder / "model.safetensors"))  # strict, as the card says
    assert not network.training
    assert re.fullmatch("[0-9a-f]{40}", record["commit"])
    card = (folder / "README.md").read_text("utf-8")
    assert all(f"{name} {value:.2f}" in card for name, value in record["test"].items())
    assert record["weights_sha256"] in card


@pytest.mark.network
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_eval_finds_the_accuracy_that_record_and_card_state(folder, redense):
    record = record_of(folder)
    answer = redense("eval", folder, "--data", record["data"]["name"])
    assert answer.code == 0, answer.err
    for number, line in zip((1, 5), answer.out.splitlines(), strict=True):
        assert line.startswith(f"top-{number}  {record['test'][f'top{number}']:.2f} % right")
        assert f"of {record['data']['sizes']['test']:,} images" in line
