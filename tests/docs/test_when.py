"""docs/when.md says what the committed records say."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest
from matplotlib.image import imread

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the package

from benchmarks.when import (
    RESULTS,
    SEARCHES,
    STUDIES,
    TUNED,
    _interval,
    _paired,
    committed,
    draw,
    searches,
    tables,
)
from redense.recipes import RECIPES
from redense.recipes.images.models import SmallVGGNorm
from redense.recipes.schedule import Schedule
from redense.search.space import SIDES
from redense.study.folder import records
from redense.study.summary import summarize_records

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "when.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
STUDIED = [
    file
    for file in sorted(RESULTS.glob("*/frozen.json"))
    if not (file.parent / "search.json").exists()  # a search freezes by itself
]


@pytest.fixture(scope="module")
def regimes():
    return committed()


def test_its_tables_are_made_of_the_records(regimes):
    assert tables(list(regimes.values())) in PAGE


def test_every_committed_study_stands_in_them(regimes):
    assert set(regimes) == {file.parent.name for file in RESULTS.glob("*/study.json")}
    assert set(regimes) <= set(STUDIES)


def test_a_row_is_a_plain_computation_over_paired_seeds(regimes):
    scores = {
        (record["method"], record["seed"]): record["test"]["top1"]
        for record in records(RESULTS / "images")
    }
    seeds = range(12)
    (row,) = (row for row in regimes["images"].rows if row.plan == "dsd")
    gains = [scores["dsd", seed] - scores["lower_lr", seed] for seed in seeds]
    assert row.to_matched.mean == pytest.approx(sum(gains) / 12)
    means = {name: sum(scores[name, seed] for seed in seeds) / 12 for name, _ in scores}
    assert row.score == pytest.approx(means["dsd"])
    assert means[row.best] == max(means[name] for name in ("lower_lr", "longer", "swa"))
    assert row.to_best.mean == pytest.approx(means["dsd"] - means[row.best])


def test_the_paper_s_plan_has_won_where_the_page_says(regimes):
    """The page's first sentences."""
    plans = [row for one in regimes.values() for row in one.rows if row.plan.startswith("dsd")]
    won = {row.study: row for row in plans if row.to_matched.interval[0] > 0}
    assert set(won) == {"vgg-noise40"}
    row = won["vgg-noise40"]
    assert f"by {row.to_matched.mean:.2f} points, where 40 %" in " ".join(PAGE.split())
    assert row.best == "early_stop"
    assert f"early stopping is {-row.to_best.mean:.2f} points ahead" in " ".join(PAGE.split())
    (clean,) = (one for one in plans if (one.study, one.plan) == ("vgg-clean", "dsd"))
    assert f"difference is {clean.to_matched.mean:.2f} points, not" in " ".join(PAGE.split())
    assert f"| {clean.to_matched.mean:+.2f} points of accuracy, not measurable | 12 |" in README
    scores = regimes["vgg-noise40"].summary.scores
    gains = [scores["early_stop"][seed] - scores["lower_lr"][seed] for seed in range(12)]
    said = f"| {row.to_matched.mean:+.1f} points of accuracy: it helps; early stopping gains "
    assert f"{said}{sum(gains) / 12:.1f} | 12 |" in README


def test_what_the_page_says_of_relearn_is_the_records(regimes):
    study = regimes["vgg-noise40"]
    scores = study.summary.scores
    (row,) = (row for row in study.rows if row.plan == "relearn")
    assert f"{row.to_matched.mean:.1f} in `vgg-noise40`" in PAGE
    dead = [seed for seed in range(12) if max(scores[name][seed] for name in scores) < 11]
    assert len(dead) == 1
    lost, *others = sorted(value for seed, value in scores["relearn"].items() if seed not in dead)
    said = f"({lost:.1f} where the others have {others[0]:.0f} to {others[-1]:.0f})"
    assert said in " ".join(PAGE.split())
    (clean,) = (row for row in regimes["vgg-clean"].rows if row.plan == "relearn")
    said = (
        f"costs {-clean.to_matched.mean:.1f} points, while its loss is {-clean.loss.mean:.2f} lower"
    )
    assert said in " ".join(PAGE.split())


