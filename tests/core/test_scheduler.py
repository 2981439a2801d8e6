"""Walking a plan: the model stays what it was, a run goes on bit for bit where it stopped, nothing
fails in silence.

Contract lines 3, 5 and 6; lines 1 and 2 are in test_contract.
"""

import copy
import functools
import gc
import io
import itertools
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

import redense
from redense import Phase, PhaseScheduler, Plan, dsd


class Net(nn.Module):
    """A convolution, an LSTM and two linear layers of which the second shares the first one's
    weight."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(3, 6, 3, padding=1)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.mix = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.mix.weight

    def forward(self, x):
        x = self.norm(self.conv(self.stem(x).relu())).relu()
        return self.again(self.mix(self.lstm(x.mT)[0][:, -1]).tanh())


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3, weight_decay=1e-2),
}
HELD = ["conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "mix.weight"]
GRADUAL = Plan(
    (
        Phase("dense", 1),
        *(Phase(f"{s} %", 2, sparsity=s / 100) for s in (20, 50, 80)),
        Phase("redense", 2),
    )
)


def build(kind="SGD", seed=0):
    torch.manual_seed(seed)
    model = Net()
    return model, OPTIMIZERS[kind](model.parameters())


def test_what_is_no_state_is_refused_by_what_it_lacks():
    model, optimizer = build()
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(1, 1, 1, 0.5))
    for wrong in ({}, {"plan": []}):
        with pytest.raises(ValueError, match="it is none that state_dict"):
            phases.load_state_dict(wrong)


def batch(step):
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randn(8, 3, 5, generator=generator), torch.randint(6, (8,), generator=generator)


def train(model, optimizer, step):
    x, y = batch(step)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def walk(model, optimizer, phases, steps, rates=None):
    for step in steps:
        train(model, optimizer, step)
        phases.step()
        if rates is not None:
            rates.step()


def assert_same(a, b):
    """Equal bit for bit: nested containers of tensors and plain values."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def assert_held(model, phases):
    assert phases.held is not None
    assert list(phases.held.masks) == HELD
    for name, mask in phases.held.masks.items():
        assert int((~mask).sum()) == round(phases.phase.sparsity * mask.numel())
        assert not model.get_parameter(name)[~mask].any()
        assert model.get_parameter(name)[mask].all()


def assert_no_hooks(model, *optimizers):
    for weight in model.parameters():
        assert not weight._post_accumulate_grad_hooks
        assert not weight._backward_hooks
    for module in model.modules():
        assert not any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
    for optimizer in optimizers:
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        assert not optimizer._optimizer_load_state_dict_post_hooks


# The plan is walked.


def test_weights_are_held_in_sparse_phases_only_and_no_hook_is_left_after_them():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(2, 3, 2, sparsity=0.5))
    seen = []
    for step in range(7):
        seen.append((phases.position, phases.phase.name))
        if phases.phase.name == "sparse":
            assert_held(model, phases)
        else:
            assert phases.held is None
            assert_no_hooks(model, optimizer)
        train(model, optimizer, step)
        phases.step()
    names = ["dense"] * 2 + ["sparse"] * 3 + ["redense"] * 2
    assert seen == list(enumerate(names))
    assert phases.finished
    assert phases.phase.name == "redense"
    assert_no_hooks(model, optimizer)


def test_released_weights_grow_back_from_zero():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(1, 2, 2, sparsity=0.5))
    walk(model, optimizer, phases, range(1))
    masks = phases.held.masks
    walk(model, optimizer, phases, range(1, 3))
    assert phases.held is None
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    walk(model, optimizer, phases, range(3, 5))
    assert all(model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_a_plan_that_ends_sparse_ends_with_zeros_and_without_hooks():
    model, optimizer = build()
    phases = PhaseScheduler(
        model, optimizer, Plan((Phase("dense", 2), Phase("sparse", 2, sparsity=0.5)))
    )
    walk(model, optimizer, phases, range(4))
    assert phases.finished
    assert phases.held is None
    assert_no_hooks(model, optimizer)
    for name in HELD:
        weight = model.get_parameter(name)
        assert int((weight == 0).sum()) == round(0.5 * weight.numel())


def test_sparsity_may_grow_over_consecutive_sparse_phases():
    model, optimizer = build("Adam")
    phases = PhaseScheduler(model, optimizer, GRADUAL)
    pruned = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in HELD}
    for step in range(len(GRADUAL)):
        if phases.phase.sparsity:
            assert_held(model, phases)
            for name, mask in phases.held.masks.items():
                assert not (pruned[name] & mask).any(), (
                    "a held weight was let go by a sparser phase"
                )
                pruned[name] = ~mask
        walk(model, optimizer, phases, [step])
    assert all(model.get_parameter(name).all() for name in HELD)


