"""The fast core against Dense-Sparse-Dense written plainly, bit for bit over all three phases."""

import itertools

import pytest
import torch
from torch import nn

import redense


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 5),
        )

    def forward(self, x):  # (B, 8, 8) -> (B, 5)
        return self.layers(x.unsqueeze(1)[..., :7, :7])


class SmallLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 7, num_layers=2, batch_first=True)
        self.head = nn.Linear(7, 5)

    def forward(self, x):  # (B, 8, 8) -> (B, 5)
        return self.head(self.lstm(x)[0][:, -1])


MODELS = {
    "CNN": (SmallCNN, ["layers.3.weight", "layers.6.weight"]),
    "LSTM": (
        SmallLSTM,
        [
            *(f"lstm.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")),
            "head.weight",
        ],
    ),
}
OPTIMIZERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Nesterov": lambda weights: torch.optim.SGD(
        weights, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True
    ),
    "Adam": lambda weights: torch.optim.Adam(weights, lr=3e-3, weight_decay=1e-3),
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=3e-3, amsgrad=True),
}
DENSE, SPARSE, REDENSE, SPARSITY = 8, 12, 10, 0.3


def seeded(build, kind):
    torch.manual_seed(0)
    model = build()
    return model, OPTIMIZERS[kind](model.parameters())


def gradients(model, optimizer, step):
    """Sets the gradients of the step's batch."""
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(16, 8, 8, generator=generator), torch.randint(5, (16,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


def naive_dsd(model, optimizer, names):
    """Sort, mask the gradient, step, mask the weight; the state policy of `redense.optimizers`.
    Yields after every step."""
    weights = [model.get_parameter(name) for name in names]
    masks = []
    for step in range(DENSE + SPARSE + REDENSE):
        if step == DENSE:
            for weight in weights:
                mask = torch.ones(weight.numel())
                mask[
                    weight.detach()
                    .abs()
                    .flatten()
                    .sort(stable=True)
                    .indices[: round(SPARSITY * weight.numel())]
                ] = 0
                masks.append(mask.view_as(weight))
                weight.data.mul_(masks[-1])
                for state in {"momentum_buffer", "exp_avg"} & optimizer.state[weight].keys():
                    optimizer.state[weight][state].mul_(masks[-1])
        gradients(model, optimizer, step)
        for weight, mask in zip(weights, masks, strict=False):
            weight.grad.mul_(mask)
        optimizer.step()
        for weight, mask in zip(weights, masks, strict=False):
            weight.data.mul_(mask)
        if step == DENSE + SPARSE - 1:
            for weight, mask in zip(weights, masks, strict=True):
                for state in {"exp_avg_sq", "max_exp_avg_sq"} & optimizer.state[weight].keys():
                    scale = optimizer.state[weight][state]
                    alive = scale * mask
                    for row, column in itertools.product(*map(range, scale.shape[:2])):
                        calm = min(
                            alive[row].max() or alive.max(), alive[:, column].max() or alive.max()
                        )
                        scale[row, column][mask[row, column] == 0] = calm
            masks.clear()
        yield


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("build", "names"), MODELS.values(), ids=MODELS)
def test_the_core_equals_naive_dsd_bit_for_bit_after_every_step(build, names, kind):
    (model, optimizer), (plain, plain_optimizer) = seeded(build, kind), seeded(build, kind)
    phases = redense.PhaseScheduler(model, optimizer, redense.dsd(DENSE, SPARSE, REDENSE, SPARSITY))
    held = 0
    for step, _ in enumerate(naive_dsd(plain, plain_optimizer, names)):
        gradients(model, optimizer, step)
        optimizer.step()
        if phases.held is not None:
            held += 1
            assert list(phases.held.masks) == names
        before = phases.phase.name
        phases.step()
        if before == "dense" and phases.phase.name == "sparse":
            continue  # the naive loop prunes at the start of its next step
        for (name, weight), reference in zip(
            model.named_parameters(), plain.parameters(), strict=True
        ):
            assert torch.equal(weight, reference), f"{name} differs after step {step}"
            for state, value in optimizer.state[weight].items():
                assert torch.equal(value, plain_optimizer.state[reference][state]), (
                    f"{state} of {name}, step {step}"
                )
    assert held == SPARSE
    assert phases.finished


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_comparison_can_fail(kind, monkeypatch):
    monkeypatch.setattr("redense.constraint.release_state", lambda *arguments: None)
    monkeypatch.setattr("redense.constraint.hold_state", lambda *arguments: None)
    with pytest.raises(AssertionError, match=r"differs after step|, step "):
        test_the_core_equals_naive_dsd_bit_for_bit_after_every_step(*MODELS["CNN"], kind)