def test_the_story_of_the_matched_control_is_the_record_s(regimes):
    summary = regimes["warm-start"].summary
    means = {name: sum(of.values()) / len(of) for name, of in summary.scores.items()}
    plan, control = (means[name] - means["dense"] for name in ("dsd", "lower_lr"))
    readme, page = " ".join(README.split()), " ".join(PAGE.split())
    assert f"made it {plan:.1f} points better, over 12 seeds" in readme
    beside = summary.comparison.to_baseline["dsd"]
    assert beside.holm_p < 0.01
    assert f"p = {beside.holm_p:.3f}, which looks like proof" in readme
    assert f"nothing held made it {control:.1f} points better" in readme
    said = f"it is {plan:.2f} points ahead of the network that it started from"
    assert f"{said}, and its matched control {control:.2f}" in page


def test_where_relearn_costs_is_the_records(regimes):
    of = {name: {row.plan: row for row in regime.rows} for name, regime in regimes.items()}
    page = " ".join(PAGE.split())
    gain = of["vgg-noise20"]["relearn"].to_matched.mean
    assert f"{gain:.1f} with half as many wrong labels" in page
    warm, fine = (-of[name]["relearn"].to_matched.mean for name in ("warm-start", "fine-tune"))
    assert f"(`warm-start`) {warm:.1f} points, a fine-tuned one (`fine-tune`) {fine:.1f}" in page
    plans = [of[name]["dsd"].to_matched for name in ("warm-start", "fine-tune")]
    assert all(low < 0 < high for low, high in (plan.interval for plan in plans))
    warm, fine = (plan.mean for plan in plans)
    assert f"| {warm:+.1f} and {fine:+.1f} points, not measurable | 12 |" in README


def test_the_short_answer_is_the_records(regimes):
    of = {name: {row.plan: row for row in regime.rows} for name, regime in regimes.items()}

    def gains(*studies):
        return [of[study]["dsd"].to_matched for study in studies]

    right = gains("images", "images-converged", "vgg-clean", "fashion-mnist", "fashion-mnist-24")
    assert all(low < 0 < high for low, high in (one.interval for one in right))
    least, most = min(one.mean for one in right), max(one.mean for one in right)
    assert f"labels right | {least:+.2f} to {most:+.2f} points, not measurable |" in PAGE
    twenty, forty = gains("vgg-noise20", "vgg-noise40")
    assert f"by heart | {twenty.mean:+.2f} to {forty.mean:+.2f} points | early stopping" in PAGE
    warm, tuned = gains("warm-start", "fine-tune")
    assert f"another task | {warm.mean:+.2f} and {tuned.mean:+.2f} points, not" in PAGE
    words = [row for name in ("captions-converged", "digits-12") for row in of[name].values()]
    assert all(row.to_matched.mean < 0 for row in words)


def test_a_tuned_control_meets_the_plans_of_the_study_it_was_tuned_for(regimes):
    for study, search in TUNED.items():
        asked = json.loads((RESULTS / search / "search.json").read_text("utf-8"))
        kept = records(RESULTS / study)
        same = ("data", "model", "train_images", "label_noise", "batch", "lr", "weight_decay")
        options = kept[0]["options"]
        assert {name: options.get(name) for name in same} == {
            name: asked["options"].get(name) for name in same
        }
        row = next(row for row in regimes[study].rows if row.plan.startswith("dsd"))
        metric = kept[0]["metric"]["name"]
        plan = {one["seed"]: one["test"][metric] for one in kept if one["method"] == row.plan}
        control = confirmed(search)[1]["control"]
        assert plan.keys() == control.keys()
        sign = 1 if kept[0]["metric"]["higher_is_better"] else -1
        gains = [sign * (plan[seed] - control[seed]) for seed in plan]
        assert row.to_tuned.mean == pytest.approx(mean(gains))
        epochs = [sum(phase["length"] for phase in one["plan"]) for one in kept]
        more = asked["dense"] + asked["epochs"] - max(epochs)
        assert more == (20 if study == "vgg-clean" else 0)
    assert "(of `vgg-clean` with 20 epochs more)" in " ".join(PAGE.split())


