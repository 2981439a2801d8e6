"""Where a search looks: every point is a plan of the budget, and wrong spaces are refused."""

import optuna
import pytest

from redense.plan import Phase, Plan
from redense.search.space import SHARES, SIDES, Space

FIRST = Plan((Phase("dense", 3),))
SHAPES = {"conv.weight": (4, 3, 3, 3), "rnn.weight": (8, 4), "fc.weight": (2, 8)}


def draw(side, space=None, epochs=12, layers=None, seed=0, first=FIRST):
    space = space or Space()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    layers = space.resolve(SHAPES) if layers is None else layers
    return [space.draw(side, study.ask(), first, epochs, layers) for _ in range(60)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("epochs", [2, 3, 12, 13])
def test_every_point_has_the_budget_and_starts_with_the_shared_phase(side, epochs):
    methods = draw(side, epochs=epochs)
    assert {len(method.plan) for method in methods} == {3 + epochs}
    assert {method.plan.phases[0] for method in methods} == {FIRST.phases[0]}
    assert {method.decays[0] for method in methods} == {1.0}
    held = [any(phase.sparsity for phase in method.plan) for method in methods]
    assert set(held) == {side == "plan"}


def test_a_plan_holds_nothing_in_the_end_of_a_pass_and_passes_differ_by_one_epoch():
    for method in draw("plan", epochs=13):
        behind = method.plan.phases[1:]
        assert [bool(phase.sparsity) for phase in behind] == [True, False] * (len(behind) // 2)
        pairs = zip(behind[::2], behind[1::2], strict=True)
        lengths = [early.length + late.length for early, late in pairs]
        assert max(lengths) - min(lengths) <= 1


def test_controls_are_averaged_and_stopped_early_too():
    methods = draw("control")
    assert {method.average for method in methods} == {None, "averaged"}
    assert {method.select for method in methods} == {"last", "best"}


def test_layers_follow_from_the_networks_shapes():
    assert Space().resolve(SHAPES) == {
        "all": (),
        "later half": ("rnn.weight", "fc.weight"),
    }
    own = Space(layers=("all", "fully connected", "fc*,rnn*"))
    assert own.resolve(SHAPES)["fc*,rnn*"] == ("fc*", "rnn*")
    assert own.resolve({"fc.weight": (2, 2)}) == {"all": (), "fc*,rnn*": ("fc*", "rnn*")}


def test_shares_are_one_more_choice_of_layers_in_proportion_to_the_drawn_sparsity():
    space = Space(shares={"fc.*": 0.9, "rnn.*": 0.3}, layers=("all",))
    layers = space.resolve(SHAPES)
    assert list(layers) == ["all", SHARES]
    held = [phase.sparsity for m in draw("plan", space) for phase in m.plan if phase.sparsity]
    single = [one for one in held if isinstance(one, float)]
    shared = [one for one in held if not isinstance(one, float)]
    assert single
    assert shared
    assert all(one["rnn.*"] == pytest.approx(one["fc.*"] / 3, abs=1e-3) for one in shared)
    assert min(one["fc.*"] for one in shared) < 0.5 < max(one["fc.*"] for one in shared)
    assert Space().resolve({"model.fc.weight": (2, 2)})
    with pytest.raises(ValueError, match=r"shares: 'rnn\.\*' matches no weight that may be held"):
        space.resolve({"model.fc.weight": (2, 2)})


def test_a_training_with_a_loop_of_its_own_gets_plans_and_nothing_else():
    for side in SIDES:
        for method in draw(side, layers={}):
            assert (method.average, method.select, method.include) == (None, "last", ())
            assert not method.weight_decay


@pytest.mark.parametrize("side", SIDES)
def test_the_customary_setting_is_a_point_of_the_space(side):
    for space in (Space(), Space(sparsity=(0.5, 0.9), masks=("random",), passes=(2, 3))):
        layers = space.resolve(SHAPES)
        usual = optuna.trial.FixedTrial(space.customary(side, layers))
        method = space.draw(side, usual, FIRST, 12, layers)
        assert len(method.plan) == 15
    assert space.customary("plan", {})["sparsity"] == 0.5


WRONG = {
    "sparsity": ((0.5, 1.0), "sparsity must lie below 1"),
    "passes": ((0, 3), "passes must be whole numbers of at least 1"),
    "lr": ((0.0, 1.0), "lr must lie above 0"),
    "masks": (("magnitud",), "masks must be of magnitude"),
    "decays": ("cosine", "decays must be a list"),
    "sparse_share": ((0.9, 0.1), "from a smaller to a larger"),
    "weight_decay": ((1.0, float("nan")), "from a smaller to a larger"),
    "scored": (("median",), "scored must be of last epoch"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_space_that_cannot_be_searched_is_refused(name):
    value, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message):
        Space(**{name: value})
