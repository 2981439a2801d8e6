"""The contract of shared/design.md over every optimizer that torch has, foreach and fused too.

Lines 1 (held means zero) and 2 (release means from zero, calmly) are here; each assertion is shown
to be able to fail at the end, by a constraint with one of its parts taken out.
"""

import copy

import pytest
import torch
from torch import nn

import redense
from redense import constraint as constraint_module

ADAM_KIN = {
    "Adam": {},
    "Adam-amsgrad": {"amsgrad": True},
    "AdamW": {},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "RMSprop": {},
    "RMSprop-centered": {"centered": True, "momentum": 0.9},
}
ELEMENTWISE = ADAM_KIN | {
    "SGD": {"lr": 0.05},
    "SGD-momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
    "SGD-nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    "Adagrad": {"lr": 0.05},
    "Adadelta": {"lr": 0.5},
    "ASGD": {"lr": 0.05},
    "Rprop": {"lr": 1e-3},
    "Adafactor": {"lr": 1e-2},
}
MIXING = {
    "Muon": {"lr": 0.02},
    "LBFGS": {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"},
}
EVERY = ELEMENTWISE | MIXING
WITHOUT_FOREACH = {"Adafactor", "Muon", "LBFGS"}  # Adafactor's own foreach is tried below
FUSED = {"SGD", "SGD-momentum", "SGD-nesterov", "Adam", "Adam-amsgrad", "AdamW", "Adagrad"}

CASES = [(name, {}) for name in EVERY]
CASES += [
    (name, {"foreach": True}) for name in [*(set(ELEMENTWISE) - WITHOUT_FOREACH), "Adafactor"]
]
CASES += [(name, {"fused": True}) for name in sorted(FUSED)]
CASES = sorted(CASES, key=str)


def build(name, dtype=torch.float32, **extra):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 16, bias=False),
        nn.Tanh(),
        nn.Linear(16, 16, bias=False),
        nn.Tanh(),
        nn.Linear(16, 3, bias=False),
    ).to(dtype)
    settings = {"lr": 1e-2} | EVERY[name] | extra
    return model, getattr(torch.optim, name.split("-")[0])(model.parameters(), **settings)


def batches(seed, n, rows=16):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(12, 3, generator=torch.Generator().manual_seed(99))
    for _ in range(n):
        x = torch.randn(rows, 12, generator=generator)
        yield x, (x @ truth + 0.5 * torch.randn(rows, 3, generator=generator)).argmax(1)


def loss_of(model, x, y):
    return nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)


def plain(model, optimizer, n=6, seed=1, check=lambda: None):
    for x, y in batches(seed, n):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = loss_of(model, x, y)
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        check()


def in_closure(model, optimizer, check):
    for x, y in batches(1, 6):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = loss_of(model, x, y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            return loss

        optimizer.step(closure)
        check()


def clipping(model, optimizer, check):
    for x, y in batches(1, 6):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        check()


def accumulation(model, optimizer, check):
    for number, (x, y) in enumerate(batches(1, 12)):
        loss_of(model, x, y).backward()
        if number % 3 == 2:
            optimizer.step()
            optimizer.zero_grad(set_to_none=number % 2 == 0)
            check()


def noisy_gradients(model, optimizer, check):
    """Noise that a user adds between backward and step, and weights that a user overwrites between
    two steps."""
    for x, y in batches(1, 6):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        for weight in model.parameters():
            weight.grad.add_(torch.full_like(weight.grad, 0.01))
        optimizer.step()
        check()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1e-3)


def scaled(dtype):
    def run(model, optimizer, check):
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
        skipped = 0
        for number, (x, y) in enumerate(batches(1, 8)):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = loss_of(model, x, y)
            scaler.scale(loss * (float("inf") if number in (0, 4) else 1.0)).backward()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
            check()
        assert skipped == 2

    return run


LOOPS = {
    "plain": lambda model, optimizer, check: plain(model, optimizer, check=check),
    "closure": in_closure,
    "clipping": clipping,
    "accumulation": accumulation,
    "noise": noisy_gradients,
    "scaler-bf16": scaled(torch.bfloat16),
    "scaler-fp16": scaled(torch.float16),
}


def assert_zero(held, model):
    for name, mask in held.masks.items():
        weight = model.get_parameter(name)
        assert torch.equal(weight[~mask], torch.zeros_like(weight[~mask])), f"{name} left zero"
        assert weight.isfinite().all()
        assert weight[mask].count_nonzero() > 0


SCENES = [
    (*case, loop)
    for case in CASES
    for loop in LOOPS
    if case[0] != "LBFGS" or loop in ("plain", "closure")
]


