"""Held means held, whoever writes: closures, hooks, rollbacks, wrappers, copies, averages."""

import copy
import pickle
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import redense

KINDS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=1e-2),
}


def build(kind="SGD"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    return model, KINDS[kind](model.parameters())


def loss_of(model):
    inputs = torch.randn(32, 8)
    return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()


def train(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@torch.no_grad()
def add_noise(model):
    for weight in model.parameters():
        weight.add_(torch.randn_like(weight), alpha=1e-3)


def assert_held(model, held):
    for name, mask in held.masks.items():
        off = model.get_parameter(name)[~mask].abs().max().item()
        assert off == 0, f"{name} is {off:.2g} off zero"


def assert_free(model):
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


# what is written while step() runs


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_closure_writes_to_held_weights_is_zero_after_the_step(kind, by_name):
    model, optimizer = build(kind)

    def closure():
        add_noise(model)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(3):
            loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
            assert loss.item() > 0
            assert_held(model, held)


def test_a_closure_that_writes_after_its_backward_is_seen_too():
    model, optimizer = build()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        add_noise(model)
        return loss

    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(3):
            optimizer.step(closure)
            assert_held(model, held)


@pytest.mark.parametrize("when", ["register_step_pre_hook", "register_step_post_hook"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_user_s_step_hook_writes_is_zero_after_the_step(kind, first, when):
    model, optimizer = build(kind)

    def register():
        getattr(optimizer, when)(lambda *_: add_noise(model))

    if first:
        register()
    with redense.sparse(model, optimizer, 0.5) as held:
        if not first:
            register()
        for _ in range(3):
            train(model, optimizer, 1)
            assert_held(model, held)


def test_survivors_are_the_user_s_whatever_is_zeroed_beside_them():
    model, optimizer = build()
    optimizer.register_step_post_hook(lambda *_: model[0].weight.data.fill_(7.0))
    optimizer.register_step_post_hook(lambda *_: model[0].weight.detach().mul_(1.0))
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer, 1)
        kept = held.masks["0.weight"]
        assert torch.equal(model[0].weight, torch.full_like(model[0].weight, 7.0).mul(kept))


# an optimizer's state that is put back


def in_place(optimizer, saved):
    for now, old in zip(
        optimizer.state_dict()["state"].values(), saved["state"].values(), strict=True
    ):
        for name, value in old.items():
            now[name].copy_(value)


def assigned(optimizer, saved):
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight, old in zip(weights, saved["state"].values(), strict=True):
        optimizer.state[weight] = copy.deepcopy(old)


def replaced(optimizer, saved):
    twin = type(optimizer)(optimizer.param_groups)
    twin.load_state_dict(copy.deepcopy(saved))
    optimizer.__setstate__({"state": twin.state, "param_groups": optimizer.param_groups})


def loaded(optimizer, saved):
    optimizer.load_state_dict(copy.deepcopy(saved))


@pytest.mark.parametrize("where", ["between two steps", "in a pre-hook", "in a post-hook"])
@pytest.mark.parametrize("put_back", [in_place, assigned, replaced, loaded])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rolled_back_state_does_not_move_held_weights(kind, put_back, where):
    model, optimizer = build(kind)
    train(model, optimizer, 10)
    saved = copy.deepcopy(optimizer.state_dict())
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer, 2)
        if where == "between two steps":
            put_back(optimizer, saved)
        else:
            register = {
                "in a pre-hook": optimizer.register_step_pre_hook,
                "in a post-hook": optimizer.register_step_post_hook,
            }[where]
            hook = register(lambda *_: put_back(optimizer, saved))
            train(model, optimizer, 1)
            hook.remove()
        for _ in range(3):
            train(model, optimizer, 1)
            assert_held(model, held)


def test_state_one_level_deeper_is_held_and_released_like_any_other():
    class Nested(torch.optim.Optimizer):
        """Momentum in a dictionary of a list, as HeavyBall keeps it for views of a weight."""

        def __init__(self, weights):
            super().__init__(weights, {"lr": 0.01})

        @torch.no_grad()
        def step(self):
            for weight in self.param_groups[0]["params"]:
                views = self.state[weight].setdefault("views", [{}])
                momentum = views[0].setdefault("exp_avg", torch.zeros_like(weight))
                momentum.mul_(0.9).add_(weight.grad)
                weight.add_(momentum, alpha=-0.01)

    model, _ = build()
    optimizer = Nested(model.parameters())
    train(model, optimizer, 10)
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer, 3)
    before = model[0].weight.detach().clone()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(model[0].weight[~held.masks["0.weight"]], before[~held.masks["0.weight"]])


# wrappers


class SAM(torch.optim.Optimizer):
    """Ascend, then let an ordinary optimizer descend from where we were."""

    def __init__(self, weights):
        super().__init__(weights, {"rho": 0.05})
        self.base_optimizer = KINDS["SGD"](self.param_groups)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["old"] = weight.clone()
            weight.add_(weight.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self):
        for weight in self.param_groups[0]["params"]:
            weight.copy_(self.state[weight]["old"])
        self.base_optimizer.step()


def test_a_two_step_optimizer_is_held_and_released_through_the_one_inside():
    model, _ = build()
    optimizer = SAM(model.parameters())

    def both():
        for half in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            loss_of(model).backward()
            half()

    both()
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(3):
            both()
            assert_held(model, held)
    for name, mask in held.masks.items():
        momentum = optimizer.base_optimizer.state[model.get_parameter(name)]["momentum_buffer"]
        assert not momentum[~mask].any()


class Lookahead(torch.optim.Optimizer):
    """Every second step goes half of the way back to slow weights; torch calls no hook of it."""

    def __init__(self, inner):
        self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state
        self.defaults, self.count = inner.defaults, 0
        self.slow = [weight.detach().clone() for weight in inner.param_groups[0]["params"]]

    def zero_grad(self):
        self.inner.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % 2 == 0:
            for slow, weight in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(weight, 0.5)
                weight.copy_(slow)
        return loss


@pytest.mark.parametrize("scheduled", [False, True])
def test_what_a_wrapper_without_hooks_writes_is_zero_after_its_step(scheduled):
    model, inner = build()
    optimizer = Lookahead(inner)
    rates = torch.optim.lr_scheduler.StepLR(optimizer, 2) if scheduled else None
    train(model, optimizer, 3)
    before = vars(optimizer).get("step")
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(4):
            train(model, optimizer, 1)
            assert_held(model, held)
            if rates:
                rates.step()
    assert vars(optimizer).get("step") is before
    assert optimizer.count == 7
    assert_free(model)


def test_timm_s_lookahead_is_held_too():
    timm_optim = pytest.importorskip("timm.optim")
    model, inner = build()
    optimizer = timm_optim.Lookahead(inner, k=2)
    train(model, optimizer, 3)
    with redense.sparse(model, optimizer, 0.5) as held:
        for _ in range(4):
            train(model, optimizer, 1)
            assert_held(model, held)


def test_wrappers_that_keep_each_other_are_looked_through_once():
    model, inner = build()
    optimizer = Lookahead(inner)
    inner.around = optimizer
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer, 2)
        assert_held(model, held)