def test_the_pictures_are_drawn_of_the_records(regimes, tmp_path):
    draw(regimes.values(), tmp_path)
    for name in ("when.png", "when-budgets.png"):
        mine, committed_one = (imread(folder / name) for folder in (tmp_path, ROOT / "docs"))
        assert mine.shape == committed_one.shape
        assert abs(mine - committed_one).mean() < 0.002  # fonts are drawn a little otherwise
        assert f"({name})" in PAGE


def test_a_network_that_is_trained_out_gains_nothing(regimes):
    study = regimes["images-converged"]
    plan, relearn = (
        next(row for row in study.rows if row.plan == name) for name in ("dsd", "relearn")
    )
    low, high = plan.to_matched.interval
    assert low < 0 < high
    page = " ".join(PAGE.split())
    assert f"(`images-converged`) {plan.to_matched.mean:.2f}, and in no other" in page
    said = f"epochs) | {plan.to_matched.mean:+.2f} points, not measurable; averaging, tuned, is "
    assert said + f"{-plan.to_tuned.mean:.1f} ahead | 12 |" in README
    assert f"(`images-converged`) {-relearn.to_matched.mean:.1f}, captions that" in page
    of_relearn = [row for one in regimes.values() for row in one.rows if row.plan == "relearn"]
    clean = [row for row in of_relearn if row.study not in ("vgg-noise20", "vgg-noise40")]
    assert len(clean) == 5
    assert all(row.loss.mean < 0 and row.to_matched.mean < 0 for row in clean)


def test_trained_out_captions_are_the_records(regimes):
    of = {name: {row.plan: row for row in regime.rows} for name, regime in regimes.items()}
    captions, page = of["captions-converged"], " ".join(PAGE.split())
    paper, half = captions["dsd@0.8"], captions["dsd@0.5"]
    assert paper.to_matched.interval[1] < 0
    assert f"loses {-paper.to_matched.mean:.1f} BLEU-4 by the paper's own setting" in page
    assert f"its loss is {-paper.loss.mean:.2f} nats a word lower" in page
    assert half.to_matched.interval[0] < 0 < half.to_matched.interval[1]
    said = (
        f"loss is {-half.loss.mean:.2f} lower and the {-half.to_matched.mean:.1f} points of BLEU-4"
    )
    assert said in page
    assert f"| {paper.to_matched.mean:.1f} BLEU-4: it hurts, at a loss that is" in README
    assert f"that is {-paper.loss.mean:.2f} lower | 12 |" in README
    relearn = captions["relearn"].to_matched.mean
    assert f"(`captions-converged`) {-relearn:.1f} BLEU-4." in page


def test_what_the_page_says_of_spoken_digits_is_the_record(regimes):
    study = regimes["digits-12"]
    (row,) = study.rows
    low, high = row.to_matched.interval
    assert low < 0 < high
    assert study.is_trained_out
    assert row.best == "swa"
    assert study.summary.choice.candidates == ("swa",)
    averaged = mean(study.summary.scores["swa"].values())
    page = " ".join(PAGE.split())
    said = f"(`digits-12`) have {-row.to_matched.mean:.2f} points more word errors at the paper's"
    assert f"{said} rates, not measurable, and {-row.to_best.mean:.2f} more than the" in page
    assert f"(`swa`), whose word errors are {averaged:.1f} % and which every other" in page
    fewer = f"averaging has {-row.to_best.mean:.1f} fewer | 12 |"
    said = f"| {-row.to_matched.mean:+.1f} points of word errors, not measurable; {fewer}"
    assert said in README


def test_what_the_page_says_of_deepspeech_1_is_the_record(regimes):
    study = regimes["digits-deepspeech1"]
    (row,) = study.rows
    words = -row.to_matched.mean
    assert row.to_matched.interval[0] < 0 < row.to_matched.interval[1]
    assert not study.is_trained_out
    assert row.best == "swa"
    scores = {name: mean(of.values()) for name, of in study.summary.scores.items()}
    said = (
        f"has {words:.2f} more, not measurable, and {-row.to_best.mean:.2f} more than the average"
    )
    page = " ".join(PAGE.split())
    assert said in page
    assert f"are {scores['swa']:.1f} %; its dense phase, at {scores['dense']:.1f} %, had" in page
    said = (
        f"{words:+.1f} points, not measurable; averaging has {-row.to_best.mean:.1f} fewer | 12 |"
    )
    assert said in README