@pytest.mark.parametrize(("name", "extra", "loop"), SCENES, ids=str)
def test_held_means_zero_after_every_step(name, extra, loop):
    model, optimizer = build(name, **extra)
    plain(model, optimizer)  # momentum that would pull the held weights off zero
    with redense.sparse(model, optimizer, 0.5) as held:
        LOOPS[loop](model, optimizer, lambda: assert_zero(held, model))


PRECISIONS = [(name, dtype) for name in EVERY for dtype in (torch.bfloat16, torch.float64)]
PRECISIONS.remove(("LBFGS", torch.bfloat16))  # diverges in bf16 without any mask


@pytest.mark.parametrize(("name", "dtype"), PRECISIONS, ids=str)
def test_held_means_zero_in_other_precisions(name, dtype):
    model, optimizer = build(name, dtype)
    plain(model, optimizer)
    with redense.sparse(model, optimizer, 0.5) as held:
        plain(model, optimizer, check=lambda: assert_zero(held, model))


def test_clipping_and_logging_see_the_masked_gradient():
    model, optimizer = build("SGD")
    with redense.sparse(model, optimizer, 0.5) as held:
        x, y = next(iter(batches(1, 1)))
        loss_of(model, x, y).backward()
        for name, mask in held.masks.items():
            assert not model.get_parameter(name).grad[~mask].any()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        masked = (
            torch.stack(
                [model.get_parameter(n).grad[m].square().sum() for n, m in held.masks.items()]
            )
            .sum()
            .sqrt()
        )
        torch.testing.assert_close(norm, masked)


def test_a_nan_gradient_of_a_held_weight_is_zeroed_not_multiplied():
    model, optimizer = build("SGD-momentum")
    with redense.sparse(model, optimizer, 0.5) as held:
        for name, mask in held.masks.items():
            model.get_parameter(name).grad = torch.where(mask, 0.01, float("nan"))
        optimizer.step()
        assert_zero(held, model)


def held_and_released(name, steps=30, **extra):
    model, optimizer = build(name, **extra)
    plain(model, optimizer, 20)
    with redense.sparse(model, optimizer, 0.5) as held:
        plain(model, optimizer, steps, seed=2)
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        states = copy.deepcopy([optimizer.state[p] for p in model.parameters()])
    return model, optimizer, held.masks, weights, states


@pytest.mark.parametrize(("name", "extra"), [c for c in CASES if c[0] != "LBFGS"], ids=str)
def test_release_keeps_survivors_and_starts_the_others_from_zero(name, extra):
    model, optimizer, masks, weights, states = held_and_released(name, **extra)
    for (key, weight), before in zip(model.named_parameters(), states, strict=True):
        kept = masks[key]
        assert torch.equal(weight, weights[key])
        assert not weight[~kept].any()
        for state, value in optimizer.state[weight].items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                assert torch.equal(value[kept], before[state][kept])
            else:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[state]))


@pytest.mark.parametrize(("name", "extra"), [c for c in CASES if c[0] in ELEMENTWISE], ids=str)
def test_released_weights_carry_no_momentum(name, extra):
    model, optimizer, masks, _, _ = held_and_released(name, steps=3, **extra)
    for _ in range(5):
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        for key, mask in masks.items():
            assert not model.get_parameter(key)[~mask].any()


PHASES = [(name, steps) for name in ADAM_KIN for steps in (30, 300)]
PHASES += [
    (name, 3000) for name in ("AdamW", "NAdam", "RMSprop")
]  # one of each kind of second moment: time


@pytest.mark.parametrize(("name", "steps"), PHASES)
def test_released_weights_do_not_leap(name, steps):
    model, optimizer, masks, _, _ = held_and_released(name, steps=steps)
    rate = optimizer.param_groups[0]["lr"]
    released = survivors = 0.0
    for x, y in batches(3, 50):
        before = {key: model.get_parameter(key).detach().clone() for key in masks}
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()
        for key, mask in masks.items():
            moved = (model.get_parameter(key).detach() - before[key]).abs()
            released = max(released, float(moved[~mask].max()))
            survivors = max(survivors, float(moved[mask].max()))
    assert released > 0
    assert released <= 1.5 * max(rate, survivors)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_behind_and_the_model_is_the_same_object(name):
    model, optimizer = build(name)
    keys, ids = list(model.state_dict()), [id(p) for p in model.parameters()]
    with redense.sparse(model, optimizer, 0.3):
        assert list(model.state_dict()) == keys
        assert [id(p) for p in model.parameters()] == ids
        plain(model, optimizer, 2)
    assert list(model.state_dict()) == keys
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    for weight in model.parameters():
        assert not weight._post_accumulate_grad_hooks
        assert not weight._backward_hooks


