"""`redense.search`: what it finds, what it shares and spares, what it never does, and its
mistakes."""

import html
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import redense
from redense.recipes.schedule import read_plan
from redense.report.page import report
from redense.runs.folder import RunFolder
from redense.search.found import Cost
from redense.search.gate import NotConvergedError
from redense.search.space import in_words

ROOT = Path(__file__).parents[2]


def toy(run, gain=4.0):
    """A score that follows from the plan alone, with noise: best are random masks at 0.6."""
    held = [phase for phase in run.plan if phase.sparsity]
    written = [(phase.length, phase.sparsity, phase.lr, phase.mask) for phase in run.plan]
    score = 70 + random.Random(f"{run.seed} {written}").gauss(0, 0.2)
    if held:
        score += gain - 6 * abs(held[0].sparsity - 0.6) - 3 * (held[0].mask != "random")
    return {"valid": {"top1": score}, "test": lambda: {"top1": score - 1}}


def two_layers(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(run):
    noise = torch.Generator().manual_seed(7)
    points = torch.randn(60, 5, generator=noise)
    labels = (points.prod(1) > 0).long()
    model, optimizer = two_layers(run.seed)

    def accuracy(part):
        return float((model(points[part]).argmax(1) == labels[part]).float().mean())

    for _ in run.epochs(model, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model(points[:40]), labels[:40]).backward()
        optimizer.step()
        run.log(top1=accuracy(slice(40, 50)))
    return {
        "valid": {"top1": accuracy(slice(40, 50))},
        "test": lambda: {"top1": accuracy(slice(50, 60))},
    }


def search(function, out, **more):
    given = {"dense": 2, "epochs": 4, "trials": 4, "seeds": 2, "confirm": 2, "anyway": True}
    return redense.search(function, out=out, **(given | more))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """One search of a real network, for the tests that only read it."""
    folder = tmp_path_factory.mktemp("network") / "search"
    return search(train, folder, trials=9)


def runs_of(folder):
    return sorted(file.parent.name for file in folder.glob("*--*/record.json"))


def test_a_plan_that_helps_is_found_and_confirmed_on_fresh_seeds(tmp_path):
    found = search(toy, tmp_path / "search", epochs=12, trials=16, confirm=6, seeds=3)
    assert {phase.mask for phase in found.plan if phase.sparsity} == {"random"}
    assert found.study.summary.verdicts["plan"].outcome == "helps"
    assert found.verdict.startswith("Use the plan")
    assert "nothing held, the plan gains +" in found.verdict
    assert found.verdict.count("its zeros help over its own rates") == 1
    assert {record["seed"] for record in found.study.records} == set(range(6))
    assert not any(phase.sparsity for phase in found.control)


def test_a_plan_whose_rates_alone_do_as_well_is_told_from_its_zeros(tmp_path):
    def by_its_course(run):
        course = any(phase.name.startswith("sparse") for phase in run.plan)
        score = 70 + course + random.Random(run.seed).gauss(0, 0.2)
        return {"valid": {"top1": score}, "test": lambda: {"top1": score}}

    found = search(by_its_course, tmp_path / "search", epochs=12, trials=8, confirm=8)
    summary = found.study.summary
    assert summary.verdicts["plan"].outcome == "helps"
    assert summary.scores["matched"] == summary.scores["plan"]
    assert found.verdict.startswith("The plan is ahead of the best tuned control, but it is not")
    assert "Its phases and rates with nothing held are ahead too" in found.verdict
    assert "its zeros make no measurable difference" in found.verdict
    page = report([found.folder], tmp_path / "page.html").read_text("utf-8")
    assert "the plan's matched control" in html.unescape(page)


@pytest.mark.parametrize("left", [(), (0,)])
def test_where_the_matched_control_fails_the_verdict_does_without(network, left):
    alone = [
        record
        for record in network.study.records
        if record["method"] != "matched" or record["seed"] in left
    ]
    study = replace(network.study, records=tuple(alone))
    assert "matched control" in network.verdict
    found = replace(network, study=study)
    assert "matched control" not in found.verdict
    assert found.as_data()["beside_matched"] is None


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(
    ("matched", "advice"),
    [
        (-1.0, "Use the plan: beside the best tuned control it helps."),
        (1.0, "Its phases and rates with nothing held are ahead too"),
        (0.0, "Its phases and rates with nothing held are ahead too"),
        (None, "Whether its phases and rates alone are ahead too, these runs do not settle."),
    ],
)
def test_the_advice_weighs_the_plan_s_zeros_and_its_rates(network, matched, advice, higher):
    """A plan 2 points ahead of its control; how far the matched control is from the plan."""
    sign = 1 if higher else -1
    wavers = [0.1, -0.2, 0.3, 0.0, -0.1, 0.2, -0.3, 0.15]

    def score(method, seed):
        luck = wavers[seed] * (2 if method == "plan" else 1)
        behind = -10 * wavers[seed] if matched is None else matched
        ahead = {"plan": 2.0, "matched": 2.0 + behind, "control": 0.0}[method]
        return 50 + sign * (ahead + luck)

    first = network.study.records[0]
    records = [
        first
        | {
            "method": method,
            "seed": seed,
            "plan": [method],
            "test": {"top1": score(method, seed)},
            "metric": first["metric"] | {"higher_is_better": higher},
        }
        for method in ("plan", "matched", "control")
        for seed in range(8)
    ]
    study = replace(network.study, records=tuple(records))
    found = replace(network, study=study, higher_is_better=higher)
    assert advice in found.verdict.split("\n\n")[0]
    gains = found.as_data()["beside_matched"]["mean"]
    assert gains == pytest.approx(-(matched or 0.0), abs=0.5)
    assert f"the plan gains {gains:+.3g}" in found.verdict


def test_where_no_plan_helps_the_control_is_advised(tmp_path):
    def useless(run):
        return toy(run, gain=-1.0)

    found = search(useless, tmp_path / "search", epochs=12, trials=8, confirm=6)
    assert found.study.summary.verdicts["plan"].outcome != "helps"
    assert "Use the plan" not in found.verdict


def test_trials_start_from_the_shared_phase_and_alike_runs_are_trained_once(network):
    plans = [json.loads(file.read_text()) for file in network.folder.glob("trials/*/config.json")]
    assert {config["plan"][0]["name"] for config in plans} == {"dense"}
    assert {config["seed"] for config in plans} == {1000, 1001}
    parent = json.loads((network.folder / "trials/dense--1000/record.json").read_text())
    for file in network.folder.glob("trials/*--1000/record.json"):
        record = json.loads(file.read_text())
        first = [row["seconds"] for row in record["history"][:2]]
        assert first == [row["seconds"] for row in parent["history"]]
    assert network.cost.trained < network.cost.in_full * 0.7


def test_a_search_too_small_to_spare_anything_says_so(network):
    assert "spared" in str(network)
    tiny = replace(network, cost=Cost(trained=10, in_full=8))
    assert "a search this small spares nothing" in str(tiny)
    assert "-25 %" not in str(tiny)


@pytest.mark.parametrize(("promised", "said"), [(9.0, True), (-9.0, False)])
def test_luck_is_spoken_of_where_less_was_confirmed_than_promised(network, promised, said):
    best = replace(network.best, scores=dict.fromkeys(network.best.scores, promised))
    assert ("in part by luck" in replace(network, best=best).verdict) == said


def test_a_search_says_what_its_own_epochs_took(network):
    took = [
        rows[-1]["seconds"] - rows[1]["seconds"] * (not file.parent.name.startswith("dense"))
        for file in network.folder.glob("trials/*/record.json")
        for rows in [json.loads(file.read_text())["history"]]
    ]
    assert network.cost.seconds == pytest.approx(sum(took))
    long = replace(network, cost=replace(network.cost, seconds=7230.0))
    assert "The epochs took 120 minutes of one core." in str(long)


def test_the_test_split_is_never_read_in_the_search_and_the_contrast_is_frozen_before(tmp_path):
    def watched(run):
        frozen = Path(run.folder).parents[1] / "frozen.json"

        def test():
            assert frozen.exists(), "the test split was read before the contrast was frozen"
            assert run.seed < 1000, "the test split was read with a seed of the search"
            return {"top1": float(len(run.plan))}

        return {"valid": {"top1": float(len(run.plan))}, "test": test}

    found = search(watched, tmp_path / "search")
    assert not found.study.failed
    frozen = json.loads((tmp_path / "search/frozen.json").read_text())
    assert frozen["seeds"] == [0, 1]
    assert frozen["metric"] == "top1"
    assert frozen["plan"]["plan"] == found.plan.to_records()
    assert frozen["alpha"] == 0.05
    assert "commit" in frozen


def test_the_same_call_reads_a_finished_search_and_another_is_refused(network):
    before = runs_of(network.folder / "trials")

    again = search(train, network.folder, trials=9)
    assert runs_of(network.folder / "trials") == before
    assert str(again) == str(network)
    file = network.folder / "search.json"
    whole = file.read_text()
    older = json.loads(whole)
    del older["space"]["shrink"]  # of a version that did not know it
    file.write_text(json.dumps(older))
    frozen = network.folder / "frozen.json"
    contrast = json.loads(frozen.read_text())
    del contrast["plan"]["shrink"], contrast["control"]["shrink"]
    frozen.write_text(json.dumps(contrast))
    assert str(search(train, network.folder, trials=9)) == str(network)
    file.write_text(whole)
    with pytest.raises(ValueError, match=r"other settings: trials was 9, now 10"):
        search(train, network.folder, trials=10)


def test_both_sides_get_as_many_trials_and_weight_decay_reaches_both(network):
    sides = [one.side for one in network.tried]
    assert sides.count("plan") == sides.count("control") == 9
    for side in ("plan", "control"):
        factors = {one.method.decays[-1] for one in network.tried if one.side == side}
        assert len(factors) > 3
        assert all(one.method.decays[0] == 1 for one in network.tried)
    scored = {one.choices["scored"] for one in network.tried if one.side == "control"}
    assert len(scored) > 1


def test_the_plan_file_is_one_for_train(network):
    assert read_plan(network.folder / "plan.toml") == network.plan
    assert read_plan(network.folder / "control.toml") == network.control
    matched = read_plan(network.folder / "matched.toml")
    assert [phase.lr for phase in matched.phases] == [phase.lr for phase in network.plan.phases]
    assert not any(phase.sparsity for phase in matched.phases)
    assert "nothing held matched.toml beside it" in str(network)


def test_the_trials_are_judged_on_the_test_split_when_all_is_over(network):
    stored = json.loads((network.folder / "budget.json").read_text())
    assert stored["metric"] == "test top1"
    assert list(stored["curves"]["plan"]) == ["1", "2", "5", "8"]
    usual = next(one for one in network.tried if one.side == "control" and one.number == 0)
    name = next(network.folder.glob("trials/control-*--1000/test.json")).parent
    assert usual.scores
    again = redense.Run(RunFolder(name), quiet=True)
    assert train(again)["test"]() == json.loads((name / "test.json").read_text())
    assert {file.name for file in network.folder.glob("*.png")} == {"budget.png", "choices.png"}
    assert network.budget.sentence in str(network)


def test_the_confirmations_page_judges_against_the_tuned_control(network, tmp_path):
    page = network.study.report(tmp_path / "page.html").read_text()
    assert "minus control" in page
    assert "Against the dense net" not in page
    assert "no method" not in page


def test_the_page_of_a_search_has_its_verdict_pictures_and_trials(network, tmp_path):
    page = report([network.folder], tmp_path / "page.html").read_text("utf-8")
    text = html.unescape(page)
    assert "Does the best plan beat the best tuned control?" in text
    for words in network.verdict.split("\n\n"):
        assert words in text
    assert network.budget.sentence in text
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    budget = figures["g0-search-budget"]["data"]
    assert [trace["name"] for trace in budget] == ["plans", "controls"]
    assert budget[0]["x"] == ["0", "1", "2", "5", "8"]
    assert budget[0]["y"] == [network.budget.usual["plan"], *network.budget.curves["plan"].values()]
    drawn = [trace for trace in figures["g0-score"]["data"] if "name" in trace]
    colours = {trace["name"]: trace["marker"]["color"] for trace in drawn}
    assert [trace["line"]["color"] for trace in budget] == [colours["plan"], colours["control"]]
    given_up, in_full = figures["g0-search-sparsity"]["data"]
    plans = [one for one in network.tried if one.side == "plan" and one.scores]
    assert len(given_up["x"]) + len(in_full["x"]) == len(plans)
    assert sorted(in_full["y"]) == sorted(one.score for one in plans if one.in_full)
    assert {"g0-search-mask", "g0-search-passes", "g0-search-layers"} <= set(figures)
    best = network.ranked("plan")[0]
    assert text.index("The best of 9 plans") < text.index(in_words(best.choices))


def test_layers_are_those_of_the_network(network):
    held = {one.method.include for one in network.tried if one.side == "plan"}
    assert held <= {(), ("2.weight", "4.weight")}


def test_two_workers_search_as_one_does(tmp_path):
    found = search(train, tmp_path / "search", jobs=2)
    assert [one.side for one in found.tried].count("plan") == 4
    assert not found.study.failed


def test_early_stopping_in_the_shared_phase_draws_no_more_trials_to_itself(tmp_path, capsys):
    """Its score is the same whatever else is drawn, and the best of all here."""

    def falls(run):
        model = nn.Linear(20, 20)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for epoch in run.epochs(model, optimizer):
            optimizer.zero_grad()
            model(torch.ones(1, 20)).square().sum().backward()
            optimizer.step()
            run.log(top1=-float(epoch))
        return {"top1": 5.0 if run.config.select == "best" else float(-len(run.plan))}

    found = search(falls, tmp_path / "search", trials=12, anyway=True)
    controls = [one for one in found.tried if one.side == "control"]
    ways = Counter(one.choices["scored"] for one in controls)
    assert [one.kept_shared for one in controls].count(True) == ways["best epoch"] <= 2
    assert min(ways["last epoch"], ways["averaged"]) >= 4
    assert found.best_control.choices["scored"] == "best epoch"
    assert "an epoch of the shared phase" in capsys.readouterr().err


def test_a_trial_that_fails_or_diverges_is_a_bad_one_and_is_told(tmp_path):
    def fails(run):
        if any(phase.mask == "random" and phase.sparsity for phase in run.plan):
            raise RuntimeError("out of memory")
        if any(phase.mask == "global" and phase.sparsity for phase in run.plan):
            return float("nan")
        return toy(run)

    found = search(fails, tmp_path / "search", trials=8)
    failed = [one for one in found.tried if one.error]
    assert any("out of memory" in one.error for one in failed)
    assert {phase.mask for phase in found.plan if phase.sparsity} == {"magnitude"}
    assert len(found.tried) == 16


def test_a_training_that_is_not_converged_is_held_up(tmp_path):
    def grows(run):
        return float(len(run.plan)) + 0.1 * (run.seed % 2)

    with pytest.raises(NotConvergedError, match=r"--dense 6"):
        search(grows, tmp_path / "a", anyway=False)
    assert search(grows, tmp_path / "a", anyway=True).plan


@pytest.fixture
def start(tmp_path):
    """A process that searches in tmp_path/search, pausing so long in each run; it logs each run
    that it begins and prints how many trials there are and which plan was found."""
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_search\n"
        "def slowly(run):\n"
        "    with open(sys.argv[2], 'a') as log: log.write(f'{run.folder.name}\\n')\n"
        "    time.sleep(float(sys.argv[3]))\n"
        "    return test_search.toy(run)\n"
        "found = test_search.search(slowly, sys.argv[1], epochs=8, trials=5)\n"
        "print(len(found.tried), found.plan)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def started(pause):
        command = [sys.executable, script, tmp_path / "search", tmp_path / "log", pause]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return started


def test_a_killed_search_goes_on_without_losing_or_repeating_a_trial(start, tmp_path):
    process = start("0.3")
    deadline = time.monotonic() + 120
    while len(runs_of(tmp_path / "search/trials")) < 7 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    finished = runs_of(tmp_path / "search/trials")
    assert len(finished) >= 7
    assert start("0").communicate(timeout=120)[0].startswith("10 ")
    begun = (tmp_path / "log").read_text().split()
    assert {name: begun.count(name) for name in finished} == dict.fromkeys(finished, 1)


def test_several_processes_share_a_search(start, tmp_path):
    processes = [start("0.2"), start("0.2")]
    answers = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    assert answers[0].startswith("10 ")
    begun = (tmp_path / "log").read_text().split()
    trained = runs_of(tmp_path / "search/trials") + runs_of(tmp_path / "search/confirm")
    assert sorted(begun) == sorted(trained)  # each of them once


WRONG = {
    "dense": ({"dense": -1}, "dense must be a whole number of at least 0"),
    "epochs": ({"epochs": 1}, "epochs must be a whole number of at least 2"),
    "trials": ({"trials": 0}, "trials must be a whole number of at least 1"),
    "seeds": ({"seeds": 2.5}, "seeds must be a whole number of at least 1, got 2.5"),
    "confirm": ({"confirm": 1}, "confirm must be a whole number of at least 2"),
    "jobs": ({"jobs": 0}, "jobs must be a whole number of at least 1"),
    "space": ({"space": {"sparsity": 0.5}}, "space must be a redense.Space"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_searched_is_refused_before_any_training(tmp_path, name):
    wrong, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        search(toy, tmp_path / "search", **wrong)
    assert not (tmp_path / "search").exists()


def test_a_function_that_fails_from_the_start_is_named(tmp_path):
    def broken(run):
        raise RuntimeError("no data")

    with pytest.raises(ValueError, match="nothing to search: RuntimeError: no data"):
        search(broken, tmp_path / "search")
    with pytest.raises(TypeError, match="one argument"):
        search(lambda: 1.0, tmp_path / "search")


def test_a_search_from_a_trained_network_scores_it_as_it_came(tmp_path):
    found = search(train, tmp_path / "search", dense=0, trials=3)
    came = json.loads((tmp_path / "search/trials/dense--1000/record.json").read_text())
    assert came["plan"] == []
    assert len(found.plan) == 4
    usual, *drawn = (one for one in found.tried if one.side == "control")
    assert usual.method.shrink == 1
    assert all(one.method.shrink == one.choices["shrink"] < 1 for one in drawn)
    assert all(one.method.shrink == 1 for one in found.tried if one.side == "plan")


def unlogged(run):
    """`train` without a score of each epoch: nothing that early stopping could stop by."""
    run.log = lambda **scores: None
    return train(run)


def test_without_scores_to_stop_by_no_control_stops_early_and_the_answer_says_so(tmp_path, capfd):
    space = redense.Space(sparsity=(0.3, 0.5), masks=("magnitude",))
    few = {"trials": 5, "seeds": 1, "confirm": 2, "space": space}
    asked = {"dense": 1, "epochs": 2, "anyway": True, **few}
    found = redense.search(unlogged, **asked, out=tmp_path / "found")
    assert not any(one.error for one in found.tried)
    ways = {one.choices["scored"] for one in found.tried if one.side == "control"}
    assert "best epoch" not in ways
    said = "Early stopping is not among the controls: the function logs no score to stop by"
    assert said in capfd.readouterr().err
    assert said in (tmp_path / "found" / "summary.txt").read_text()
    assert said in " ".join(json.loads((tmp_path / "found" / "found.json").read_text())["said"])