def test_what_the_page_says_of_deepspeech_1_trained_out_is_the_record(regimes):
    study = regimes["digits-deepspeech1-long"]
    (row,) = study.rows
    fewer = row.to_matched.mean
    assert row.to_matched.interval[0] < 0 < row.to_matched.interval[1]
    assert study.is_trained_out
    assert row.best == "swa"
    scores = {name: mean(of.values()) for name, of in study.summary.scores.items()}
    assert abs(scores["dense"] - scores["lower_lr"]) < 0.05
    said = f"(`digits-deepspeech1-long`): {scores['dense']:.1f} %, from which the matched control "
    said += f"gains nothing; the plan has {fewer:.2f} fewer word errors than that, not measurable, "
    said += (
        f"and `swa`, at {scores['swa']:.1f} %, {-row.to_best.mean:.2f} fewer than the plan, not "
    )
    said += "measurable either; than the control it has measurably fewer"
    assert row.to_best.interval[0] < 0 < row.to_best.interval[1]
    assert study.summary.comparison.to_control["swa"].outcome == "helps"
    assert said in " ".join(PAGE.split())
    averaging = f"nor are the {-row.to_best.mean:.1f} that averaging has fewer"
    assert f"{-fewer:+.1f} points, not measurable, {averaging} | 12 |" in README


def test_the_default_beside_one_cosine_is_the_records(regimes):
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    for name, data in (
        ("images-default", "Fashion-MNIST, 10,000 pictures"),
        ("emoji-default", "colour drawings of emoji in 9 groups, 32 px"),
        ("images-default-first", "(Fashion-MNIST, 10,000 pictures)"),
    ):
        summary = regimes[name].summary
        mine, other = summary.scores["dsd"], summary.scores["longer"]
        assert mine.keys() == other.keys()
        means = [sum(scores.values()) / len(scores) for scores in (mine, other)]
        apart = _interval(_paired(mine, other, higher_is_better=True))
        assert f"| {data} | {means[0]:.2f} | {means[1]:.2f} | {apart} |" in page


def test_the_default_of_these_studies_is_the_recipe_s():
    asked = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", "")
    (flags,) = re.findall("^DEFAULT = (.*)$", asked, re.MULTILINE)
    pairs = dict(zip(flags.split()[::2], flags.split()[1::2], strict=True))
    default = Schedule(**RECIPES["images"].schedule)
    for name in ("dense", "sparse", "redense", "sparse_lr", "redense_lr"):
        assert float(pairs[f"--{name.replace('_', '-')}"]) == getattr(default, name)


def test_what_a_start_from_scratch_gives_is_the_records():
    text = " ".join(PAGE.split())

    def scores(study, method):
        kept = records(RESULTS / study)
        return {one["seed"]: one["test"]["top1"] for one in kept if one["method"] == method}

    went_on = scores("warm-start", "longer")
    long, short = (
        _paired(went_on, scores("warm-scratch", method), higher_is_better=True)
        for method in ("longer", "dense")
    )
    low, high = long.interval
    anew = _paired(went_on, scores("warm-scratch", "lower_lr"), higher_is_better=True)
    said = f"it is {anew.mean:.2f} [{anew.interval[0]:.2f}, {anew.interval[1]:.2f}], not measurable"
    assert said in text
    assert f"is {long.mean:.2f} points [{low:.2f}, {high:.2f}] ahead of one that learns" in text
    assert f"and {short.mean:.2f} ahead of one that has 16" in text


def test_the_network_of_fashion_mnist_that_comes_along_is_above_94_percent():
    kept = records(RESULTS / "fashion-mnist-24")
    scores = {(one["method"], one["seed"]): one["test"]["top1"] for one in kept}
    assert len(scores) == 9
    assert min(scores.values()) > 94
    dense = mean(score for (method, _), score in scores.items() if method == "dense")
    assert f"{dense:.1f} % on Fashion-MNIST after 24 epochs" in SmallVGGNorm.__doc__
    (row,) = committed()["fashion-mnist-24"].rows
    low, high = row.to_matched.interval
    page = " ".join((RESULTS.parent / "docs/recipes.md").read_text("utf-8").split())
    assert f"{row.to_matched.mean:+.2f} points [{low:.2f}, {high:.2f}] beside the same 36" in page


