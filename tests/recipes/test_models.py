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
    folder for folder in (Path(__file__).parents[2] / "models").iterdir() if folder.is_dir()
)


def record_of(folder):
    return json.loads((folder / "record.json").read_text("utf-8"))


def test_each_is_below_20_megabytes():
    assert MODELS
    sizes = [sum(file.stat().st_size for file in folder.rglob("*")) for folder in MODELS]
    assert max(sizes) < 20_000_000


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


def test_the_captions_page_says_what_the_record_says():
    (folder,) = (folder for folder in MODELS if folder.name == "emoji-dsd")
    record, page = record_of(folder), (folder.parents[1] / "docs" / "recipes.md").read_text("utf-8")
    for split, title in (("valid", "validation"), ("test", "test, read once")):
        told = record[split]
        cells = [f"{told['bleu1']:.1f}", f"{told['bleu4']:.1f}", f"{told['cider_d']:.2f}"]
        assert f"| of {title} | {' | '.join(cells)} | {told['exact']:.1f} |" in page
        for by in ("features", "pixels"):
            row = f"| of the nearest training picture by {by}, {title.partition(',')[0]} |"
            (line,) = (line for line in page.splitlines() if line.startswith(row))
            assert f" | {told[f'bleu4_nearest_{by}']:.1f} | " in line


def test_what_the_page_says_of_the_amazon_queen_is_the_records():
    root = MODELS[0].parents[1]
    record = record_of(root / "models" / "amazon-queen-dsd")
    measured = json.loads((root / "results" / "bench" / "queen.json").read_text("utf-8"))
    assert measured["weights_sha256"] == record["weights_sha256"]
    searched = measured["valid"]["searched"]
    chosen = min(searched, key=lambda one: one["wer"])
    assert measured["chosen"].items() <= chosen.items()
    assert chosen["lm_weight"] == max(one["lm_weight"] for one in searched) == 2
    assert chosen["word_score"] == min(one["word_score"] for one in searched) == 0
    greedy, best = (measured["test"][way]["wer"] for way in ("greedy", "searched"))
    assert greedy == pytest.approx(record["test"]["wer"], abs=0.006)
    assert best < 60
    dense, _, redense = (phase["valid"]["wer"] for phase in record["phases"])
    assert [phase["epochs"] for phase in record["phases"]] == [76, 12, 12]
    page = " ".join((root / "docs" / "recipes.md").read_text("utf-8").split())
    assert f"{greedy:.1f} % are wrong greedily, and {best:.1f} % with a trigram model" in page
    assert f"did not help: {dense:.1f} % before it, {redense:.1f} % behind it" in page


PAIRS = sorted({folder.name.removesuffix("-dense") for folder in MODELS if "-dense" in folder.name})


@pytest.mark.parametrize("name", PAIRS)
def test_a_studys_two_networks_stand_side_by_side_on_the_page(name):
    page = (MODELS[0].parents[1] / "docs" / "recipes.md").read_text("utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"| `models/{name}-*` |"))
    cells = line.strip("| ").split(" | ")
    for method, said in zip(("dense", "dsd"), cells[2:], strict=True):
        record = record_of(MODELS[0].parent / f"{name}-{method}")
        assert record["method"].partition("@")[0] == method
        assert record["seed"] == 0
        decimals = len(said.partition(".")[2])
        assert said == f"{record['test'][record['metric']['name']]:.{decimals}f}"
        card = (MODELS[0].parent / f"{name}-{method}" / "README.md").read_text("utf-8")
        assert "Does dense-sparse-dense" in card


@pytest.mark.network
@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_eval_finds_the_accuracy_that_record_and_card_state(folder, redense):
    record = record_of(folder)
    answer = redense("eval", folder, "--data", record["data"]["name"])
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    if record["recipe"] != "images":
        said = {line.split()[0]: float(line.split()[1]) for line in lines}
        metric = record["metric"]["name"]
        assert said[metric] == pytest.approx(record["test"][metric], abs=0.006)
        return
    off = 0.06 if record["options"]["model"] == "vgg-small-bn" else 0.006  # scored in bfloat16
    for number, line in zip((1, 5), lines, strict=True):
        name, share = line.split()[:2]
        assert name == f"top-{number}"
        assert float(share) == pytest.approx(record["test"][f"top{number}"], abs=off)
        assert f"of {record['data']['sizes']['test']:,} images" in line
