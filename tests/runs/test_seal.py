"""The sum of a checkpoint's content: whatever is removed, added or edited is noticed."""

import copy

import pytest
import torch
from torch import nn

from redense import PhaseScheduler, dsd
from redense.runs.checkpoints import DamagedCheckpointError, read, save_whole
from redense.runs.seal import content_sum


def checkpoint():
    """What a training saves in its sparse phase."""
    network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    phases = PhaseScheduler(network, optimizer, dsd(0, 2, 1, 0.5))
    network(torch.ones(3, 6)).sum().backward()
    optimizer.step()
    state = {
        "state_dict": network.state_dict(),
        "optimizers": [optimizer.state_dict()],
        "phases": phases.state_dict(),
        "rows": [{"epoch": 1, "top1": 0.5, "phase": "sparse", "best": None, "last": False}],
    }
    phases.detach()
    return state


def places(value, path=()):
    """Where a nested state has an entry."""
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, (list, tuple)):
        entries = list(enumerate(value))
    else:
        entries = []
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def inner(state, path):
    for key in path:
        state = state[key]
    return state


def edited(value):
    if isinstance(value, torch.Tensor):
        return value.clone() + 1 if value.dtype is not torch.uint8 else value ^ 1
    if isinstance(value, (dict, list, tuple)):
        return type(value)()
    return f"{value}?"


STATE = checkpoint()
PLACES = [path for path in places(STATE) if inner(STATE, path) not in ([], (), {})]


def test_a_state_of_many_parts_is_looked_at():
    assert len(PLACES) > 60


@pytest.mark.parametrize("change", ["removed", "edited"])
def test_a_part_that_was_removed_or_edited_is_noticed_wherever_it_is(tmp_path, change):
    file = tmp_path / "epoch-0001.ckpt"
    save_whole(STATE, file)
    for path in PLACES:
        state = copy.deepcopy(torch.load(file, weights_only=True))
        holder = inner(state, path[:-1])
        if isinstance(holder, tuple):
            continue
        if change == "removed":
            del holder[path[-1]]
        else:
            holder[path[-1]] = edited(holder[path[-1]])
        torch.save(state, tmp_path / "changed.ckpt")
        with pytest.raises(DamagedCheckpointError, match=r"changed.ckpt is damaged: its parts"):
            read(tmp_path / "changed.ckpt")


def test_a_part_more_another_shape_and_another_kind_are_noticed(tmp_path):
    file = tmp_path / "epoch-0001.ckpt"
    save_whole({"weight": torch.zeros(2, 3), "step": 1}, file)
    for change in (
        {"more": 1},
        {"weight": torch.zeros(3, 2)},
        {"weight": torch.zeros(2, 3, dtype=torch.int32)},
        {"weight": torch.zeros(2, 3, device="meta")},
        {"step": 1.0},
        {"step": True},
    ):
        torch.save(torch.load(file, weights_only=True) | change, tmp_path / "changed.ckpt")
        with pytest.raises(DamagedCheckpointError, match=r"changed.ckpt"):
            read(tmp_path / "changed.ckpt")


def test_saved_again_unchanged_and_from_before_there_were_sums_it_is_read(tmp_path):
    file = tmp_path / "epoch-0001.ckpt"
    save_whole(STATE, file)
    torch.save(torch.load(file, weights_only=True), tmp_path / "again.ckpt")
    torch.save(STATE, tmp_path / "old.ckpt")
    for name in ("epoch-0001", "again", "old"):
        known = read(tmp_path / f"{name}.ckpt")
        assert list(known) == list(STATE)
        assert content_sum(known) == content_sum(STATE)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), "text", None])
def test_what_is_no_state_at_all_is_damaged(tmp_path, content):
    torch.save(content, tmp_path / "list.ckpt")
    with pytest.raises(DamagedCheckpointError, match=r"list.ckpt is damaged: it holds a"):
        read(tmp_path / "list.ckpt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(()),
        torch.ones(0, 3),
        torch.arange(6).view(2, 3).T,
        torch.ones(1).expand(4),
        torch.tensor([True, False]),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.ones(2, dtype=torch.float8_e4m3fn),
        nn.Parameter(torch.ones(2)),
    ],
    ids=str,
)
def test_tensors_of_every_kind_are_read_back(tmp_path, tensor):
    save_whole({"tensor": tensor}, tmp_path / "odd.ckpt")
    assert read(tmp_path / "odd.ckpt")["tensor"].shape == tensor.shape