def confirmed(name):
    """(the contrast of a search's plan with its tuned control, each one's scores by seed)."""
    kept = records(RESULTS / name / "confirm")
    summary = summarize_records(kept, control="control", baseline="control")
    return summary.comparison.to_control["plan"], summary.scores


def test_the_searches_tables_are_made_of_their_records():
    assert searches() in PAGE
    assert set(SEARCHES) | {"search-label-noise-first"} == {
        file.parent.name for file in RESULTS.glob("*/found.json")
    }


@pytest.mark.parametrize("name", ["search-noise20", "search-noise40"])
def test_readme_tells_of_a_search_what_its_record_says(name):
    contrast, scores = confirmed(name)
    share = name.removeprefix("search-noise")
    (row,) = (line for line in README.splitlines() if f"{share} % wrong labels; what a" in line)
    said = {"helps": "it helps", "hurts": "it hurts"}.get(contrast.outcome, "not measurable")
    assert f"| {contrast.difference.mean:+.1f} points of accuracy" in row
    assert said in row
    assert row.endswith(f"| {len(scores['plan'])} |")


def test_what_the_page_says_of_searches_is_the_records():
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-noise20")
    assert contrast.outcome == "helps"
    assert f"It is {contrast.difference.mean:.2f} points ahead of the best of 24" in text
    untuned = {
        record["seed"]: record["test"]["top1"]
        for record in records(RESULTS / "vgg-noise20")
        if record["method"] == "early_stop"
    }
    ahead = _paired(scores["control"], untuned, higher_is_better=True).mean
    assert f"itself {ahead:.2f} ahead of early stopping" in text
    budget = json.loads((RESULTS / "search-noise20" / "found.json").read_text("utf-8"))["budget"]
    plans, controls = (budget["curves"][side] for side in ("plan", "control"))
    behind = {trials: controls[trials] - plans[trials] for trials in plans}
    assert f"expected {behind['1']:.1f} points behind, with ten it is ahead" in text
    assert min(behind[trials] for trials in ("1", "2", "5")) > 0 > behind["10"]
    winner = json.loads((RESULTS / "search-noise20" / "frozen.json").read_text("utf-8"))["plan"]
    held = [phase for phase in winner["plan"] if phase["sparsity"]]
    assert {(phase["mask"], phase["sparsity"], phase["lr"]) for phase in held} == {
        ("random", 0.35, 0.95)
    }
    assert (len(held), winner["weight_decay"][-1]) == (4, 13)
    assert all("classifier" in name for name in winner["include"])
    first, scores = confirmed("search-noise20-first")
    behind = -_paired(scores["control"], untuned, higher_is_better=True).mean
    assert f"seems {first.difference.mean:.2f} points ahead" in text
    assert f"it beat is {behind:.2f} points *behind* untuned" in text


