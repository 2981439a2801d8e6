"""`make results-*` trains anew, into a fresh folder, and gets the numbers that are committed; the
documents say what the committed records do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from redense.study.folder import records
from redense.study.summary import as_markdown, summarize_records

ROOT = Path(__file__).parents[2]
STUDIES = (ROOT / "docs" / "studies.md").read_text("utf-8")
TINY = json.loads((ROOT / "tests" / "tiny_results.json").read_text("utf-8"))


def make(folder, stripes, *arguments):
    done = subprocess.run(
        ["make", "-f", ROOT / "Makefile", "-o", ".venv/.ready", *arguments],
        cwd=folder,
        env=os.environ | {"REDENSE_DATA": str(stripes), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_is_made_again_beside_the_committed_one(tmp_path, stripes):
    (tmp_path / "runs" / "results-images-1").mkdir(parents=True)
    said = make(
        tmp_path,
        stripes,
        "results-images",
        f"BIN={Path(sys.executable).parent}",
        f"IMAGES={TINY['flags']}",
    )
    out = "runs/results-images-2"
    assert f"diff {out}/summary.md results/images/summary.md" in said
    assert (tmp_path / out / "summary.md").exists()
    assert not list((tmp_path / "runs" / "results-images-1").iterdir())
    records = {
        file.parent.name: json.loads(file.read_text()) for file in tmp_path.rglob("record.json")
    }
    assert set(records) == set(TINY["runs"])
    for name, scores in TINY["runs"].items():
        for metric, value in scores.items():
            assert records[name]["test"][metric] == pytest.approx(value, rel=0.05), name


COMMITTED = sorted(file.parent.name for file in (ROOT / "results").glob("*/study.json"))


@pytest.mark.parametrize("recipe", COMMITTED)
def test_every_committed_study_has_its_settings_in_the_makefile(recipe, tmp_path, stripes):
    assert shutil.which("make")
    said = make(tmp_path, stripes, "-n", f"results-{recipe}")
    flags = said.split("--jobs 2 ")[1].split(" &&")[0].replace("\\\n", " ").split()
    asked = dict(zip(flags[::2], flags[1::2], strict=True))
    folders = [path.name for path in (ROOT / "results" / recipe).glob("*--*")]
    seeds = {name.rpartition("--")[2] for name in folders}
    methods = {name.rpartition("--")[0].partition("@")[0] for name in folders}
    assert len(seeds) == int(asked["--seeds"])
    assert methods == set(asked["--methods"].split(","))
    kinds = (
        "dsd[-@]*0",
        "lower_lr-*0",
    )  # of the same phases; a study without a plan has the second
    kept = [
        file for kind in kinds for file in (ROOT / "results" / recipe).glob(f"{kind}/record.json")
    ]
    record = json.loads(kept[0].read_text())
    lengths = [str(phase["length"]) for phase in record["plan"]]
    before = [asked["--dense"]] if "--dense" in asked else []  # none from a trained network
    one_pass = [asked["--sparse"], asked["--redense"]]
    assert lengths == before + one_pass * int(asked.get("--passes", 1))


@pytest.mark.parametrize(
    ("recipe", "runs", "epochs"), [("images", 96, 16), ("captions", 72, 13), ("speech", 20, 8)]
)
def test_a_studys_table_is_what_its_committed_records_say(recipe, runs, epochs):
    kept = records(ROOT / "results" / recipe)
    assert len(kept) == runs
    assert {record["cost"]["epochs"] for record in kept if record["method"] != "dense"} == {epochs}
    text = as_markdown(summarize_records(kept))
    assert text == (ROOT / "results" / recipe / "summary.md").read_text("utf-8").strip()
    assert text in STUDIES
    if recipe == "speech":
        assert as_markdown(summarize_records(kept, metric="cer")) in STUDIES


@pytest.mark.parametrize(
    ("recipe", "method", "row"),
    [
        ("images", "dsd", "| {:+.2f} points of accuracy, not measurable | {} |"),
        (
            "captions-converged",
            "dsd@0.8",
            "| {:.1f} BLEU-4: it hurts, at a loss that is 1.03 lower | {} |",
        ),
        (
            "digits-12",
            "dsd",
            "| {:+.1f} points of word errors, not measurable; averaging has 1.1 fewer | {} |",
        ),
    ],
)
def test_readmes_line_on_when_it_helps_is_the_records(recipe, method, row):
    summary = summarize_records(records(ROOT / "results" / recipe))
    contrast = summary.comparison.to_control[method]
    hurts = recipe == "captions-converged"
    assert contrast.outcome == ("hurts" if hurts else "no measurable difference")
    sign = 1 if summary.higher_is_better else -1
    said = row.format(sign * contrast.difference.mean, contrast.difference.n)
    assert said in (ROOT / "README.md").read_text("utf-8")


def test_the_scores_without_skin_tone_are_the_records():
    found = {}
    for record in records(ROOT / "results/captions"):
        found.setdefault(record["method"], []).append(record["test"]["bleu4_without_skin_tone"])
    words = ", ".join(
        f"{sum(found[name]) / len(found[name]):.1f} ({name})"
        for name in ("dense", "lower_lr", "dsd@0.5")
    )
    words += f" and {sum(found['dsd@0.8']) / len(found['dsd@0.8']):.1f} (dsd@0.8)"
    assert words in " ".join(STUDIES.split())
