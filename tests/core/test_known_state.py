"""Whether somebody else wrote to an optimizer's state since it was trusted."""

import copy

import pytest
import torch
from torch import nn

from redense.optimizers import KnownState


@pytest.fixture
def adam():
    weights = [nn.Parameter(torch.randn(3)) for _ in range(3)]
    optimizer = torch.optim.Adam(weights)
    for weight in weights:
        weight.grad = torch.ones(3)
    optimizer.step()
    return optimizer, weights


def swap(optimizer, weights):
    state = optimizer.state
    kept = [state[weight] for weight in weights]
    state.clear()
    for weight, one in zip(reversed(weights), kept, strict=True):  # the same values in this order
        state[weight] = one


WRITES = {
    "a write in place": lambda o, w: o.state[w[0]]["exp_avg"].add_(1),
    "another tensor": lambda o, w: o.state[w[0]].update(exp_avg=torch.zeros(3)),
    "another entry": lambda o, w: o.state.update({w[0]: dict(o.state[w[0]], step=torch.ones(()))}),
    "another weight's": lambda o, w: o.state.update({w[0]: o.state.pop(w[2])}),
    "given away": lambda o, w: o.state.update({w[2]: o.state.pop(w[0])}),
    "exchanged": swap,
    "loaded": lambda o, w: o.load_state_dict(copy.deepcopy(o.state_dict())),
    "cleared": lambda o, w: o.state.clear(),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_of_others_is_seen_once(write, adam):
    optimizer, weights = adam
    known = KnownState(optimizer, weights[:2])
    assert not known.was_written()
    write(optimizer, weights)
    assert known.was_written()
    known.trust()
    assert not known.was_written()
    if optimizer.state.get(weights[0]):
        optimizer.state[weights[0]]["exp_avg"].add_(1)
        assert known.was_written()


def test_the_state_of_weights_that_are_not_held_is_nobody_s_business(adam):
    optimizer, weights = adam
    known = KnownState(optimizer, weights[:2])
    optimizer.state[weights[2]]["exp_avg"].add_(1)
    assert not known.was_written()


def test_states_that_are_no_tables_are_passed_over(adam):
    optimizer, weights = adam
    optimizer.state[weights[0]] = 0
    optimizer.state["shared"] = {"count": [torch.zeros(1)]}
    known = KnownState(optimizer, weights[:2])
    assert not known.was_written()
    optimizer.state[weights[1]]["nested"] = {"deep": [torch.zeros(1)], "none": None}
    assert known.was_written()
    known.trust()
    optimizer.state[weights[1]]["nested"]["deep"][0].add_(1)
    assert known.was_written()