# what nobody sees, and who else trains


def test_a_write_through_data_is_told_at_release():
    model, optimizer = build("AdamW")
    held = redense.Constraint(model, optimizer, redense.build_masks(redense.prunable(model), 0.5))
    train(model, optimizer, 1)
    model[0].weight.data.fill_(1.0)
    train(model, optimizer, 1)
    with pytest.warns(UserWarning, match=r"held weights of 0\.weight were not zero at release"):
        held.release()


def test_a_layer_that_is_replaced_while_it_is_held_is_said():
    model, optimizer = build()
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer)
        model[0] = nn.Linear(8, 16)
        optimizer.add_param_group({"params": model[0].parameters()})
        train(model, optimizer)
        with pytest.warns(UserWarning, match=r"0\.weight left the model while it was held") as told:
            held.release()
    assert len(told) == 1
    assert model[0].weight.all()


def test_weights_that_another_optimizer_moves_are_an_error_at_the_phase_s_end():
    model, optimizer = build()
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(1, 1, 1, 0.5))
    train(model, optimizer)
    phases.step()
    train(model, KINDS["AdamW"](model.parameters()))  # made anew, as many scripts do per phase
    with pytest.raises(RuntimeError, match=r"'sparse' held nothing: .* never stepped"):
        phases.step()
    redense.release(model)


# copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_of_a_whole_experiment_in_a_sparse_phase_is_refused_and_names_state_dict(how):
    model, optimizer = build()
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(0, 2, 1, 0.5))
    with pytest.raises(TypeError, match=r"state_dict\(\)"):
        how((model, optimizer, phases))
    train(model, optimizer)
    assert_held(model, phases.held)
    phases.detach()


# averages and release