def test_sparsity_may_fall_and_the_difference_grows_back():
    model, optimizer = build()
    plan = Plan(
        (Phase("more", 2, sparsity=0.75), Phase("less", 2, sparsity=0.25), Phase("dense", 1))
    )
    phases = PhaseScheduler(model, optimizer, plan)
    walk(model, optimizer, phases, range(2))
    assert phases.phase.name == "less"
    for name, mask in phases.held.masks.items():
        assert int((~mask).sum()) == round(0.25 * mask.numel())
        assert int((model.get_parameter(name) == 0).sum()) == round(0.75 * mask.numel())
    walk(model, optimizer, phases, range(2, 4))
    assert all(int((model.get_parameter(name) == 0).sum()) <= round(0.25 * 144) for name in HELD)


def test_seek_goes_to_a_step_and_inside_a_phase_changes_nothing():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(2, 3, 2, sparsity=0.5))
    phases.seek(2)
    held = phases.held
    assert_held(model, phases)
    train(model, optimizer, 0)
    before = copy.deepcopy(model.state_dict())
    for step in (3, 4, 4, 2):
        phases.seek(step)
        assert phases.position == step
        assert phases.held is held
    assert_same(model.state_dict(), before)
    phases.seek(5)
    assert phases.held is None
    phases.seek(2)
    assert phases.held is not held
    assert_held(model, phases)
    phases.seek(7)
    assert phases.finished
    assert_no_hooks(model, optimizer)


@pytest.mark.parametrize("step", [-1, 8, 100])
def test_seeking_outside_the_plan_is_refused(step):
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(2, 3, 2))
    with pytest.raises(ValueError, match=rf"0 to 7, the plan's length, got {step}"):
        phases.seek(step)
    with pytest.raises(TypeError, match=r"whole number, got 2\.5"):
        phases.seek(2.5)
    assert phases.position == 0


def test_include_and_exclude_are_prunable_s():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(0, 1, 1), include="lstm.*", exclude="*_hh_*")
    assert list(phases.held.masks) == ["lstm.weight_ih_l0"]


def test_muon_and_adamw_walk_one_plan():
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
    muon = torch.optim.Muon([model[0].weight], lr=0.02)
    adamw = torch.optim.AdamW([model[0].bias, *model[2].parameters()], lr=1e-2)
    phases = PhaseScheduler(model, [muon, adamw], dsd(2, 3, 2, sparsity=0.5))
    for _ in range(7):
        model.zero_grad()
        model(torch.randn(4, 12)).square().sum().backward()
        muon.step()
        adamw.step()
        for name, mask in {} if phases.held is None else phases.held.masks.items():
            assert not model.get_parameter(name)[~mask].any()
        phases.step()
    assert_no_hooks(model, muon, adamw)
    assert all(model.get_parameter(name).all() for name in ("0.weight", "2.weight"))


# Contract line 3: the model is never changed.


def test_state_dict_keys_order_and_parameter_objects_are_the_same_in_every_phase():
    model, optimizer = build()
    keys, ids = list(model.state_dict()), [id(weight) for weight in model.parameters()]
    modules, attributes = list(model.modules()), {id(m): set(vars(m)) for m in model.modules()}
    phases = PhaseScheduler(model, optimizer, dsd(2, 2, 2))
    for step in range(6):
        assert list(model.state_dict()) == keys
        assert [id(weight) for weight in model.parameters()] == ids
        assert list(model.modules()) == modules
        assert {id(m): set(vars(m)) for m in model.modules()} == attributes
        walk(model, optimizer, phases, [step])