def test_what_the_page_says_of_zeros_and_of_few_trials_is_the_records():
    text = " ".join(PAGE.split())

    def worth(name):
        _, scores = confirmed(name)
        return _paired(scores["plan"], scores["matched"], higher_is_better=True)

    forty, twenty, warm = map(worth, ("search-noise40", "search-noise20", "search-warm-start"))
    said = f"{forty.mean:.1f} points in `search-noise40`, {twenty.mean:.1f} in `search-noise20`"
    assert said in text
    assert warm.interval[0] < 0 < warm.interval[1]
    assert f"its own matched control is {-warm.mean:.2f} ahead of it" in text
    contrast, _ = confirmed("search-warm-start")
    assert f"{contrast.difference.mean:.2f} points ahead of the control that valid" in text
    _, scores = confirmed("search-warm-start")
    rates = _paired(scores["matched"], scores["control"], higher_is_better=True)
    assert rates.interval[0] > 0
    frozen = json.loads((RESULTS / "search-warm-start" / "frozen.json").read_text("utf-8"))
    plan = [(phase["sparsity"], phase["mask"], phase["lr"]) for phase in frozen["plan"]["plan"]]
    assert plan == [(0.3, "magnitude", 1.0), (0.0, "magnitude", 0.1)]
    kept = records(RESULTS / "warm-start")
    for name, method in (("plan", "dsd"), ("matched", "lower_lr"), ("", "longer")):
        same = {one["seed"]: one["test"]["top1"] for one in kept if one["method"] == method}
        assert not name or same == scores[name]
    assert f"which nobody tuned, scores {mean(same.values()):.2f}" in text
    lost = [-confirmed(name)[0].difference.mean for name in ("few-noise40", "few-vgg-noise40")]
    assert f"a good one: it lost by {lost[0]:.1f} points. In" in text
    assert f"In `few-vgg-noise40` it lost by {lost[1]:.1f}, which is not settled" in text
    assert confirmed("few-vgg-noise40")[0].outcome == "unclear"
    third, scores = confirmed("few-noise20")
    assert third.difference.p_value < 0.001
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True).mean
    control = json.loads((RESULTS / "few-noise20" / "frozen.json").read_text("utf-8"))["control"]
    assert control["average"] == "averaged"
    said = f"lost by {-third.difference.mean:.2f}, p < 0.001, to averaging at a low rate with "
    said += f"{control['weight_decay'][-1]:.0f} times the weight decay, though its zeros are worth "
    assert said + f"{zeros:.2f} beside its own rates" in text


def test_a_plan_that_wins_by_its_rates_alone_is_told_as_recorded():
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-vgg-noise40")
    ahead = contrast.difference.mean
    assert f"is {ahead:.2f} points ahead of the best of 24 tuned controls, p = 0.004" in text
    assert f"found a plan {ahead:.1f} points ahead whose zeros are worth nothing" in text
    assert contrast.difference.p_value == pytest.approx(0.004, abs=5e-4)
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True)
    assert zeros.interval[0] < 0 < zeros.interval[1]
    assert f"with nothing held are {zeros.mean:.2f} points behind it" in text
    said = f"found is {ahead:.1f} points ahead of the best tuned control, and minus its own matched"
    (row,) = (line for line in README.splitlines() if said in line)
    assert f"| {zeros.mean:+.1f} points, not measurable | {len(scores['plan'])} |" in row
    rates = _paired(scores["matched"], scores["control"], higher_is_better=True)
    assert rates.interval[0] > 0
    frozen = json.loads((RESULTS / "search-vgg-noise40" / "frozen.json").read_text("utf-8"))
    sparse, free = frozen["plan"]["plan"][1:3]
    decay = frozen["plan"]["weight_decay"][-1]
    said = f"{sparse['sparsity']} of the linear layers held, four passes at {sparse['lr']} and "
    assert said + f"{free['lr']} of the rate with {decay:.0f} times the weight decay" in text


def test_what_the_page_says_of_clean_labels_tuned_as_hard_is_the_record():
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-vgg-clean")
    found = contrast.difference
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True)
    assert zeros.interval[0] < 0 < zeros.interval[1]
    said = f"are {found.mean:.2f} points ahead of the best of 12 tuned controls, p = "
    said += f"{found.p_value:.3f}, and {zeros.mean:.2f} ahead of their own phases"
    assert said in text
    frozen = json.loads((RESULTS / "search-vgg-clean" / "frozen.json").read_text("utf-8"))["plan"]
    first = frozen["plan"][1]
    assert (first["mask"], first["sparsity"], len(frozen["plan"])) == ("random", 0.35, 1 + 2 * 4)
    assert frozen["weight_decay"][-1] == 13
    assert "random masks of 0.35 of the linear layers, four passes and 13 times" in text


