"""A study's folder without the training: records as `redense prove` writes them, with scores drawn
from a seed."""

import json
import random
from itertools import pairwise

from redense import Plan, dsd
from redense.study.methods import build_methods

METHODS = ("dense", "longer", "lower_lr", "swa", "pruned", "dsd", "random_dsd", "dsdsd")
GAIN = {
    "dense": -1.2,
    "longer": 0.1,
    "swa": 0.15,
    "pruned": -0.35,
    "random_dsd": -0.25,
    "dsdsd": 0.02,
    "dsd": 0.05,
}
LAYERS = {
    "features.4.weight": 4608,
    "features.8.weight": 18432,
    "hidden.weight": 200704,
    "classifier.weight": 640,
}
MOMENTS = ("dense", "just pruned", "end of sparse", "at release", "end of re-dense")


def write_study(
    folder,
    methods=METHODS,
    seeds=8,
    sparsities=(0.3,),
    metric="top1",
    higher=True,
    unit="points",
    name="fashion-mnist",
):
    """A record (and histograms) a method and seed below ``folder``; where lower is better the gains
    turn round."""
    plans = {str(share): dsd(8, 6, 6, share, sparse_lr=0.1, decay="cosine") for share in sparsities}
    made = build_methods(methods, plans)
    for label, method in made.items():
        for seed in range(seeds):
            record = make_record(label, seed, method.plan, metric, higher, unit)
            record["data"]["name"] = name
            write_run(folder / f"{label}--{seed}", record)
    config = {
        "recipe": "images",
        "options": OPTIONS,
        "include": [],
        "exclude": [],
        "accelerator": "cpu",
        "devices": 1,
    }
    plans = {label: method.plan.to_records() for label, method in made.items()}
    (folder / "study.json").write_text(
        json.dumps({**config, "precision": "32-true", "methods": plans})
    )
    return folder


def write_run(folder, record, histograms=True):
    """One run's folder: its record, and histograms where its plan holds weights and lets them
    go."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record))
    if histograms and record["released"]:
        (folder / "histograms.json").write_text(json.dumps(make_histograms(record["seed"])))
    return folder


OPTIONS = {
    "data": "fashion-mnist",
    "data_root": None,
    "model": "small",
    "batch": 128,
    "lr": 0.1,
    "augment": "flip",
}


def make_record(label, seed, plan: Plan, metric="top1", higher=True, unit="points"):
    """One run's record with every field of the format."""
    luck, noise = random.Random(seed), random.Random(f"{label} {seed}")
    sign, best, start = (1, 88.0, 66.0) if higher else (-1, 9.0, 48.0)
    level = best + sign * GAIN.get(label.partition("@")[0], 0.0) + luck.gauss(0, 0.3)
    history = []
    for epoch in range(len(plan)):
        left, phase = 0.8 ** (1.2 * epoch), plan.at(epoch)
        dip = sign * (0.4 if phase.sparsity else 0.0)
        score = level + (start - level) * left - dip + noise.gauss(0, 0.12)
        losses = {
            "train_loss": 0.16 + 1.2 * left + 0.01 * noise.random(),
            "valid_loss": 0.34 + 0.8 * left,
        }
        history.append(
            {
                "epoch": epoch + 1,
                "phase": phase.name,
                "lr": 0.1 * plan.lr_factor(epoch),
                "sparsity": phase.sparsity,
            }
            | losses
            | {f"valid_{metric}": score, "seconds": 3.1 * (epoch + 1)}
        )
    ends = [start + phase.length - 1 for phase, start in zip(plan, plan.starts, strict=True)]
    held = [phase for phase in plan if phase.sparsity]
    free = [
        after
        for before, after in zip(plan, plan.phases[1:], strict=False)
        if before.sparsity and not after.sparsity
    ]
    return {
        "recipe": "images",
        "method": label,
        "seed": seed,
        "plan": plan.to_records(),
        "phases": [
            {
                "name": phase.name,
                "epochs": phase.length,
                "lr": 0.1 * phase.lr,
                "sparsity": phase.sparsity,
                "sparsity_measured": phase.sparsity,
                "train_loss": history[end]["train_loss"],
                "valid": {
                    "loss": history[end]["valid_loss"],
                    metric: history[end][f"valid_{metric}"],
                },
            }
            for phase, end in zip(plan, ends, strict=True)
        ],
        "metric": {"name": metric, "higher_is_better": higher, "unit": unit},
        "released": [
            {
                "phase": before.name,
                "until": after.name,
                "released": 67315,
                "mean_released": 0.004 + 0.001 * noise.random(),
                "mean_survivors": 0.0167,
                "moved": 0.94 + 0.01 * noise.random(),
            }
            for before, after in zip(held, free, strict=False)
        ],
        "mask_overlap": [
            {
                "phase": one.name,
                "with": two.name,
                "layers": {layer: 0.6 + 0.3 * noise.random() for layer in LAYERS},
            }
            for one, two in pairwise(held)
            if free
        ],
        "data": {
            "name": "fashion-mnist",
            "sizes": {"train": 2000, "valid": 5000, "test": 10000},
            "sha256": "e8eb" * 16,
        },
        "options": OPTIONS,
        "selection": "the last epoch's weights; the test split was read once, after training",
        "weights_sha256": f"{seed:064x}",
        "commit": "319b2e6f5648c640d07790ca6aa7673ee1928654",
        "versions": {"redense": "0.1.0", "python": "3.11.7", "torch": "2.14.1"},
        "hardware": {
            "machine": "x86_64",
            "processor": "EPYC",
            "cores": 2,
            "threads": 1,
            "accelerator": None,
        },
        "seconds": 3.1 * len(plan) + noise.random(),
        "cost": {"epochs": len(plan), "examples": 2000 * len(plan)},
        "history": history,
        "valid": {"loss": history[-1]["valid_loss"], metric: history[-1][f"valid_{metric}"]},
        "test": {"loss": 0.35, metric: level + noise.gauss(0, 0.12)},
    }


def make_histograms(seed):
    """The five moments of layers whose weights are normal: cut out, softened, released, filled
    again."""
    found = {}
    for layer, weights in LAYERS.items():
        x = [(place - 50) / 12.5 for place in range(101)]
        bell = [weights * 0.0319 * 2.718 ** (-(v**2) / 2) for v in x]
        cut = [0 if abs(v) < 0.385 else count for v, count in zip(x, bell, strict=True)]
        soft = [count * min(1.0, (abs(v) / 0.385) ** 6) for v, count in zip(x, bell, strict=True)]
        spike = [count + (0.3 * weights if v == 0 else 0) for v, count in zip(x, soft, strict=True)]
        filled = [
            count + 0.3 * weights * 0.13 * 2.718 ** (-((v / 0.25) ** 2) / 2)
            for v, count in zip(x, soft, strict=True)
        ]
        shapes = zip(MOMENTS, (bell, cut, soft, spike, filled), strict=True)
        found[layer] = {
            "weights": weights,
            "range": 4 * (0.02 + 0.001 * seed),
            "moments": {moment: [round(count) for count in counts] for moment, counts in shapes},
        }
    return found