def sparse_phase(kind="SGD"):
    model, optimizer = build(kind)
    phases = PhaseScheduler(model, optimizer, dsd(1, 2, 1, sparsity=0.5))
    walk(model, optimizer, phases, range(2))
    assert_held(model, phases)
    return model, optimizer, phases


def test_a_deep_copy_in_a_sparse_phase_is_equal_and_free_and_the_original_stays_held():
    model, optimizer, phases = sparse_phase()
    twin = copy.deepcopy(model)
    assert_same(twin.state_dict(), model.state_dict())
    assert_no_hooks(twin)
    assert twin.again.weight is twin.mix.weight
    train(twin, OPTIMIZERS["SGD"](twin.parameters()), 2)
    assert all(twin.get_parameter(name)[~mask].any() for name, mask in phases.held.masks.items())
    train(model, optimizer, 2)
    assert_held(model, phases)


def test_a_deep_copy_of_the_optimizer_in_a_sparse_phase_is_free():
    _, optimizer, _ = sparse_phase("Adam")
    twin = copy.deepcopy(optimizer)
    assert_same(twin.state_dict(), optimizer.state_dict())
    assert not twin._optimizer_step_pre_hooks


def test_the_whole_model_can_be_saved_and_read_in_a_sparse_phase():
    model, _, _ = sparse_phase()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    assert_same(read.state_dict(), model.state_dict())
    assert_no_hooks(read)


def test_a_compiled_model_is_compiled_once_for_all_phases_and_trains_as_the_plain_one():
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)  # no LSTM: dynamo does not trace one
        model = nn.Sequential(
            nn.Conv1d(3, 6, 3),
            nn.ReLU(),
            nn.Conv1d(6, 6, 3),
            nn.BatchNorm1d(6),
            nn.Flatten(),
            nn.Linear(6, 6),
        )
        optimizer = OPTIMIZERS["SGD"](model.parameters())
        counter = CompileCounterWithBackend("aot_eager")
        net = torch.compile(model, backend=counter, fullgraph=True) if compiled else model
        phases = PhaseScheduler(model, optimizer, dsd(2, 2, 2, sparsity=0.5))
        for step in range(6):
            train(net, optimizer, step)
            for name, mask in phases.held.masks.items() if phases.held else ():
                assert not model.get_parameter(name)[~mask].any()
            phases.step()
        results.append(model.state_dict())
    assert counter.frame_count == 1
    torch.testing.assert_close(results[0], results[1])


def test_the_compiled_wrapper_itself_can_be_given_to_the_scheduler():
    model, optimizer = build()
    net = torch.compile(model, backend="eager")
    phases = PhaseScheduler(net, optimizer, dsd(0, 2, 1, sparsity=0.5))
    walk(net, optimizer, phases, range(1))
    for name, mask in phases.held.masks.items():
        assert not net.get_parameter(name)[~mask].any()
    assert [name.removeprefix("_orig_mod.") for name in phases.held.masks] == HELD


def test_tied_weights_are_held_once_and_stay_tied():
    model, _, phases = sparse_phase()
    assert model.again.weight is model.mix.weight
    assert len(model.mix.weight._post_accumulate_grad_hooks) == 1
    assert not model.again.weight[~phases.held.masks["mix.weight"]].any()


def test_the_lstm_s_flat_weights_are_the_held_parameters():
    model, _, phases = sparse_phase()
    for flat, name in zip(model.lstm._flat_weights, model.lstm._flat_weights_names, strict=True):
        assert flat is model.lstm.get_parameter(name)
    model.lstm.flatten_parameters()
    assert_held(model, phases)


# Contract line 5: resume at any step is bit-identical.


class Run:
    def __init__(self, kind, plan, seed=0):
        self.plan = plan
        self.model, self.optimizer = build(kind, seed)
        self.rates = LambdaLR(self.optimizer, plan.lr_factor)
        self.phases = PhaseScheduler(self.model, self.optimizer, plan)

    def walk(self, steps):
        walk(self.model, self.optimizer, self.phases, steps, self.rates)

    def state(self):
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "rates": self.rates,
            "phases": self.phases,
        }
        return {name: part.state_dict() for name, part in parts.items()}