def test_what_the_page_says_of_wrong_labels_on_drawings_is_the_record():
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-emoji-noise40")
    found = contrast.difference
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True)
    assert zeros.interval[0] < 0 < zeros.interval[1]
    frozen = json.loads((RESULTS / "search-emoji-noise40" / "frozen.json").read_text("utf-8"))
    assert frozen["control"]["select"] == "best"
    plan = frozen["plan"]
    sparse, free = plan["plan"][1:3]
    assert (sparse["mask"], len(plan["plan"])) == ("global", 1 + 2 * 6)
    assert plan["include"] == ["model.hidden.weight", "model.classifier.weight"]
    said = f"global magnitudes, {sparse['sparsity']} of the linear layers held, six passes at "
    said += f"{sparse['lr']} and {free['lr']} of the rate with {plan['weight_decay'][-1]:.0f} times"
    said += f" the weight decay are {found.mean:.2f} points ahead of the best of 24 tuned controls,"
    said += f" early stopping, p = {found.p_value:.3f}, and {zeros.mean:.2f} ahead of their own"
    assert said in text
    assert f"(`search-emoji-noise40`), one {found.mean:.1f} points ahead of which" in text


def test_what_the_page_says_of_tuned_digits_is_the_record(regimes):
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-digits")
    found = contrast.difference
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=False)
    assert zeros.interval[0] < 0 < zeros.interval[1]
    frozen = json.loads((RESULTS / "search-digits" / "frozen.json").read_text("utf-8"))
    assert [phase["lr"] for phase in frozen["control"]["plan"]] == [1, 1, 1]
    assert not frozen["control"]["weight_decay"]
    _, sparse, free = frozen["plan"]["plan"]
    assert (sparse["sparsity"], sparse["mask"]) == (0.5, "magnitude")
    said = (
        f"half of all weights held once at {sparse['lr']} of the rate and released at {free['lr']}"
    )
    said += f", with {frozen['plan']['weight_decay'][-1]} times the weight decay, has "
    said += f"{-found.mean:.2f} points more word errors, p = {found.p_value:.3f}, and "
    said += f"{-zeros.mean:.2f} more than its own phases and rates with nothing held"
    assert said in text
    (row,) = regimes["digits-deepspeech1"].rows
    said = f"(`digits-deepspeech1`) has {-row.to_tuned.mean:.2f} more than that control"
    assert said in text


def test_what_the_page_says_of_tuned_captions_is_the_record(regimes):
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-captions")
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True)
    frozen = json.loads((RESULTS / "search-captions" / "frozen.json").read_text("utf-8"))
    first = frozen["plan"]["plan"][1]
    assert (first["mask"], len(frozen["plan"]["plan"])) == ("random", 1 + 2 * 2)
    assert frozen["control"]["select"] == "best"
    said = f"random masks of {first['sparsity']} in two passes, which validation chose, are "
    said += f"{-contrast.difference.mean:.2f} BLEU-4 behind the tuned control, early stopping, p = "
    said += f"{contrast.difference.p_value:.3f}, and {-zeros.mean:.2f} behind their own"
    assert said in text
    untuned = mean(regimes["captions-converged"].summary.scores["lower_lr"].values())
    said = f"scores {untuned:.2f}, it {mean(scores['control'].values()):.2f}."
    assert said in text


def test_averaging_is_ahead_where_a_network_is_trained_out(regimes):
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-images-converged")
    assert contrast.outcome == "hurts"
    (row,) = (row for row in regimes["images-converged"].rows if row.plan == "dsd")
    frozen = json.loads((RESULTS / "search-images-converged" / "frozen.json").read_text("utf-8"))
    _, averaged = frozen["control"]["plan"]
    assert (frozen["control"]["average"], averaged["decay"]) == ("averaged", "constant")
    said = f"over {averaged['length']} epochs at {averaged['lr']} of the full rate, with "
    said += f"{frozen['control']['weight_decay'][-1]:.0f} times the weight decay, is "
    said += f"{-contrast.difference.mean:.2f} points ahead of the best of 12 plans, and "
    assert said + f"{-row.to_tuned.mean:.2f} ahead of the paper's." in text
    assert f"high rate, tuned: {-row.to_tuned.mean:.1f} points |" in PAGE
    found = json.loads((RESULTS / "search-images-converged" / "found.json").read_text("utf-8"))
    budget = found["budget"]
    plans, controls = ({"0": budget["usual"][side]} | budget["curves"][side] for side in SIDES)
    assert all(controls[trials] > plans[trials] for trials in plans)
    zeros = _paired(scores["plan"], scores["matched"], higher_is_better=True)
    low, high = zeros.interval
    assert f"zeros are worth {zeros.mean:.2f} [{low:.2f}, {high:.2f}]." in text


