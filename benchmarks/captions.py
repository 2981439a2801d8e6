"""Training throughput of the caption recipe against the most direct plain PyTorch loop, in one run.

Both train NeuralTalk in the paper's sizes (4096 features, 2,538 words, hidden 256) on the same
random pairs in the same batches of 100 from the same initial weights, epoch about: ours through
`redense.runs.training.fit` (Lightning, the constraint at 80 %), the other with forward, loss,
backward, clip, step. Epochs of ours are timed without validation.

    OMP_NUM_THREADS=1 python -m benchmarks.captions
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scipy.io
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import functional as F

from redense.lightning import DSDCallback
from redense.plan import dsd
from redense.recipes.captions.data import Batches
from redense.recipes.captions.models import NeuralTalk, next_words
from redense.recipes.captions.options import CaptionOptions
from redense.recipes.captions.task import CaptionTask

from .measure import machine

OUT = Path(__file__).parents[1] / "results/bench/captions.json"
IMAGES, WORDS, EPOCHS, WANTED = 100, 2538, 5, 0.95


def main() -> None:
    """Print pairs a second of both for each phase, and their ratio; leave with 1 if it is too
    low."""
    with tempfile.TemporaryDirectory() as folder:
        task = CaptionTask(CaptionOptions(data=str(write_set(Path(folder))), least=1), seed=0)
    plan = dsd(EPOCHS, EPOCHS, 1, 0.8)
    ours = Seconds()
    trainer = Trainer(
        max_epochs=len(plan),
        callbacks=[DSDCallback(plan), ours],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(task)
    pairs = ours.pairs
    result: dict[str, Any] = {}
    for name, first in (("dense", 0), ("sparse", EPOCHS)):
        a, b = (
            statistics.median(seconds[first : first + EPOCHS])
            for seconds in (ours.found, ours.plain)
        )
        result[name] = {"ours_pairs_a_s": pairs / a, "plain_pairs_a_s": pairs / b, "ratio": b / a}
    print(json.dumps(result, indent=2))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result | {"machine": machine()}, indent=2) + "\n")
    if (worst := min(result[name]["ratio"] for name in ("dense", "sparse"))) < WANTED:
        sys.exit(f"{worst:.3f} of the plain loop's throughput, wanted {WANTED}")


def write_set(folder: Path) -> Path:
    """Random captions of 6 to 16 words, five an image, with features of 4096."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for number in range(IMAGES + 10):
        lengths = torch.randint(6, 17, (5,), generator=generator).tolist()
        said = [
            [f"w{w}" for w in torch.randint(WORDS, (n,), generator=generator).tolist()]
            for n in lengths
        ]
        split = "train" if number < IMAGES else "val"
        images.append(
            {
                "filename": f"{number}",
                "split": split,
                "sentences": [{"tokens": tokens} for tokens in said],
            }
        )
    (folder / "dataset.json").write_text(json.dumps({"images": images}))
    scipy.io.savemat(
        folder / "vgg_feats.mat",
        {"feats": torch.rand(4096, IMAGES + 10, generator=generator).numpy()},
    )
    return folder / "dataset.json"


class Seconds(Callback):
    """Times each epoch of ours, and after it one of a plain loop over the same batches."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.plain: list[float] = []
        self.pairs = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        trainer.train_dataloader.set_epoch(trainer.current_epoch)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, and let the plain loop run."""
        self.found.append(time.perf_counter() - self._since)
        batches = trainer.train_dataloader
        self.pairs = len(batches) * 100
        self.plain.append(plain_epoch(batches, pl_module.model))


def plain_epoch(batches: Batches, like: NeuralTalk) -> float:
    """Seconds of an epoch of forward, loss, backward, clip, step on a network of the same size."""
    model = NeuralTalk(like.decoder.out_features, like.image_encoder.in_features)
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=1e-3, alpha=0.999, eps=1e-8, weight_decay=1e-8
    )
    since = time.perf_counter()
    for features, words, lengths in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(features, words, lengths), next_words(words, lengths)).backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), 5)
        optimizer.step()
    return time.perf_counter() - since


if __name__ == "__main__":
    main()