@pytest.mark.parametrize("form", ["module", "state dict", "compiled"])
def test_masks_apply_to_an_average_of_the_model(form):
    model, optimizer = build()
    average = AveragedModel(model)
    with redense.sparse(model, optimizer, 0.5) as held:
        train(model, optimizer)
        average.update_parameters(model)
        if form == "compiled":
            held.apply_to(torch.compile(average))
        else:
            held.apply_to(average if form == "module" else average.state_dict())
        kept = average.module[0].weight[held.masks["0.weight"]]
        assert kept.all()
        assert_held(average.module, held)


def test_an_average_of_another_model_is_refused_by_the_first_name_that_it_lacks():
    model, optimizer = build()
    with (
        redense.sparse(model, optimizer, 0.5) as held,
        pytest.raises(KeyError, match=r"no parameter '2\.weight'"),
    ):
        held.apply_to(nn.Sequential(nn.Linear(8, 16)))


def test_a_model_is_freed_without_the_constraint_that_holds_it():
    model, optimizer = build("AdamW")
    train(model, optimizer)
    redense.Constraint(
        model, optimizer, redense.build_masks(redense.prunable(model), 0.5)
    )  # nobody keeps it
    train(model, optimizer)
    redense.release(model)
    assert_free(model)
    assert (model[0].weight == 0).float().mean() == 0.5
    train(model, optimizer)
    assert (model[0].weight != 0).all()


def test_freeing_a_model_that_nothing_holds_does_nothing():
    model, _ = build()
    before = copy.deepcopy(model.state_dict())
    redense.release(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# all or nothing


def test_an_optimizer_without_a_torch_optimizer_inside_is_refused_before_anything_is_zeroed():
    model, _ = build()
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Optimizer or several"):
        redense.PhaseScheduler(model, object(), redense.dsd(1, 1, 1, 0.5))
    assert model[0].weight.all()
    assert_free(model)


def test_a_constraint_that_cannot_be_built_leaves_no_hook_and_no_zero():
    model, optimizer = build()
    masks = redense.build_masks(redense.prunable(model), 0.5)
    model[2].weight.requires_grad_(False)  # torch refuses a gradient hook for it
    with pytest.raises(RuntimeError):
        redense.Constraint(model, optimizer, masks)
    assert model[0].weight.all()
    assert_free(model)
    assert not optimizer._optimizer_step_pre_hooks


def test_a_constraint_prints_what_it_holds():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with redense.sparse(model, optimizer, {"0.weight": 0.25, "2.weight": 0.5}) as held:
        assert str(held).splitlines() == [
            "weight    shape  weights  held  share",
            "0.weight  8 x 4  32       8     25 %",
            "2.weight  2 x 8  16       8     50 %",
            "16 of 48 weights are held at zero",
        ]
    assert str(held).endswith("16 of 48 weights were held at zero and are free")


def steps_taken(function):
    """How many lines of Python a call runs."""
    taken = 0

    def count(frame, event, argument):
        nonlocal taken
        frame.f_trace_opcodes = True
        taken += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function()
    finally:
        sys.settrace(before)
    return taken


def test_building_a_constraint_takes_time_in_proportion_to_its_layers():
    def build(layers):
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers)))
        optimizer = torch.optim.AdamW(model.parameters())
        weights = redense.prunable(model)
        masks = redense.build_masks(weights, 0.5)
        whole = [lambda: redense.prunable(model), lambda: redense.build_masks(weights, 0.5)]
        whole.append(lambda: redense.Constraint(model, optimizer, masks).release())
        return [steps_taken(part) for part in whole]

    build(10)  # what happens once
    few, many = build(40), build(160)
    for small, large in zip(few, many, strict=True):
        assert large < 4.2 * small


def test_nothing_is_said_in_a_whole_plan_that_nobody_disturbs():
    model, optimizer = build("AdamW")
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(1, 2, 1, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while not phases.finished:
            train(model, optimizer)
            phases.step()
    assert_free(model)


class AdamW8bit(torch.optim.AdamW):
    """As bitsandbytes and torchao call theirs."""


class Settings:
    optim_bits = 8


@pytest.mark.parametrize("how", ["by its name", "by its settings", "inside a wrapper"])
def test_an_optimizer_with_a_state_of_8_bits_is_refused_before_training(how):
    model, optimizer = build("AdamW")
    if how == "by its settings":
        optimizer.args = Settings()  # bitsandbytes' AdamW(optim_bits=8)
    else:
        optimizer = AdamW8bit(model.parameters())
    given = Lookahead(optimizer) if how == "inside a wrapper" else optimizer
    with pytest.raises(NotImplementedError, match=r"8 bits or fewer.*use its 32-bit form"):
        redense.PhaseScheduler(model, given, redense.dsd(1, 1, 1, 0.5))
    assert model[0].weight.all()
