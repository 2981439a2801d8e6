"""What adaptive optimizers should know of a weight that is released: ``python -m
benchmarks.release``.

Four rules, each from the same seeds and batches, on three tasks (pictures with AdamW, text with
NAdam, sounds with RMSprop), scored on validation alone:

- *neighbours*, the product's: the scale of its liveliest neighbours
  (`redense.optimizers.release_state`);
- *as new*: its own gradients since release, with the bias correction of a first step;
- *zeroed*: no momentum and no scale, the count of steps kept;
- *all anew*: every weight's state forgotten, as AC/DC does at each phase (Peste et al. 2021).

Beside the score stand growth (released weights' mean size over survivors') and how calmly they
start (largest ratio, over 20 steps, of the released weights' RMS step to the survivors').
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import redense
from redense import datasets
from redense.optimizers import release_state
from redense.recipes.images.data import load
from redense.recipes.images.models import SmallVGG
from redense.runs.record import environment
from redense.study.stats import paired_difference

OUT = Path(__file__).parents[1] / "results/bench/release.json"
SEEDS = 10
Rule = Callable[[Optimizer, Tensor, Tensor], None]


@dataclass(frozen=True)
class Work:
    """A task: how it is begun with a seed, an epoch's batches, a batch's loss, and the score."""

    name: str
    plan: redense.Plan
    build: Callable[[], tuple[nn.Module, Optimizer]]
    train: tuple[Tensor, Tensor]
    valid: tuple[Tensor, Tensor]
    batch: int

    def batches(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of train in an order of the seed and epoch."""
        draw = torch.Generator().manual_seed(1000 * seed + epoch)
        for chosen in torch.randperm(len(self.train[0]), generator=draw).split(self.batch):
            yield self.train[0][chosen], self.train[1][chosen]

    def loss(self, model: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy; padding (-1) does not count."""
        return F.cross_entropy(model(inputs).flatten(0, -2), wanted.flatten(), ignore_index=-1)

    @torch.no_grad()
    def score(self, model: nn.Module) -> dict[str, float]:
        """Validation loss and, in per cent, how many answers are right."""
        model.eval()
        answers = model(self.valid[0]).flatten(0, -2)
        wanted = self.valid[1].flatten()
        asked = wanted >= 0
        right = (answers.argmax(1) == wanted)[asked].float().mean()
        loss = F.cross_entropy(answers, wanted, ignore_index=-1)
        model.train()
        return {"loss": float(loss), "top1": 100 * float(right)}


class CharacterLSTM(nn.Module):
    """Characters (B, T) to the next ones' logits (B, T, symbols)."""

    def __init__(self, symbols: int, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.output = nn.Linear(width, symbols)

    def forward(self, text: Tensor) -> Tensor:
        """One after the other."""
        return self.output(self.lstm(self.embedding(text))[0])


def works() -> list[Work]:
    """The three tasks, each small enough for seconds."""
    return [_pictures(), _text(), _sounds()]


def _pictures() -> Work:
    data = load("fashion-mnist", most=1000)
    mean, std = torch.tensor(data.mean).view(-1, 1, 1), torch.tensor(data.std).view(-1, 1, 1)
    train, valid = (
        ((part.images[:2000].float() / 255 - mean) / std, part.labels[:2000])
        for part in (data.train, data.valid)
    )

    def build() -> tuple[nn.Module, Optimizer]:
        model = SmallVGG(10, 1, 28)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)

    plan = redense.dsd(dense=8, sparse=4, redense=4, sparsity=0.5)
    return Work("pictures, AdamW", plan, build, train, valid, 32)


def _text() -> Work:
    file = datasets.prepare("emoji") / "captions.json"
    listed = json.loads(file.read_text("utf-8"))["images"]
    names = {one["sentences"][0]["raw"]: one["split"] for one in listed}
    symbols = sorted(set("".join(names)))
    longest = 32

    def as_numbers(split: str) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(sum(kind == split for kind in names.values()), longest + 1).long() - 1
        texts = (name for name, kind in names.items() if kind == split)
        for row, name in zip(rows, texts, strict=True):
            known = [symbols.index(letter) + 1 for letter in name[: longest - 1]]
            row[: len(known) + 2] = torch.tensor([0, *known, 0])
        return rows[:, :-1].clamp(min=0), rows[:, 1:]

    def build() -> tuple[nn.Module, Optimizer]:
        model = CharacterLSTM(len(symbols) + 1)
        return model, torch.optim.NAdam(model.parameters(), lr=2e-3)

    plan = redense.dsd(dense=8, sparse=4, redense=4, sparsity=0.5)
    return Work("text, NAdam", plan, build, as_numbers("train"), as_numbers("val"), 32)


def _sounds() -> Work:
    folder = datasets.prepare("spoken-digits")

    def of(split: str) -> tuple[Tensor, Tensor]:
        tensors = load_file(folder / f"{split}.safetensors")
        clips = tensors["features"].split(tensors["lengths"].tolist())
        middle = [F.interpolate(clip.T[None], 16, mode="linear")[0].flatten() for clip in clips]
        return torch.stack(middle) / 50, tensors["labels"]

    def build() -> tuple[nn.Module, Optimizer]:
        layers = (nn.Linear(208, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        model = nn.Sequential(*layers, nn.Linear(256, 10))
        return model, torch.optim.RMSprop(model.parameters(), lr=1e-3)

    plan = redense.dsd(dense=15, sparse=8, redense=8, sparsity=0.5)
    return Work("sounds, RMSprop", plan, build, of("train"), of("valid"), 32)


def _zeroed(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    for value in _state_of(optimizer, weight).values():
        value.masked_fill_(~mask, 0.0)


def _all_anew(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    optimizer.state.clear()


def _as_new(optimizer: Optimizer, weight: Tensor, mask: Tensor) -> None:
    """Each step the state of released elements is set to what, after the step and the shared bias
    correction, is the corrected mean of their own gradients since release."""
    _zeroed(optimizer, weight, mask)
    own = {name: torch.zeros_like(value) for name, value in _state_of(optimizer, weight).items()}
    steps = 0

    def before(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if weight.grad is None:
            return
        (group,) = (g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
        first, second = group.get("betas", (None, group.get("alpha")))
        step = optimizer.state[weight].get("step")
        count = int(step) + 1 if step is not None and "betas" in group else None
        for name, value in _state_of(optimizer, weight).items():
            beta = first if name == "exp_avg" else second
            given = weight.grad if name == "exp_avg" else weight.grad.square()
            own[name].mul_(beta).add_(given, alpha=1 - beta)
            shared = 1 - beta**count if count is not None else 1.0
            wanted = own[name] / (1 - beta**steps) * shared
            value.copy_(torch.where(mask, value, (wanted - (1 - beta) * given) / beta))

    optimizer.register_step_pre_hook(before)


def _state_of(optimizer: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    names = ("exp_avg", "exp_avg_sq", "square_avg")
    state = optimizer.state[weight]
    return {name: state[name] for name in names if name in state}


RULES: dict[str, Rule | None] = {
    "neighbours": None,
    "as new": _as_new,
    "zeroed": _zeroed,
    "all anew": _all_anew,
}


def run(work: Work, rule: Rule | None, seed: int) -> dict[str, float]:
    """Train by the plan and that rule; what came of it."""
    torch.manual_seed(seed)
    model, optimizer = work.build()
    ours = release_state
    with mock.patch("redense.constraint.release_state", rule or ours):
        phases = redense.PhaseScheduler(model, optimizer, work.plan)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, work.plan.lr_factor)
        masks: dict[str, Tensor] = {}
        steps: list[float] = []
        for epoch in range(len(work.plan)):
            released = phases.phase.name == "redense"
            for inputs, wanted in work.batches(epoch, seed):
                before = copy.deepcopy(model.state_dict()) if released and len(steps) < 20 else None
                optimizer.zero_grad()
                work.loss(model, inputs, wanted).backward()
                optimizer.step()
                if before is not None:
                    steps.append(_liveliness(model.state_dict(), before, masks))
            if phases.phase.sparsity:  # what is zero at its end is held
                weights = redense.prunable(model)
                masks = {name: weight.detach() != 0 for name, weight in weights.items()}
            phases.step()
            rates.step()
    ended = model.state_dict()
    gone = torch.cat([ended[name][~mask].abs() for name, mask in masks.items()])
    kept = torch.cat([ended[name][mask].abs() for name, mask in masks.items()])
    growth = 100 * float(gone.mean() / kept.mean())
    return {**work.score(model), "growth": growth, "liveliest": max(steps)}


def _liveliness(
    after: dict[str, Tensor], before: dict[str, Tensor], masks: dict[str, Tensor]
) -> float:
    moved = {name: after[name] - before[name] for name in masks}
    gone = torch.cat([moved[name][~mask] for name, mask in masks.items()])
    kept = torch.cat([moved[name][mask] for name, mask in masks.items()])
    return float(gone.square().mean().sqrt() / kept.square().mean().sqrt())


def main() -> None:
    """Run all; print a table per task and write the record."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    told: dict[str, Any] = {}
    for work in works():
        runs = {
            name: [run(work, rule, seed) for seed in range(seeds)] for name, rule in RULES.items()
        }
        told[work.name] = {"runs": runs, "minus neighbours": {}}
        print(work.name, len(work.plan), "epochs")
        for name, rows in runs.items():
            means = {key: sum(row[key] for row in rows) / seeds for key in rows[0]}
            said = ", ".join(f"{key} {value:.4g}" for key, value in means.items())
            if name != "neighbours":
                ours = runs["neighbours"]
                beside = {
                    key: paired_difference(
                        [row[key] for row in rows],
                        [row[key] for row in ours],
                        higher_is_better=key == "top1",
                    )
                    for key in ("loss", "top1")
                }
                told[work.name]["minus neighbours"][name] = {
                    key: {
                        "mean": found.mean if key == "top1" else -found.mean,
                        "interval": sorted(x if key == "top1" else -x for x in found.interval),
                        "p": found.p_value,
                    }
                    for key, found in beside.items()
                }
                for key, found in told[work.name]["minus neighbours"][name].items():
                    low, high = found["interval"]
                    said += f"; {key} {found['mean']:+.4f} [{low:.4f}, {high:.4f}]"
            print(f"  {name:11} {said}", flush=True)
    OUT.write_text(json.dumps({"seeds": seeds, "tasks": told, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