def on_disk(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


PLANS = {
    "dsd": dsd(2, 3, 2, sparsity=0.5, decay="cosine"),
    "starts sparse": dsd(0, 3, 2, sparsity=0.5),
    "random": redense.spdf(3, 2),
    "global": dsd(1, 2, 1, mask="global"),
    "function": dsd(1, 2, 1, mask=functools.partial(redense.random_mask, seed=3)),
    "gradual": GRADUAL,
    "ends sparse": Plan((Phase("dense", 1), Phase("sparse", 2, sparsity=0.5))),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_resume_at_every_step_is_bit_identical(kind, plan):
    whole = Run(kind, plan)
    states = [on_disk(whole.state())]
    for step in range(len(plan)):
        whole.walk([step])
        states.append(on_disk(whole.state()))
    assert any(state["phases"]["masks"] for state in states)
    for stop, state in enumerate(states):
        again = Run(kind, plan, seed=7)
        for name in ("model", "optimizer", "rates", "phases"):
            getattr(again, name).load_state_dict(state[name])
        again.walk(range(stop, len(plan)))
        assert_same(again.state(), whole.state())


ORDERS = list(itertools.permutations(["model", "optimizer", "phases"]))
BUILT_AFTER = [("model",), ("optimizer",), ("model", "optimizer")]


@pytest.mark.parametrize(
    "plan", [PLANS["dsd"], PLANS["starts sparse"], PLANS["random"]], ids=["dsd", "sparse", "random"]
)
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_model_optimizer_and_phases_load_in_any_order(kind, order, plan):
    for stop in (1, 2, 3, len(plan) - 1):
        whole = Run(kind, plan)
        whole.walk(range(stop))
        state = on_disk(whole.state())
        again = Run(kind, plan, seed=7)
        again.rates.load_state_dict(state["rates"])
        for name in order:
            getattr(again, name).load_state_dict(state[name])
        steps = range(stop, len(plan))
        whole.walk(steps)
        again.walk(steps)
        assert_same(again.state(), whole.state())


@pytest.mark.parametrize(
    "plan", [PLANS["dsd"], PLANS["starts sparse"], PLANS["random"]], ids=["dsd", "sparse", "random"]
)
@pytest.mark.parametrize("loaded_first", BUILT_AFTER, ids=" and ".join)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_scheduler_built_on_what_is_already_loaded_gives_back_what_its_first_phase_zeroed(
    kind, loaded_first, plan
):
    for stop in (1, 2, 3, len(plan) - 1):
        whole = Run(kind, plan)
        whole.walk(range(stop))
        state = on_disk(whole.state())
        model, optimizer = build(kind, seed=7)
        rates = LambdaLR(optimizer, plan.lr_factor)
        rates.load_state_dict(state["rates"])
        parts = {"model": model, "optimizer": optimizer}
        for name in sorted(loaded_first):
            parts[name].load_state_dict(state[name])
        phases = PhaseScheduler(model, optimizer, plan)
        phases.load_state_dict(state["phases"])
        for name in sorted({*parts}.difference(loaded_first)):
            parts[name].load_state_dict(state[name])
        steps = range(stop, len(plan))
        whole.walk(steps)
        walk(model, optimizer, phases, steps, rates)
        assert_same(model.state_dict(), whole.model.state_dict())
        assert_same(optimizer.state_dict(), whole.optimizer.state_dict())


def test_a_live_scheduler_can_go_back_to_an_earlier_checkpoint():
    whole = Run("Adam", PLANS["dsd"])
    whole.walk(range(3))
    state = on_disk(whole.state())
    whole.walk(range(3, 6))
    for name, part in state.items():
        getattr(whole, name).load_state_dict(part)
    whole.walk(range(3, 7))
    straight = Run("Adam", PLANS["dsd"])
    straight.walk(range(7))
    assert_same(whole.state(), straight.state())


def test_masks_are_one_bit_a_weight_on_disk():
    model = nn.Sequential(nn.Linear(100, 333), nn.Linear(333, 7))
    phases = PhaseScheduler(model, torch.optim.SGD(model.parameters(), lr=0.1), dsd(0, 1, 1))
    masks = phases.state_dict()["masks"]
    assert {name: (mask.dtype, mask.numel()) for name, mask in masks.items()} == {
        "0.weight": (torch.uint8, -(-33300 // 8)),
        "1.weight": (torch.uint8, -(-2331 // 8)),
    }
    file = io.BytesIO()
    torch.save(phases.state_dict(), file)
    assert file.tell() < 35631 / 8 + 3000


# Contract line 6: no silent nothing.


def test_stepping_past_the_end_raises():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(0, 1, 1))
    walk(model, optimizer, phases, range(2))
    with pytest.raises(
        RuntimeError, match="plan's 2 steps are done; make a longer plan or stop calling"
    ):
        phases.step()


def test_a_forgotten_step_warns_and_names_the_phases_that_never_ran():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(2, 2, 2))
    train(model, optimizer, 0)
    with pytest.warns(
        UserWarning, match=r"step 0 of 6: dense, sparse, redense did not run.*call step\(\)"
    ):
        del phases


@pytest.mark.parametrize(
    "end",
    [
        lambda phases, model, optimizer: None,  # built and never trained
        lambda phases, model, optimizer: walk(model, optimizer, phases, [0]),
        lambda phases, model, optimizer: (train(model, optimizer, 0), phases.detach()),
        lambda phases, model, optimizer: (
            model.load_state_dict(build()[0].state_dict()),
            phases.load_state_dict(phases.state_dict()),
        ),
    ],
    ids=["untrained", "stepped", "detached", "loaded"],
)
def test_a_scheduler_that_forgot_nothing_goes_without_a_warning(end):
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(2, 2, 2))
    end(phases, model, optimizer)
    del phases


def test_a_scheduler_dropped_in_a_sparse_phase_warns_and_names_the_remedy():
    model, optimizer, phases = sparse_phase()
    with pytest.warns(UserWarning, match=r"gone in phase 'sparse'.*redense\.release\(model\)"):
        del phases
    redense.release(model)
    assert_no_hooks(model, optimizer)


def test_a_scheduler_dropped_together_with_its_model_goes_without_a_warning():
    model, optimizer, phases = sparse_phase()
    del model, optimizer
    del phases


@pytest.mark.parametrize("start", [0, 1])
def test_averages_are_held_where_the_model_is_and_free_again_with_it(start):
    model, optimizer = build()
    average = AveragedModel(model)
    phases = PhaseScheduler(model, optimizer, dsd(start, 2, 1, 0.5), averages=[average])
    for step in range(start):
        train(model, optimizer, step)
        average.update_parameters(model)
        phases.step()
    for step in range(2):
        train(model, optimizer, step)
        average.update_parameters(model)
        for name, mask in phases.held.masks.items():
            assert not average.module.get_parameter(name)[~mask].any()
            assert average.module.get_parameter(name)[mask].any()
        phases.step()
    train(model, optimizer, 3)
    average.update_parameters(model)
    assert (average.module.mix.weight != 0).all()


def test_an_average_loaded_before_the_scheduler_gets_back_what_the_first_phase_zeroed():
    model, optimizer = build()
    average = AveragedModel(model)
    phases = PhaseScheduler(model, optimizer, dsd(0, 1, 1, 0.5), averages=[average])
    train(model, optimizer, 0)
    phases.step()
    train(model, optimizer, 1)
    average.update_parameters(model)
    saved = copy.deepcopy((model.state_dict(), average.state_dict(), phases.state_dict()))
    twin, twin_optimizer = build()
    twin_average = AveragedModel(twin)
    twin.load_state_dict(saved[0])
    twin_average.load_state_dict(saved[1])
    PhaseScheduler(twin, twin_optimizer, phases.plan, averages=[twin_average]).load_state_dict(
        saved[2]
    )
    for name, value in twin_average.state_dict().items():
        assert torch.equal(value, saved[1][name]), name


def walk_three(frozen_before, frozen_after):
    """dsd(1, 1, 1) with the second linear layer frozen at some point; what was held."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model[2].weight.requires_grad_(not frozen_before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    phases = PhaseScheduler(model, optimizer, dsd(1, 1, 1, 0.5))
    held = []
    for phase in ("dense", "sparse", "redense"):
        if phase == frozen_after:
            model[2].weight.requires_grad_(frozen_before)
        held = held or list(phases.held.masks if phases.held else ())
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        phases.step()
    return held


def test_a_layer_that_is_unfrozen_in_the_dense_phase_is_held_with_the_others():
    assert walk_three(frozen_before=True, frozen_after="dense") == [
        "0.weight",
        "2.weight",
        "4.weight",
    ]


def test_a_layer_that_is_frozen_in_the_dense_phase_is_left_alone():
    assert walk_three(frozen_before=False, frozen_after="dense") == ["0.weight", "4.weight"]


def test_released_weights_that_never_grow_back_are_named_at_the_next_phase_s_end():
    with pytest.warns(UserWarning, match=r"released weights of 2\.weight are still zero"):
        walk_three(frozen_before=False, frozen_after="redense")


def test_a_distributed_checkpoint_loads_the_scheduler_inside_a_sparse_phase(tmp_path):
    original, _, phases = sparse_phase()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process: nothing is distributed
        dcp.save({"phases": phases.stateful()}, checkpoint_id=tmp_path)
        twin, twin_optimizer = build()
        fresh = PhaseScheduler(twin, twin_optimizer, phases.plan)
        dcp.load({"phases": fresh.stateful()}, checkpoint_id=tmp_path)
    assert fresh.position == phases.position
    for name, mask in phases.held.masks.items():
        assert torch.equal(fresh.held.masks[name], mask)
        assert not original.get_parameter(name)[~mask].any()
        assert not twin.get_parameter(name)[~mask].any()


def test_closing_early_releases_and_warns_which_phases_did_not_run():
    model, optimizer, phases = sparse_phase()
    with pytest.warns(
        UserWarning, match="stopped at step 2 of 4: sparse, redense did not run to the end"
    ):
        phases.close()
    assert phases.held is None
    assert_no_hooks(model, optimizer)


def test_closing_at_the_end_is_silent():
    model, optimizer = build()
    phases = PhaseScheduler(model, optimizer, dsd(0, 1, 1))
    walk(model, optimizer, phases, range(2))
    phases.close()


def test_detaching_removes_the_hooks_and_touches_no_weight_and_no_state():
    model, optimizer, phases = sparse_phase("Adam")
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    phases.detach()
    assert_no_hooks(model, optimizer)
    assert phases.held is None
    assert_same((model.state_dict(), optimizer.state_dict()), before)


def test_a_second_constraint_on_the_same_weight_raises_and_leaves_the_first_whole():
    model, optimizer, phases = sparse_phase()
    with (
        pytest.raises(ValueError, match=r"conv.weight is already held .* release that one first"),
        redense.sparse(model, optimizer, 0.3),
    ):
        pass
    with pytest.raises(ValueError, match="already held"):
        PhaseScheduler(model, optimizer, dsd(0, 1, 1))
    gc.collect()
    train(model, optimizer, 2)
    assert_held(model, phases)


@pytest.mark.parametrize("dense", [0, 30])
def test_a_weight_that_no_optimizer_trains_is_refused_before_the_first_phase(dense):
    model, _ = build()
    some = torch.optim.SGD(
        [weight for name, weight in model.named_parameters() if name != "conv.weight"], lr=0.1
    )
    with pytest.raises(
        ValueError, match=r"conv.weight is in no param group .* exclude='conv.weight'"
    ):
        PhaseScheduler(model, some, dsd(dense, 1, 1))
    gc.collect()
    assert_no_hooks(model, some)
    phases = PhaseScheduler(model, some, dsd(0, 1, 1), exclude="conv.weight")
    assert list(phases.held.masks) == HELD[1:]
    phases.detach()


def with_weight_norm():
    return nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (lambda: nn.Linear(6, 6), {"eps": 0.0}),
        (with_weight_norm, {}),
        (lambda: nn.Conv1d(6, 6, 1), {}),
        (lambda: nn.LayerNorm(6), {}),
    ],
    ids=["eps=0", "weight norm", "the first convolution", "no matrix"],
)
def test_what_cannot_be_held_is_no_matter_to_a_plan_that_holds_nothing(make, settings):
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    with pytest.raises(ValueError, match=r"eps=0|is not a weight|no prunable weight"):
        PhaseScheduler(model, optimizer, dsd(1, 1, 1))
    plan = Plan((Phase("dense", 1), Phase("slower", 1, lr=0.1)))
    phases = PhaseScheduler(model, optimizer, plan)
    phases.load_state_dict(phases.state_dict())
    for _ in range(2):
        model(torch.randn(2, 6, 6)).square().sum().backward()
        optimizer.step()
        phases.step()
    assert phases.finished
    phases = PhaseScheduler(model, optimizer, plan)
    optimizer.step()
    with pytest.warns(UserWarning, match="dense, slower did not run to the end"):
        del phases


@pytest.mark.parametrize("dense", [0, 3])
@pytest.mark.parametrize(
    "kind", ["Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adamax", "Adadelta"]
)
def test_an_optimizer_whose_held_weights_would_step_by_0_over_0_is_refused_at_once(kind, dense):
    model, _ = build()
    optimizer = getattr(torch.optim, kind)(model.parameters(), eps=0.0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"{kind} has eps=0, .* 0/0; pass eps=1e-8"):
        PhaseScheduler(model, optimizer, dsd(dense, 1, 1))
    assert_same(model.state_dict(), before)
    with pytest.raises(ValueError, match="eps=0"), redense.sparse(model, optimizer, 0.5):
        pass
    assert_same(model.state_dict(), before)
    assert_no_hooks(model, optimizer)


WRAPPERS = {
    "plain": lambda model: model,
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("saved", WRAPPERS)
@pytest.mark.parametrize("loaded", WRAPPERS)
def test_a_state_goes_from_any_wrapper_to_any_other(saved, loaded):
    model, optimizer = build()
    phases = PhaseScheduler(WRAPPERS[saved](model), optimizer, dsd(1, 2, 1, sparsity=0.5))
    phases.step()
    state = on_disk(phases.state_dict())
    phases.detach()
    other, optimizer = build()
    wrapped = WRAPPERS[loaded](other)
    again = PhaseScheduler(wrapped, optimizer, dsd(1, 2, 1, sparsity=0.5))
    again.load_state_dict(state)
    for name in HELD:
        assert torch.equal(other.get_parameter(name) == 0, model.get_parameter(name) == 0)
    train(wrapped, optimizer, 0)
    assert all(int((other.get_parameter(name) == 0).sum()) for name in HELD)
    again.detach()


@pytest.mark.parametrize("dense", [0, 30])
def test_a_misspelt_mask_is_refused_before_the_first_phase(dense):
    with pytest.raises(ValueError, match="magnitude, random, global or a function, got 'magnitud'"):
        PhaseScheduler(*build(), dsd(dense, 1, 1, mask="magnitud"))
    gc.collect()


@pytest.mark.parametrize("wrong", [None, [30, 20, 20], (Phase("dense", 1),)])
def test_what_is_no_plan_is_refused(wrong):
    with pytest.raises(
        TypeError, match=r"plan must be a redense.Plan, got .*redense.dsd\(30, 20, 20\)"
    ):
        PhaseScheduler(*build(), wrong)


@pytest.mark.parametrize("wrong", [None, [], [1], nn.Linear(1, 1)], ids=str)
def test_what_is_no_optimizer_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="optimizer must be"):
        PhaseScheduler(build()[0], wrong, dsd(1, 1, 1))


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (dsd(1, 2, 2, sparsity=0.5), "redense  3-4"),
        (dsd(1, 2, 1, 0.5, mask="random"), "random"),
        (dsd(1, 2, 1, 0.4), "0.4"),
    ],
    ids=["length", "mask", "sparsity"],
)
def test_a_state_of_another_plan_is_refused_and_both_plans_are_shown(other, shown):
    model, optimizer, phases = sparse_phase()
    state = phases.state_dict()
    phases.detach()
    stranger = PhaseScheduler(model, optimizer, other)
    with pytest.raises(ValueError, match="saved under another plan") as raised:
        stranger.load_state_dict(state)
    assert str(phases.plan) in str(raised.value)
    assert str(other) in str(raised.value)
    assert shown in str(other)
    assert shown not in str(phases.plan)


def test_a_state_of_another_model_is_refused_by_name():
    _, _, phases = sparse_phase()
    state = phases.state_dict()
    small = nn.Sequential(nn.Linear(2, 2))
    stranger = PhaseScheduler(small, torch.optim.SGD(small.parameters(), lr=0.1), phases.plan)
    with pytest.raises(
        ValueError, match=r"'conv.weight', which is no prunable weight of this model"
    ):
        stranger.load_state_dict(state)


@pytest.mark.parametrize("size", [5, 7])
def test_a_state_of_a_model_with_other_shapes_is_refused_by_name(size):
    plan, states = dsd(0, 1, 1), []
    for width in (6, size):
        model = nn.Sequential(nn.Linear(width, width))
        phases = PhaseScheduler(model, torch.optim.SGD(model.parameters(), lr=0.1), plan)
        states.append(phases.state_dict())
    with pytest.raises(
        ValueError, match=rf"mask of '0.weight' does not fit its shape \({size}, {size}\)"
    ):
        phases.load_state_dict(states[0])


def test_a_state_saved_after_close_is_refused_since_its_masks_are_gone():
    model, optimizer, phases = sparse_phase()
    with pytest.warns(UserWarning, match="did not run to the end"):
        phases.close()
    state = phases.state_dict()
    with pytest.raises(
        ValueError,
        match=r"step 2, in phase 'sparse', but holds no masks: .* save state_dict\(\) before",
    ):
        PhaseScheduler(model, optimizer, phases.plan).load_state_dict(state)


# What the constraints that it opens stand: found by trying to break them.


def held_after(model, optimizer, phases, disturb):
    disturb(model, optimizer)
    optimizer.step()
    assert_held(model, phases)


def test_a_new_gradient_at_the_old_one_s_address_is_still_masked():
    model, optimizer, phases = sparse_phase()

    def fresh_gradients(model, optimizer):
        for weight in model.parameters():
            weight.grad = (
                None  # frees the masked gradient; the next tensor takes its id and its version
            )
            weight.grad = torch.zeros_like(weight).add_(0.1)

    for step in range(5):
        train(model, optimizer, step)
        held_after(model, optimizer, phases, fresh_gradients)


def test_a_weight_that_was_given_new_storage_is_still_held():
    model, optimizer, phases = sparse_phase()

    def new_storage(model, optimizer):
        flat = nn.utils.parameters_to_vector(model.parameters())
        nn.utils.vector_to_parameters(flat.detach() + 0.1, model.parameters())

    held_after(model, optimizer, phases, new_storage)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_state_from_the_dense_phase_does_not_move_held_weights(kind):
    model, optimizer = build(kind)
    phases = PhaseScheduler(model, optimizer, dsd(1, 3, 1, sparsity=0.5))
    train(model, optimizer, 0)
    dense = copy.deepcopy(optimizer.state_dict())
    phases.step()
    train(model, optimizer, 1)
    optimizer.load_state_dict(dense)
    train(model, optimizer, 2)
    assert_held(model, phases)


def test_two_optimizers_of_the_same_weight_both_hold_it():
    model, first = build("SGD")
    second = OPTIMIZERS["Adam"](model.parameters())
    for optimizer in (first, second):
        train(model, optimizer, 0)
    phases = PhaseScheduler(model, [first, second], dsd(0, 4, 1, sparsity=0.5))
    for step, optimizer in enumerate([first, second, first, second]):
        train(model, optimizer, step)
        assert_held(model, phases)
        phases.step()
    assert_no_hooks(model, first, second)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(6, 6), torch.ones(36, dtype=torch.bool), torch.ones(6, 6, dtype=torch.uint8)],
    ids=str,
)
def test_a_mask_that_is_no_bool_tensor_of_the_weight_s_shape_is_refused_by_name(mask):
    model, optimizer = build()
    before = model.mix.weight.detach().clone()
    with pytest.raises(
        TypeError, match=r"mix.weight: a mask must be a bool tensor .*\(6, 6\), got "
    ):
        redense.Constraint(model, optimizer, {"mix.weight": mask})
    assert torch.equal(model.mix.weight, before)
    assert_no_hooks(model, optimizer)


def test_two_masks_for_one_tied_weight_are_refused():
    model, optimizer = build()
    masks = {name: torch.ones(6, 6, dtype=torch.bool) for name in ("mix.weight", "again.weight")}
    with pytest.raises(ValueError, match=r"again.weight is tied to another weight of these masks"):
        redense.Constraint(model, optimizer, masks)
    assert_no_hooks(model, optimizer)
