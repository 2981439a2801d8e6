"""A study that adds seeds until its verdict is clear: when it looks, and how often it is wrong."""

import numpy as np
import pytest

import redense
from redense.cli import main
from redense.study.compare import contrasts
from redense.study.looks import confidence, looks

PLAN = redense.dsd(1, 1, 1, 0.5)
METHODS = ("dense", "lower_lr", "dsd")


def first_verdicts(effect, level, *, studies=400, most=24):
    """The seeds at which each simulated study of two null methods and one with ``effect`` first
    finds something; 0 where it never does."""
    generator = np.random.default_rng(3)
    stops = []
    for runs in generator.normal(size=(studies, 3, most)):
        runs[0] += effect
        stops.append(next((n for n in looks(most) if finds(runs[:, :n], level)), 0))
    return np.array(stops)


def finds(runs, level):
    scores = {f"method {k}": dict(enumerate(row)) for k, row in enumerate(runs.tolist())}
    against = contrasts(scores, "method 2", confidence=level)
    return any(contrast.outcome in ("helps", "hurts") for contrast in against.values())


def test_all_looks_together_find_what_is_not_there_in_at_most_5_percent():
    stops = first_verdicts(0.0, confidence(24))
    for share, seeds in enumerate(looks(24), start=1):
        wrong = np.mean((stops > 0) & (stops <= seeds))
        assert wrong <= 0.05 * share / 4 + 0.01, seeds  # 2 standard errors at most
    assert np.mean(stops > 0) <= 0.05


def test_looking_as_often_at_5_percent_each_would_be_wrong_more_often():
    assert np.mean(first_verdicts(0.0, 0.95) > 0) > 0.07


def test_a_clear_effect_ends_at_the_first_look_and_a_small_one_later():
    clear, small = (first_verdicts(size, confidence(24), studies=100) for size in (3.0, 1.2))
    assert np.mean(clear == 10) > 0.95
    assert 10 < np.mean(small[small > 0]) < 24


def better(size):
    """A function that trains nothing; what it scores is the plan's, ``size`` spreads apart."""

    def score(run):
        held = any(phase.sparsity for phase in run.plan)
        luck = np.random.default_rng([run.seed, held, len(run.plan)]).normal()
        return size * held + luck

    return score


def seeds_of(study):
    return sorted({row["seed"] for row in study.scores})


def test_seeds_are_added_until_the_verdict_is_clear(tmp_path):
    given = {"seeds": "auto", "most": 20, "methods": METHODS}
    clear = redense.prove(better(20), PLAN, out=tmp_path / "clear", **given)
    assert seeds_of(clear) == list(range(10))
    assert clear.summary.verdicts["dsd"].outcome == "helps"
    assert "98.75 % interval" in clear.verdict
    assert "judged at 10, 13, 17 or 20 seeds" in clear.verdict
    null = redense.prove(better(0), PLAN, out=tmp_path / "null", **given)
    assert seeds_of(null) == list(range(20))
    known = redense.prove(better(0), PLAN, out=tmp_path / "known", within=9.0, **given)
    assert seeds_of(known) == list(range(10))


def test_a_grown_study_is_read_as_it_was_judged_and_goes_on_with_its_own_most_only(tmp_path):
    given = {"methods": METHODS, "out": tmp_path / "study"}
    study = redense.prove(better(20), PLAN, seeds="auto", most=20, **given)
    page = study.report().read_text("utf-8")
    assert '"confidence":0.9875' in page
    assert "98.75 % interval" in page
    again = redense.prove(better(20), PLAN, seeds="auto", most=20, **given)
    assert again.scores == study.scores
    with pytest.raises(ValueError, match="most was 20, now 40"):
        redense.prove(better(20), PLAN, seeds="auto", most=40, **given)
    with pytest.raises(ValueError, match="most was 20, now None"):
        redense.prove(better(20), PLAN, seeds=30, **given)


def test_what_is_no_limit_is_refused_before_any_training(tmp_path):
    with pytest.raises(ValueError, match="most must be a whole number of at least 10 seeds, got 5"):
        redense.prove(better(0), PLAN, seeds="auto", most=5, out=tmp_path / "study")
    with pytest.raises(ValueError, match="goes with seeds='auto'"):
        redense.prove(better(0), PLAN, within=0.5, out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_the_command_says_the_most_and_when_it_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def train(run):\n    return len(run.plan) + 0.0\n")
    flags = ("--seeds", "auto", "--most", "20", "--methods", "dense,lower_lr,dsd", "--dry-run")
    assert main(["prove", "mine.py:train", *flags]) == 0
    said = capsys.readouterr().out
    assert "3 methods x 20 seeds of at most 20" in said
    assert "a verdict on 2 comparisons takes at least 9 seeds" in said
