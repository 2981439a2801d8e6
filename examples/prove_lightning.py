"""Does dense-sparse-dense help a Lightning training? Its own loop, checkpoints and resume; a study
of 3 methods and 7 seeds, in some minutes.

You should see a table with a row per method, then the verdict, and that a loop of its own shares no
epochs between methods.
"""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import redense
from redense.lightning import DSDCallback


class Stripes(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


def stripes(many, seed):
    points = torch.rand(many, 2, generator=torch.Generator().manual_seed(seed))
    return points, (6 * points[:, 0]).long() % 2


def train(run):
    lightning.seed_everything(run.seed, verbose=False)
    module, kept = Stripes(), run.folder / "lightning"
    trainer = lightning.Trainer(
        max_epochs=len(run.plan),
        callbacks=[DSDCallback(run.plan), ModelCheckpoint(kept, save_last=True)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = kept / "last.ckpt"  # of a run that was killed
    loader = DataLoader(TensorDataset(*stripes(200, seed=0)), batch_size=20, shuffle=True)
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None)
    points, labels = stripes(1000, seed=1)
    return {"valid": {"top1": 100 * (module.net(points).argmax(1) == labels).float().mean()}}


if __name__ == "__main__":
    plan = redense.dsd(dense=8, sparse=4, redense=4, sparsity=0.5)
    methods = ("dense", "lower_lr", "dsd")
    print(redense.prove(train, plan, seeds=7, methods=methods, out="runs/prove-lightning"))
