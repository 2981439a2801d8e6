"""The one table of methods, and what is built from it."""

import pytest
from study_folder import write_study

import redense
from redense.plan import Plan
from redense.proof import with_controls
from redense.study.folder import records
from redense.study.methods import (
    CONTROL,
    METHODS,
    build_methods,
    is_proved,
    shared_epochs,
    simplicity,
    titled,
)
from redense.study.summary import summarize_records

PLAN = redense.dsd(2, 2, 2, 0.5)


def test_every_method_says_what_it_is_and_looks_like_no_other():
    assert all(kind.title and kind.meaning for kind in METHODS.values())
    assert len({(kind.colour, kind.dash) for kind in METHODS.values()}) == len(METHODS)


def test_the_table_is_in_order_of_simplicity_and_own_plans_come_last():
    labels = ["mine", "dsd@0.5", "dsd@0.2", "dense"]
    assert sorted(labels, key=simplicity) == ["dense", "dsd@0.2", "dsd@0.5", "mine"]


def test_early_stopping_is_the_best_epoch_of_the_controls_own_run():
    built = build_methods(["early_stop", CONTROL], {"": PLAN})
    assert built["early_stop"].plan == built[CONTROL].plan
    assert (built["early_stop"].select, built[CONTROL].select) == ("best", "last")
    shared = shared_epochs(built["early_stop"], built[CONTROL])
    assert shared == len(PLAN) - PLAN.phases[-1].length  # its loop runs: a score may stand there


def test_a_plan_of_ones_own_is_a_method_under_its_name():
    own = redense.dsd(1, 4, 1, 0.9)
    built = build_methods({"dsd": None, "mine": own}, {"": PLAN})
    assert (built["dsd"].plan, built["mine"].plan) == (PLAN, own)
    assert is_proved("mine")
    assert titled("mine") == "mine"
    assert titled("dsd@0.5") == "dense-sparse-dense (dsd@0.5)"


@pytest.mark.parametrize("name", ["a/b", "a--b", "a@b", "..", "", "a ", "dsd"])
def test_a_name_that_cannot_be_a_folder_of_its_own_is_refused(name):
    with pytest.raises(ValueError, match=r"becomes a folder|redense's own"):
        build_methods({name: PLAN}, {"": PLAN})


def test_sparsities_per_pass_keep_the_method_under_proof():
    plans = {
        mark: redense.dsd(2, 2, 2, [float(share) for share in mark.split("/")], passes=2)
        for mark in ("0.5/0.25", "0.8/0.4")
    }
    built = build_methods(["dense", "dsd"], plans)
    assert list(built) == ["dense", "dsd@0.5-0.25", "dsd@0.8-0.4"]


def test_the_familys_other_plans_have_the_budget_of_the_one_under_proof():
    built = build_methods(["relearn", "acdc", "spdf"], {"": redense.dsd(8, 10, 6, 0.3)})
    assert {name: len(method.plan) for name, method in built.items()} == {
        "relearn": 24,
        "acdc": 24,
        "spdf": 24,
    }
    first = redense.Phase("dense", 8)
    assert built["relearn"].plan == Plan((first, *redense.relearn(0, 16)))
    (control,) = build_methods([METHODS["relearn"].matched], {"": redense.dsd(8, 10, 6)}).values()
    relearn = built["relearn"].plan
    assert not any(phase.sparsity for phase in control.plan)
    assert [(phase.length, phase.lr, phase.decay) for phase in control.plan] == [
        (phase.length, phase.lr, phase.decay) for phase in relearn
    ]
    assert built["acdc"].plan == Plan((first, *redense.acdc(0, 3, 2, 2, final=4)))
    assert built["spdf"].plan == redense.spdf(18, 6)
    assert all(is_proved(name) for name in built)


@pytest.mark.parametrize("length", range(3, 30))
def test_they_fit_any_budget(length):
    built = build_methods(
        ["relearn", "acdc", "spdf"], {"": redense.dsd(1, length // 2, length - length // 2)}
    )
    assert {len(method.plan) for name, method in built.items()} == {1 + length}


def test_acdc_refuses_a_budget_without_a_last_dense_phase():
    with pytest.raises(ValueError, match=r"acdc needs at least 3 epochs behind .*, the plan has 2"):
        build_methods(["acdc"], {"": redense.dsd(1, 1, 1)})


def test_sparsities_are_the_familys_own_not_the_plans():
    plans = {mark: redense.dsd(2, 8, 8, float(mark)) for mark in ("0.2", "0.5")}
    assert list(build_methods(["relearn", "dsd"], plans)) == ["relearn", "dsd@0.2", "dsd@0.5"]


def test_a_plan_without_a_dense_phase_gives_every_control_the_same_budget():
    names = [name for name in METHODS if name != "dense"]
    built = build_methods(names, {"": redense.dsd(0, 2, 2, 0.5)})
    assert {len(method.plan) for method in built.values()} == {4}


def test_relearn_is_judged_beside_its_own_matched_control(tmp_path):
    found = records(write_study(tmp_path / "study", ("dense", "lower_lr", "relearn", "full_lr")))
    for record in found:
        if record["method"] == "full_lr":
            record["test"]["top1"] += 3
    verdict = summarize_records(found).verdicts["relearn"]
    assert verdict.contrast.reference == "full_lr"
    assert verdict.outcome == "hurts"
    assert "lower than relearn's matched control’s (full_lr; " in verdict.reason
    without = [record for record in found if record["method"] != "full_lr"]
    assert summarize_records(without).verdicts["relearn"].contrast.reference == CONTROL


def test_whoever_asks_for_relearn_gets_its_control(tmp_path):
    assert list(with_controls(["relearn"])) == ["dense", "lower_lr", "full_lr", "relearn"]
    assert list(with_controls(["dsd"])) == ["dense", "lower_lr", "dsd"]
