"""Dense-Sparse-Dense training in a Lightning Trainer: a small network learns three spirals in some
seconds.

You should see the plan, then the share of zero weights and the accuracy every ten epochs: half of
the weights of the two later layers are zero at the end of the sparse phase and none at the end. The
module returns no learning-rate scheduler, so the callback sets the plan's rates.
"""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import redense
from redense.lightning import DSDCallback


def spirals(rows, seed):
    """Points (rows, 2) on three noisy spirals, and which spiral each is on (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (rows,), generator=generator)
    radius = torch.rand(rows, generator=generator)
    angle = 4 * radius + arm * 2 * torch.pi / 3 + 0.25 * torch.randn(rows, generator=generator)
    return TensorDataset(torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm)


class Spirals(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        hidden = nn.Linear(64, 64)
        self.net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), hidden, nn.Tanh(), nn.Linear(64, 3))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        later = torch.cat([self.net[layer].weight.flatten() for layer in (2, 4)])
        accuracy = (self.net(batch[0]).argmax(1) == batch[1]).float().mean()
        zeros = (later == 0).float().mean()
        print(f"epoch {self.current_epoch + 1:2}: {zeros:4.0%} zeros, accuracy {accuracy:.1%}")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)


lightning.seed_everything(0, verbose=False)
plan = redense.dsd(dense=20, sparse=10, redense=10, sparsity=0.5)
print(plan, "\n")
talk = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"]
trainer = lightning.Trainer(
    max_epochs=len(plan),
    callbacks=[DSDCallback(plan, exclude="net.0.*")],
    check_val_every_n_epoch=10,
    num_sanity_val_steps=0,
    accelerator="cpu",
    **dict.fromkeys(talk, False),
)
train = DataLoader(spirals(600, seed=0), batch_size=50, shuffle=True)
trainer.fit(Spirals(), train, DataLoader(spirals(2000, seed=1), batch_size=2000))
