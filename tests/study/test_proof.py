"""`redense.prove`: any training function, its loop, its controls and its mistakes."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import redense
from redense.masks import CRITERIA
from redense.plan import MASKS
from redense.runs.checkpoints import read
from redense.runs.configuration import RunConfig
from redense.runs.folder import RunFolder
from redense.runs.outcome import carry_out, read_scores
from redense.study.folder import records
from redense.study.work import FunctionWork

ROOT = Path(__file__).parents[2]
PLAN = redense.dsd(dense=3, sparse=2, redense=2, sparsity=0.5)


def two_layers(seed, width=12):
    noise = torch.Generator().manual_seed(7)
    points = torch.randn(60, 5, generator=noise)
    labels = (points.prod(1) > 0).long()
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    return model, optimizer, points, labels


def train(run):
    model, optimizer, points, labels = two_layers(run.seed)
    for _ in run.epochs(model, optimizer):
        for batch in torch.randperm(len(points)).split(20):
            optimizer.zero_grad()
            F.cross_entropy(model(points[batch]), labels[batch]).backward()
            optimizer.step()
        run.log(top1=float((model(points).argmax(1) == labels).float().mean()))
    score = float((model(points).argmax(1) == labels).float().mean())
    return {"valid": {"top1": score}, "test": lambda: {"top1": score}}


def one_step(model, optimizer, points, labels):
    optimizer.zero_grad()
    F.cross_entropy(model(points), labels).backward()
    optimizer.step()


def prove(function, out, **more):
    given = {"seeds": 2, "methods": ("dense", "lower_lr", "dsd"), "out": out}
    return redense.prove(function, PLAN, **(given | more))


def test_a_function_is_proved_against_its_controls_and_a_finished_study_is_only_read(tmp_path):
    methods = ("dense", "lower_lr", "swa", "early_stop", "dsd")
    study = prove(train, tmp_path / "study", seeds=7, methods=methods)
    assert not study.failed
    assert len(study.records) == 7 * 5
    assert {row["method"] for row in study.scores} == set(methods)
    assert str(study).count("Pick ") + str(study).count("to choose among") == 1
    assert str(study).endswith(study.verdict)

    def never(run):
        raise AssertionError("a finished study is only read")

    never.__qualname__, never.__module__ = train.__qualname__, train.__module__
    again = prove(train, tmp_path / "study", seeds=7, methods=methods)
    assert again.scores == study.scores


def test_more_seeds_after_a_look_are_called_that(tmp_path, capsys):
    first = prove(train, tmp_path / "study")
    for again in ({}, {"seeds": 2}):
        assert prove(train, tmp_path / "study", **again).verdict == first.verdict
    assert "judged at" not in capsys.readouterr().err
    more = prove(train, tmp_path / "study", seeds=3, methods=("dense", "lower_lr", "dsd", "pruned"))
    for said in (capsys.readouterr().err, str(more), more.report().read_text()):
        assert "this study was judged at 2 of its seeds before" in said
    apart = prove(train, tmp_path / "study", first_seed=3)  # fresh seeds are no second look
    assert "judged at" not in str(apart)
    assert {record["seed"] for record in apart.records} == {3, 4}


def test_a_killed_study_is_not_taken_for_one_that_was_judged(tmp_path, capsys):
    prove(train, tmp_path / "study", seeds=3)
    for name in ("dense--2", "lower_lr--2", "dsd--2"):
        shutil.rmtree(tmp_path / "study" / name)
    settings = json.loads((tmp_path / "study/study.json").read_text())
    del settings["judged"]  # it was killed before it came to a verdict
    (tmp_path / "study/study.json").write_text(json.dumps(settings))
    assert "judged at" not in str(prove(train, tmp_path / "study", seeds=3))


def test_a_study_answers_what_is_asked_and_no_more(tmp_path):
    prove(train, tmp_path / "study", seeds=3)
    less = prove(train, tmp_path / "study", methods=("dense", "lower_lr"))
    assert {(record["method"], record["seed"]) for record in less.records} == {
        (method, seed) for method in ("dense", "lower_lr") for seed in (0, 1)
    }


def test_too_few_seeds_for_a_verdict_are_said_before_training(tmp_path, capsys):
    prove(train, tmp_path / "study")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("warning: 2 seeds allow no verdict on 3 methods, pass --seeds 7")


def test_parts_of_a_study_are_trained_apart_and_judged_together(tmp_path, capsys):
    whole = prove(train, tmp_path / "whole", seeds=3)
    for part in (1, 2):
        study = prove(train, tmp_path / f"part{part}", seeds=3, shard=(part, 2))
        assert {record["seed"] for record in study.records} == {(1,): {0, 2}, (2,): {1}}[(part,)]
        assert f"No verdict: this is part {part} of 2; copy what lies" in str(study)
        shutil.copytree(tmp_path / f"part{part}", tmp_path / "together", dirs_exist_ok=True)
    capsys.readouterr()
    together = prove(train, tmp_path / "together", seeds=3)
    assert "epochs to train" not in capsys.readouterr().err
    assert together.scores == whole.scores
    assert together.verdict == whole.verdict


@pytest.mark.parametrize(
    ("shard", "error", "said"),
    [
        ((0, 2), ValueError, "counted from 1; got 0 of 2"),
        ((3, 2), ValueError, "got 3 of 2"),
        ((1, 3), ValueError, "at most 2 parts"),
        ("1/2", TypeError, "two whole numbers"),
        ((1.0, 2), TypeError, "two whole numbers"),
    ],
)
def test_what_is_no_part_of_the_seeds_is_refused(tmp_path, shard, error, said):
    with pytest.raises(error, match=re.escape(said)):
        prove(train, tmp_path / "study", shard=shard)
    assert not (tmp_path / "study").exists()


def test_a_copy_of_a_run_that_is_kept_aside_is_none_of_the_studys(tmp_path):
    before = prove(train, tmp_path / "study")
    shutil.copytree(tmp_path / "study/dsd--0", tmp_path / "study/dsd--0.bak")
    shutil.copytree(tmp_path / "study/dsd--0", tmp_path / "study/mine--7")
    (tmp_path / "study/dsd--1.bak").mkdir()
    (tmp_path / "study/dsd--1.bak/error.txt").write_text("RuntimeError: long ago")
    again = prove(train, tmp_path / "study")
    assert again.scores == before.scores
    again.report(tmp_path / "page.html")
    assert "long ago" not in (tmp_path / "page.html").read_text()


def test_settings_are_chosen_with_other_seeds_and_without_the_test_split(tmp_path):
    def careful(run):
        return {"valid": train(run)["valid"], "test": lambda: 1 / 0}

    chosen = prove(careful, tmp_path / "study", first_seed=1000, split="valid")
    assert not chosen.failed
    assert {record["seed"] for record in chosen.records} == {1000, 1001}
    assert all(not record["test"] for record in chosen.records)
    with pytest.raises(ValueError, match="first_seed must be a whole number of at least 0, got -1"):
        prove(train, tmp_path / "other", first_seed=-1)


def test_branched_runs_end_with_the_bits_of_runs_of_their_own(tmp_path):
    branched = prove(train, tmp_path / "branched")
    assert branched.spared > 0.2
    shas = {r["method"]: r["weights_sha256"] for r in branched.records if r["seed"] == 0}
    alone = redense.Run(make_folder(tmp_path / "alone", PLAN), quiet=True)
    assert carry_out(train, alone)["weights_sha256"] == shas["dsd"]
    assert len(set(shas.values())) == 3


STOPPED = ("early_stop", "dense", "lower_lr", "dsd")


@pytest.mark.parametrize("best", [1, 3, 6])  # in the shared phase, behind it, the last epoch
def test_the_best_epoch_of_shared_phases_is_kept_for_the_runs_that_branch(best, tmp_path):
    def peaks(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for epoch in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
            run.log(score=-abs(epoch - best), gradient=1.0)
        return {"score": float(model(points).detach().mean())}

    branched = prove(peaks, tmp_path / "branched", methods=STOPPED)
    assert not branched.failed
    found = {r["method"]: r for r in branched.records if r["seed"] == 0}
    stopped, control = found["early_stop"], found["lower_lr"]
    assert (stopped["weights_sha256"] == control["weights_sha256"]) == (best == 6)
    assert (stopped["selected_epoch"], control["selected_epoch"]) == (best + 1, None)
    asked = RunFolder(tmp_path / "branched/early_stop--0").config
    alone = make_folder(tmp_path / "alone", asked.to_plan(), select="best")
    record = carry_out(peaks, redense.Run(alone, quiet=True))
    assert record["weights_sha256"] == stopped["weights_sha256"]
    assert branched.spared > 0.4


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ({2: {"gradient": 1.0}}, "epoch 3 has no score"),
        ({1: {}}, "epoch 2 has no score"),
        ({0: {}, 1: {}}, "epoch 1 has no number"),
    ],
)
def test_an_epoch_without_the_judged_score_costs_early_stopping_and_no_other(
    epochs, said, tmp_path
):
    def forgets(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for epoch in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
            run.log(**epochs.get(epoch, {"score": float(epoch == 0)}))
        return {"score": float(model(points).detach().mean())}

    study = prove(forgets, tmp_path / "study", methods=STOPPED)
    assert {one.method for one in study.failed} == {"early_stop"}
    assert all(said in one.why for one in study.failed)
    assert all(one.file.exists() for one in study.failed)


def test_early_stopping_chooses_by_what_is_judged_and_scores_what_it_chose(tmp_path):
    def score_of(model, points, labels):
        return float((model(points).argmax(1) == labels).float().mean())

    def by_loss(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for _ in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
            run.log(loss=1.0, top1=score_of(model, points, labels))
        return {"top1": score_of(model, points, labels)}

    def in_the_loop(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for epoch in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
            score = -float(epoch)
            run.log(top1=score)
        return {"top1": score}

    judged = prove(by_loss, tmp_path / "loss", methods=STOPPED)
    assert {one.method for one in judged.failed} == {"early_stop"}
    assert "chose by 'loss', the first number that was logged" in judged.failed[0].why
    last = prove(in_the_loop, tmp_path / "last", methods=STOPPED)
    assert {one.method for one in last.failed} == {"early_stop"}
    assert "compute the score behind the loop" in last.failed[0].why


def test_without_logged_scores_other_methods_still_share_their_epochs(tmp_path):
    def logs_nothing(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for _ in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
        return float(model(points).detach().mean())

    study = prove(logs_nothing, tmp_path / "study", methods=STOPPED)
    assert {one.method for one in study.failed} == {"early_stop"}
    first = [r["history"][0]["seconds"] for r in study.records if r["seed"] == 0]
    assert len(first) == 3
    assert len(set(first)) == 1


def test_what_a_study_kept_too_little_for_is_announced_as_it_will_be(tmp_path, capsys):
    prove(train, tmp_path / "study")
    capsys.readouterr()
    study = prove(
        train, tmp_path / "study", methods=("dense", "lower_lr", "dsd", "early_stop", "swa")
    )
    # early stopping needs best weights that its parents did not keep, averaging does not
    assert f"{2 * 7 + 2 * 4} epochs to train" in capsys.readouterr().err
    trained = {r["method"]: r["history"][0]["seconds"] for r in study.records if r["seed"] == 0}
    assert trained["swa"] == trained["dense"] != trained["early_stop"]
    whole = ("dense", "lower_lr", "dsd", "early_stop", "swa")
    at_once = prove(train, tmp_path / "at once", methods=whole)
    assert at_once.scores == study.scores


def test_batches_that_a_norm_cannot_be_measured_with_are_said(tmp_path):
    def named(run):
        model, optimizer, points, labels = two_layers(run.seed)
        model = nn.Sequential(nn.BatchNorm1d(5), *model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        batches = [{"points": points, "labels": labels}]
        for _ in run.epochs(model, optimizer, loader=batches):
            one_step(model, optimizer, points, labels)
        return 1.0

    study = prove(named, tmp_path / "study", methods=("dense", "swa", "dsd"))
    assert {one.method for one in study.failed} == {"swa"}
    assert "is given each batch of loader, or the first part of it" in study.failed[0].why


def test_a_study_of_which_every_run_fails_alike_is_not_trained_to_its_end(tmp_path):
    def wrong(run):
        for _ in run.epochs(*two_layers(run.seed)[:2]):
            (tmp_path / f"{run.folder.name}.txt").touch()
        return {"valid": {"top1": {}}}

    study = prove(wrong, tmp_path / "study", seeds=6)
    tried = sorted(file.stem for file in tmp_path.glob("*.txt"))
    assert len(tried) == 3
    assert len(study.failed) == 6 * 3
    assert "valid: top1 must be a number, got dict" in study.verdict
    assert "not run: all before it failed alike" in study.verdict


def test_a_metric_that_is_lower_where_it_is_better_is_doubted(tmp_path, capsys):
    def scored(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for _ in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
        return {"valid": {"val_loss": 1.0 + run.seed}}

    study = prove(scored, tmp_path / "study")
    said = "val_loss is judged as if a higher one were better"
    assert capsys.readouterr().err.count(said) == 1
    assert study.verdict.startswith(f"Warning: {said}")
    study = prove(scored, tmp_path / "right", higher_is_better=False)
    assert said not in study.verdict + capsys.readouterr().err


def test_an_average_of_ones_own_is_saved_or_refused(tmp_path):
    class Kept:
        """A wrapper, as people write them."""

        __slots__ = ("ema", "keeps")

        def __init__(self, ema, keeps=True):
            self.ema, self.keeps = ema, keeps

        def state_dict(self):
            return {"parts": [self.ema.state_dict()]} if self.keeps else {"steps": 0}

        def load_state_dict(self, state):
            self.ema.load_state_dict(state["parts"][0])

    def averaged(run, *, passes="ema"):
        model, optimizer, points, labels = two_layers(run.seed)
        ema = torch.optim.swa_utils.AveragedModel(model)
        given = {
            "ema": {"ema": ema},
            "a wrapper": {"kept": Kept(ema)},
            "another": {"scaler": torch.amp.GradScaler("cpu"), "forgets": Kept(ema, keeps=False)},
        }[passes]
        for _ in run.epochs(model, optimizer, **given):
            one_step(model, optimizer, points, labels)
            ema.update_parameters(model)
        return {"valid": {"seen": float(ema.n_averaged)}}

    study = prove(averaged, tmp_path / "study")
    assert {row["seen"] for row in study.scores if row["method"] == "dsd"} == {7.0}
    study = prove(partial(averaged, passes="a wrapper"), tmp_path / "wrapped")
    assert {row["seen"] for row in study.scores if row["method"] == "dsd"} == {7.0}
    study = prove(partial(averaged, passes="another"), tmp_path / "refused")
    assert "ema averages weights, but no checkpoint would hold it" in study.failed[0].why
    assert "run.epochs(model, optimizer, ema=ema)" in study.failed[0].why


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_a_shuffle_by_a_generator_of_ones_own_is_saved_or_refused(kind, tmp_path):
    def shuffled(run, *, passes=True):
        model, optimizer, points, labels = two_layers(run.seed)
        if kind == "torch":
            data = torch.utils.data.TensorDataset(points, labels)
            own = torch.Generator().manual_seed(run.seed)
            loader = torch.utils.data.DataLoader(data, 20, shuffle=True, generator=own)
            given = {"loader": loader} if passes else {}
        else:
            own = np.random.default_rng(run.seed)
            given = {"draws": own}
        for _ in run.epochs(model, optimizer, **given):
            batches = loader if kind == "torch" else [(points[own.permutation(60)], labels)]
            for inputs, wanted in batches:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), wanted).backward()
                optimizer.step()
        return float(model(points).detach().mean())

    branched = prove(shuffled, tmp_path / "branched")
    assert not branched.failed
    found = {r["method"]: r["weights_sha256"] for r in branched.records if r["seed"] == 0}
    alone = redense.Run(make_folder(tmp_path / "alone", PLAN), quiet=True)
    assert carry_out(shuffled, alone)["weights_sha256"] == found["dsd"]
    if kind == "torch":
        forgot = redense.Run(make_folder(tmp_path / "forgot", PLAN), quiet=True)
        with pytest.raises(ValueError, match="loader shuffles by a generator of its own"):
            carry_out(partial(shuffled, passes=False), forgot)


def test_a_kill_between_a_checkpoint_and_its_phases_mark_is_made_good(tmp_path):
    whole = redense.Run(make_folder(tmp_path / "whole", PLAN), quiet=True)
    record = carry_out(train, whole)
    for epoch, phase in zip((3, 5, 7), PLAN, strict=True):
        folder = make_folder(tmp_path / phase.name, PLAN)

        def killed(self, at, name, *, wanted=epoch, mark=RunFolder.mark_phase):
            if at == wanted:
                raise KeyboardInterrupt
            mark(self, at, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunFolder, "mark_phase", killed)
            with pytest.raises(KeyboardInterrupt):
                carry_out(train, redense.Run(folder, quiet=True))
        again = carry_out(train, redense.Run(RunFolder(folder.path), quiet=True))
        assert again["weights_sha256"] == record["weights_sha256"]
        assert again["released"] == record["released"]


def test_a_schedule_over_the_whole_plan_shares_no_epochs_and_that_is_said(tmp_path):
    """Its first epochs are other ones in a longer plan: what was trained is as if trained alone."""

    def cosine(run):
        model, optimizer, points, labels = two_layers(run.seed)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(run.plan))
        for _ in run.epochs(model, optimizer, schedule=schedule):
            F.cross_entropy(model(points), labels).backward()
            optimizer.step()
            schedule.step()
        return float(schedule.get_last_lr()[0])

    study = prove(cosine, tmp_path / "study", seeds=2)
    assert {row["score"] for row in study.scores} == {0.0}
    assert not any(record["branched"] for record in study.records)
    assert "since the function asks for run.plan" in study.verdict
    shas = {r["method"]: r["weights_sha256"] for r in study.records if r["seed"] == 0}
    alone = redense.Run(make_folder(tmp_path / "alone", PLAN), quiet=True)
    assert carry_out(cosine, alone)["weights_sha256"] == shas["dsd"]


def late(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)


@pytest.mark.parametrize("when", ["before the loop", "inside it"])
def test_a_schedule_that_no_checkpoint_would_hold_is_refused(tmp_path, when):
    def forgets(run):
        model, optimizer, points, labels = two_layers(run.seed)
        schedule = late(optimizer) if when == "before the loop" else None
        for _ in run.epochs(model, optimizer):
            schedule = schedule or late(optimizer)
            F.cross_entropy(model(points), labels).backward()
            optimizer.step()
            schedule.step()
        return 1.0

    with pytest.raises(ValueError, match=r"pass it, run.epochs\(model, optimizer, schedule"):
        carry_out(forgets, redense.Run(make_folder(tmp_path / "run", PLAN), quiet=True))
    assert not list(tmp_path.glob("run/checkpoints/*"))


def make_folder(path, plan, **config):
    config = RunConfig(function="train", plan=plan.to_records(), **config)
    return RunFolder.create(path, config)


def test_two_workers_give_the_records_of_one(tmp_path):
    one = prove(train, tmp_path / "one")
    two = prove(train, tmp_path / "two", jobs=2)
    assert not two.failed
    assert [r["weights_sha256"] for r in one.records] == [r["weights_sha256"] for r in two.records]


def test_a_closure_travels_to_workers(tmp_path):
    width = 9

    def closed(run):
        model, optimizer, points, labels = two_layers(run.seed, width)
        for _ in run.epochs(model, optimizer):
            F.cross_entropy(model(points), labels).backward()
            optimizer.step()
        return float(model(points).sum().detach())

    study = prove(closed, tmp_path / "study", jobs=2)
    assert not study.failed
    assert {record["metric"]["name"] for record in study.records} == {"score"}


def test_held_weights_are_zero_in_the_sparse_phase_and_rates_follow_the_plan(tmp_path):
    seen = []

    def watched(run):
        model, optimizer, points, labels = two_layers(run.seed)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        used = []
        optimizer.register_step_post_hook(lambda opt, *_: used.append(opt.param_groups[0]["lr"]))
        for epoch in run.epochs(model, optimizer, schedule=schedule):
            one_step(model, optimizer, points, labels)
            zeros = int((model[0].weight == 0).sum())
            seen.append((epoch, zeros, optimizer.param_groups[0]["lr"]))
            schedule.step()
        return 1.0

    carry_out(watched, redense.Run(make_folder(tmp_path / "run", PLAN), quiet=True))
    zeros = [number for _, number, _ in seen]
    assert zeros[:5] == [0, 0, 0, 30, 30]
    assert zeros[6] < 30
    assert [rate for _, _, rate in seen] == pytest.approx([0.2 * 0.5**n for n in range(7)])
    rows = json.loads((tmp_path / "run" / "record.json").read_text())["history"]
    assert rows[-1]["rate"] == pytest.approx(0.2 * 0.5**7 * 0.1)


def test_a_run_that_raises_costs_that_run_and_is_named(tmp_path):
    def fails(run):
        if run.seed == 1 and run.config.method == "dsd":
            raise RuntimeError("out of luck")
        return train(run)

    study = prove(fails, tmp_path / "study", seeds=3)
    assert [(one.method, one.seed) for one in study.failed] == [("dsd", 1)]
    assert "out of luck" in study.failed[0].file.read_text()
    assert "dsd with seed 1, RuntimeError: out of luck" in study.verdict


def test_a_study_in_this_process_leaves_its_import_path_and_folder_alone(tmp_path, monkeypatch):
    work = FunctionWork.of(train, reads_test=False, data={})
    monkeypatch.syspath_prepend(tmp_path / "later")
    monkeypatch.chdir(tmp_path)
    work(make_folder(tmp_path / "run", PLAN))
    assert sys.path[0] == str(tmp_path / "later")
    assert Path.cwd() == tmp_path


def test_runs_that_fail_alike_are_named_together(tmp_path):
    def fails(run):
        raise RuntimeError("out of luck")

    study = prove(fails, tmp_path / "study")
    assert len(study.failed) == 6
    assert study.verdict.count("out of luck") == 1
    assert "dense with seed 0, lower_lr with seed 0, dsd with seed 0" in study.verdict


def test_a_function_with_a_loop_of_its_own_is_trained_in_full_and_that_is_said(tmp_path):
    def own_loop(run):
        torch.manual_seed(run.seed)
        return len(run.plan) + float(torch.rand(1))

    study = prove(own_loop, tmp_path / "study")
    assert not study.failed
    assert "trained in full" in study.verdict


def test_a_method_that_a_loop_of_ones_own_cannot_carry_out_is_refused(tmp_path):
    def own_loop(run):
        return float(len(run.plan))

    study = prove(own_loop, tmp_path / "study", methods=("dense", "swa", "early_stop", "dsd"))
    assert {(one.method, one.why.partition(",")[0]) for one in study.failed} == {
        ("swa", "MethodError: swa averages weights"),
        ("early_stop", "MethodError: early_stop keeps the best epoch's weights"),
    }
    tried = [path.parent.name for path in (tmp_path / "study").glob("*--*/config.json")]
    assert sum(name.startswith(("swa", "early_stop")) for name in tried) == 2  # one seed of each
    assert all(one.file.exists() for one in study.failed)


def test_from_a_trained_network_the_baseline_is_the_network_as_it_came(tmp_path):
    def tuned(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for _ in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
        return {"top1": (model(points).argmax(1) == labels).float().mean()}

    study = redense.prove(
        tuned,
        redense.dsd(dense=0, sparse=1, redense=1, sparsity=0.5),
        seeds=7,
        methods=("dense", "lower_lr", "dsd"),
        out=tmp_path / "study",
    )
    assert not study.failed
    trained = {record["method"]: len(record["history"]) for record in study.records}
    assert trained == {"dense": 0, "lower_lr": 2, "dsd": 2}
    epochs = {record["method"]: record["cost"]["epochs"] for record in study.records}
    assert epochs == {"dense": 0, "lower_lr": 2, "dsd": 2}
    assert "which trains no further, at 2 epochs" in study.verdict


def test_a_plan_of_ones_own_gets_a_verdict_of_its_own(tmp_path):
    mine = redense.dsd(dense=3, sparse=1, redense=3, sparsity=0.3)
    study = prove(train, tmp_path / "study", methods={"mine": mine})
    assert "mine" in {row["method"] for row in study.scores}
    assert "Does mine help here?" in study.verdict


def test_a_study_reports_itself_on_a_page_and_in_a_notebook(tmp_path):
    study = prove(train, tmp_path / "study", seeds=3)
    assert study.report() == tmp_path / "study" / "report.html"
    page = study.report(tmp_path / "new" / "proof.html").read_text()
    assert "Does dense-sparse-dense (dsd) help here?" in page
    assert (tmp_path / "new" / "proof.csv").read_text().count("\n") == 1 + 9
    study.report(tmp_path / "new" / "proof.html")  # its own table is made anew
    mine = tmp_path / "scores.csv"
    for table in ("epoch,loss\n1,0.5\n", "study,method,seed,note\nmine,dsd,1,good\n"):
        mine.write_text(table)
        with pytest.raises(ValueError, match=r"scores.csv is no report's table and would be over"):
            study.report(tmp_path / "scores.html")
        assert mine.read_text() == table
    assert not (tmp_path / "scores.html").exists()
    shown = study._repr_html_()
    assert shown.count("<tr>") == 1 + 3
    for paragraph in study.verdict.split("\n\n"):
        assert f"<p>{html.escape(paragraph)}</p>".replace("&#x27;", "&#39;") in shown
    assert len(shown) < 20_000


def test_a_table_of_a_study_fits_80_columns(tmp_path):
    study = prove(train, tmp_path / "study", methods=("dense", "random_dsd", "dsd"))
    table = str(study).removesuffix(study.verdict)
    assert table.count("\n") > 5
    assert max(map(len, table.splitlines())) <= 80


def test_a_loop_of_steps_ends_with_the_same_bits_wherever_it_was_stopped(tmp_path):
    plan = redense.dsd(dense=7, sparse=5, redense=6, sparsity=0.5)
    shas = []

    def by_steps(run, stop=None):
        model, optimizer, points, labels = two_layers(run.seed)
        for step in run.steps(model, optimizer, save_every=4):
            one_step(model, optimizer, points, labels)
            if step == stop:
                raise KeyboardInterrupt
        return float(model(points).sum().detach())

    for number, stop in enumerate((None, 3, 5, 8, 12, 17)):
        folder = make_folder(tmp_path / f"{number}", plan)
        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                carry_out(partial(by_steps, stop=stop), redense.Run(folder, quiet=True))
        shas.append(carry_out(by_steps, redense.Run(folder, quiet=True))["weights_sha256"])
    assert len(set(shas)) == 1


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_proof\n"
        "from pathlib import Path\n"
        "import redense\n"
        "from redense.runs.outcome import carry_out\n"
        "from redense.runs.folder import RunFolder\n"
        "folder = Path(sys.argv[1])\n"
        "made = (folder / 'config.json').exists()\n"
        "files = RunFolder(folder) if made else test_proof.make_folder(folder, test_proof.PLAN)\n"
        "run = redense.Run(files)\n"
        "if len(sys.argv) > 2:\n"
        "    log, run.log = run.log, lambda **values: (log(**values), time.sleep(0.3))\n"
        "print(carry_out(test_proof.train, run)['weights_sha256'])\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}

    def start(folder, *more):
        command = [sys.executable, str(script), str(folder), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole").communicate(timeout=120)[0].split()[-1]
    process = start(tmp_path / "killed", "slowly")
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 60
    while not (checkpoints / "epoch-0004.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert read(checkpoints / "epoch-0004.ckpt")["position"] == 4
    out = start(tmp_path / "killed").communicate(timeout=120)[0]
    assert "going on from" in out
    assert out.split()[-1] == whole


WRONG = {
    "nothing": (lambda run: (train(run), None)[1], "score must be a number, got None"),
    "a string": (lambda run: (train(run), "good")[1], "must be a number, got 'good'"),
    "NaN": (lambda run: (train(run), float("nan"))[1], "training has diverged"),
    "no plan": (lambda run: 1.0, "every method would train alike"),
    "a break": (lambda run: breaks(run), "without break"),
}


def breaks(run):
    model, optimizer, *_ = two_layers(run.seed)
    for _ in run.epochs(model, optimizer):
        break
    return 1.0


@pytest.mark.parametrize("name", WRONG)
def test_what_a_function_may_not_do_is_named_in_its_run(tmp_path, name):
    function, message = WRONG[name]
    study = prove(function, tmp_path / "study")
    assert study.failed
    assert message in study.failed[0].why
    assert str(study).startswith("No verdict: no finished run")
    assert message in str(study)


def test_what_cannot_be_proved_is_refused_before_any_training(tmp_path):
    with pytest.raises(TypeError, match="one argument"):
        redense.prove(lambda: 1.0, PLAN, out=tmp_path / "a")
    with pytest.raises(TypeError, match="must be a function"):
        redense.prove("mine.py", PLAN, out=tmp_path / "a")
    with pytest.raises(ValueError, match="holds nothing"):
        redense.prove(train, redense.dsd(2, 2, 2, 0.0), out=tmp_path / "a")
    with pytest.raises(ValueError, match="at least 2, got 1"):
        redense.prove(train, PLAN, seeds=1, out=tmp_path / "a")
    with pytest.raises(ValueError, match="no method 'dds'"):
        prove(train, tmp_path / "a", methods=("dds",))
    for wrong, said in (
        ({"methods": None}, "methods must be names"),
        ({"methods": {"mine": 3}}, "'mine' must be a redense.Plan"),
        ({"out": None}, "out must be the study's folder"),
        ({"within": "x", "seeds": "auto"}, "within must be a number"),
        ({"higher_is_better": "no"}, "higher_is_better must be True or False"),
    ):
        with pytest.raises(TypeError, match=re.escape(said)):
            redense.prove(train, PLAN, **{"out": tmp_path / "a", **wrong})
    assert not (tmp_path / "a").exists()


def test_another_studys_folder_is_refused(tmp_path):
    prove(train, tmp_path / "study")
    with pytest.raises(ValueError, match="other settings"):
        redense.prove(train, redense.dsd(1, 1, 1, 0.5), seeds=2, out=tmp_path / "study")
    assert len(records(tmp_path / "study")) == 6


def test_scores_are_read_in_every_form_and_the_test_split_only_where_it_may():
    assert read_scores(1) == {"valid": {"score": 1.0}, "test": {}}
    assert read_scores({"top1": torch.tensor(2.0)}) == {"valid": {"top1": 2.0}, "test": {}}

    def never():
        raise AssertionError("the test split was read")

    assert read_scores({"valid": 3, "test": never}, reads_test=False)["valid"] == {"score": 3.0}


def with_a_head(run, *, given):
    """A network whose loss has weights of its own, which the optimizer trains too."""
    model, _, points, labels = two_layers(run.seed)
    head = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.2, momentum=0.9)
    for _ in run.epochs(model, optimizer, **({"head": head} if given else {})):
        one_step(nn.Sequential(model, head), optimizer, points, labels)
    return float(head(model(points)).detach().mean())


def test_weights_that_no_checkpoint_would_hold_are_refused(tmp_path):
    alone = redense.Run(make_folder(tmp_path / "without", PLAN), quiet=True)
    with pytest.raises(ValueError, match=r"not in the model: 2, the first of shape \(2, 2\)"):
        carry_out(partial(with_a_head, given=False), alone)
    branched = prove(partial(with_a_head, given=True), tmp_path / "branched")
    assert not branched.failed
    (one,) = (r for r in branched.records if (r["method"], r["seed"]) == ("dsd", 0))
    whole = redense.Run(make_folder(tmp_path / "whole", PLAN), quiet=True)
    assert carry_out(partial(with_a_head, given=True), whole)["valid"] == one["valid"]


class Held:
    """No module, but it saves what it holds."""

    def __init__(self):
        self.weight = nn.Parameter(torch.ones(2))

    def state_dict(self):
        return {"weight": self.weight.detach()}

    def load_state_dict(self, state):
        self.weight.data.copy_(state["weight"])


def test_weights_that_are_saved_by_something_else_are_not_refused(tmp_path):
    def scaled(run):
        model, _, points, _ = two_layers(run.seed)
        held = Held()
        optimizer = torch.optim.SGD([*model.parameters(), held.weight], lr=0.1)
        for _ in run.epochs(model, optimizer, held=held):
            optimizer.zero_grad()
            (model(points) * held.weight).square().mean().backward()
            optimizer.step()
        return float(held.weight.sum().detach())

    carry_out(scaled, redense.Run(make_folder(tmp_path / "run", PLAN), quiet=True))


@pytest.mark.parametrize("name", ["epoch", "phase", "rate", "sparsity", "seconds"])
def test_a_column_of_the_row_itself_cannot_be_logged(tmp_path, name):
    def logs(run):
        model, optimizer, points, labels = two_layers(run.seed)
        for _ in run.epochs(model, optimizer):
            one_step(model, optimizer, points, labels)
            run.log(**{name: 1.0})
        return 1.0

    with pytest.raises(ValueError, match=f"every row has its own {name}"):
        carry_out(logs, redense.Run(make_folder(tmp_path / "run", PLAN), quiet=True))


def test_a_test_split_without_the_judged_metric_is_refused():
    with pytest.raises(ValueError, match="valid's 'mse', which is judged, and of test only acc"):
        read_scores({"valid": {"mse": 1.0}, "test": {"acc": 2.0}})
    both = {"valid": {"mse": 1.0}, "test": {"acc": 2.0, "mse": 3.0}}
    assert read_scores(both) == both


def halves(weight, sparsity):
    """A mask of the user's own."""
    return torch.ones_like(weight, dtype=torch.bool)


@pytest.mark.parametrize("mask", ["magnitudes", halves])
def test_a_mask_that_a_run_cannot_name_is_refused_before_anything_is_trained(tmp_path, mask):
    plan = redense.dsd(2, 1, 1, 0.5, mask=mask)
    with pytest.raises(ValueError, match="mask must be one of magnitude, random, global, got "):
        redense.prove(train, plan, seeds=2, out=tmp_path / "study")
    assert not list(tmp_path.glob("study/*/"))


def test_masks_are_the_criteria_that_there_are():
    assert tuple(CRITERIA) == MASKS