def test_what_the_page_says_of_a_tuned_fine_tuning_is_the_record():
    text = " ".join(PAGE.split())
    contrast, scores = confirmed("search-fine-tune")
    found = contrast.difference
    on_test = mean(scores["control"].values()) - mean(scores["matched"].values())
    assert f"validation and {on_test:.2f} on test" in text
    low, high = found.interval
    said = f"which is {found.mean:+.2f} [{low:.2f}, {high:.2f}] ahead of the best of 12 tuned"
    assert said in text
    folder = RESULTS / "search-fine-tune"
    frozen = json.loads((folder / "frozen.json").read_text("utf-8"))
    paper = json.loads((RESULTS / "search-warm-start" / "frozen.json").read_text("utf-8"))["plan"]
    sides = [
        [(one["sparsity"], one["lr"], one["mask"]) for one in plan["plan"]]
        for plan in (frozen["plan"], paper)
    ]
    assert sides[0] == sides[1]
    assert frozen["control"]["select"] == "best"  # early stopping
    assert frozen["control"]["shrink"] < 1
    assert max(frozen["control"]["weight_decay"]) < 1
    tried = json.loads((folder / "found.json").read_text("utf-8"))["tried"]
    full = [one["score"] for one in tried if one["side"] == "control" and one["in_full"]]
    (usual,) = (one["score"] for one in tried if one["side"] == "control" and one["number"] == 0)
    assert f"gained {max(full) - usual:.1f} points on validation" in text


def test_the_first_searches_on_wrong_labels_are_the_records():
    text = " ".join(PAGE.split())
    contrast, _ = confirmed("search-label-noise")
    assert f"`search-label-noise` the difference is {contrast.difference.mean:+.2f}" in text
    found = json.loads((RESULTS / "search-label-noise" / "found.json").read_text("utf-8"))
    first = RESULTS / "search-label-noise-first"
    tried = json.loads((first / "found.json").read_text("utf-8"))["tried"]
    ways = [one["choices"]["scored"] for one in tried if one["side"] == "control"]
    assert f"in {ways.count('best epoch')} of their {len(ways)} trials" in text
    earlier = confirmed("search-label-noise-first")[0].difference
    low, high = earlier.interval
    assert f"gave {earlier.mean:+.2f} [{low:.2f}, {high:.2f}]" in text
    best = [one["choices"] for one in found["tried"] if one["side"] == "plan"][:10]
    shares = [choices["sparsity"] for choices in best]
    assert {choices["mask"] for choices in best} == {"random"}
    methods = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert f"lay between {min(shares):g} and {max(shares):g}" in methods


@pytest.mark.parametrize("name", SEARCHES)
def test_make_asks_for_what_a_search_asked(name):
    target = "search" if name == "search-label-noise" else name
    kept = json.loads((RESULTS / name / "search.json").read_text("utf-8"))
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", f"results-{target}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("--jobs 2 ")[1].replace("\\\n", " ").split()
    asked = dict(zip(words[::2], words[1::2], strict=True))
    for flag in ("dense", "epochs", "trials", "seeds", "confirm"):
        assert asked[f"--{flag}"] == str(kept[flag])
    assert asked.get("--decay", "cosine") == kept.get("decay", "constant")
    for option in ("model", "train_images", "label_noise", "batch", "lr", "augment"):
        flag = f"--{option.replace('_', '-')}"
        if flag in asked:
            assert str(kept["options"][option]) == asked[flag]


@pytest.mark.parametrize("file", STUDIED, ids=lambda file: file.parent.name)
def test_a_frozen_contrast_names_its_seeds_and_how_it_was_chosen(file):
    frozen = json.loads(file.read_text("utf-8"))
    assert len(frozen["seeds"]) >= 12 or "had no time" in frozen["frozen"]
    assert any(word in frozen["chosen"] for word in ("validation", "untuned", "nothing was tuned"))
    assert {"contrast", "metric", "alpha", "command", "seen"} <= set(frozen)