def test_lbfgs_goes_on_with_its_history_after_a_resume_inside_a_sparse_phase():
    model, optimizer = build("LBFGS")
    plain(model, optimizer)
    held = redense.Constraint(model, optimizer, redense.build_masks(redense.prunable(model), 0.5))
    plain(model, optimizer, 3)
    history = optimizer.state_dict()["state"][0]["n_iter"]
    held.detach()
    again = redense.Constraint(model, optimizer, held.masks)
    assert optimizer.state_dict()["state"][0]["n_iter"] == history
    again.release()


def test_muon_and_adamw_share_one_constraint():
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
    muon = torch.optim.Muon([model[0].weight], lr=0.02)
    adamw = torch.optim.AdamW([model[0].bias, *model[2].parameters()], lr=1e-2)
    with redense.sparse(model, [muon, adamw], 0.5) as held:
        for x, y in batches(1, 5):
            for optimizer in (muon, adamw):
                optimizer.zero_grad()
            loss_of(model, x, y).backward()
            for optimizer in (muon, adamw):
                optimizer.step()
            assert_zero(held, model)


def test_sparse_adam_is_refused_by_a_clear_error():
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    with redense.sparse(model, optimizer, 0.5):
        model[0].weight.grad = torch.eye(4).to_sparse()
        with pytest.raises(NotImplementedError, match="sparse=False"):
            optimizer.step()


# Each assertion above can fail: the same scenes with one part of the constraint taken out.


def test_without_the_gradient_mask_momentum_leaks(monkeypatch):
    monkeypatch.setattr(constraint_module._Held, "__call__", lambda self, weight: None)
    monkeypatch.setattr(constraint_module._Held, "gradient_was_changed", lambda self: False)
    model, optimizer = build("SGD-momentum")
    with (
        pytest.warns(UserWarning, match="were not zero at release"),
        redense.sparse(model, optimizer, 0.5) as held,
        pytest.raises(AssertionError, match="left zero"),
    ):
        plain(model, optimizer, check=lambda: assert_zero(held, model))


def test_without_the_weight_pass_muon_leaks(monkeypatch):
    monkeypatch.setattr(
        constraint_module, "ELEMENTWISE", constraint_module.ELEMENTWISE | {torch.optim.Muon}
    )
    model, optimizer = build("Muon")
    plain(model, optimizer)
    with (
        pytest.warns(UserWarning, match="were not zero at release"),
        redense.sparse(model, optimizer, 0.5) as held,
        pytest.raises(AssertionError, match="left zero"),
    ):
        plain(model, optimizer, check=lambda: assert_zero(held, model))


def test_without_the_state_policy_stale_momentum_moves_held_weights(monkeypatch):
    monkeypatch.setattr(constraint_module, "hold_state", lambda *arguments: None)
    model, optimizer = build("SGD-momentum")
    plain(model, optimizer)
    with (
        pytest.warns(UserWarning, match="were not zero at release"),
        redense.sparse(model, optimizer, 0.5) as held,
        pytest.raises(AssertionError, match="left zero"),
    ):
        plain(model, optimizer, check=lambda: assert_zero(held, model))


def test_without_the_release_policy_nadam_leaps(monkeypatch):
    monkeypatch.setattr(constraint_module, "release_state", lambda *arguments: None)
    with pytest.raises(AssertionError):
        test_released_weights_do_not_leap("NAdam", 300)


def test_a_lively_row_does_not_hold_the_released_weights_of_calm_ones_back():
    weight = torch.nn.Parameter(torch.arange(1.0, 13.0).view(3, 4))
    model = torch.nn.Module()
    model.weight = weight
    optimizer = torch.optim.RMSprop([weight])
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    mask = torch.tensor(
        [[True, False, True, True], [False, True, True, True], [False, False, False, False]]
    )
    held = redense.Constraint(model, optimizer, {"weight": mask})
    optimizer.state[weight]["square_avg"].copy_(
        torch.tensor([[100.0, 9.0, 100.0, 100.0], [9.0, 1.0, 2.0, 0.5], [9.0, 9.0, 9.0, 9.0]])
    )
    held.release()
    # the smaller of the row's and the column's largest survivor; a row without one leaves it to the
    # columns
    expected = torch.tensor(
        [[100.0, 1.0, 100.0, 100.0], [2.0, 1.0, 2.0, 0.5], [100.0, 1.0, 100.0, 100.0]]
    )
    assert torch.equal(optimizer.state[weight]["square_avg"], expected)
