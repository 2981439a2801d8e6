"""Lightning's trainer as every recipe uses it: on the run's devices or torchrun's, quiet, with
whole checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from redense.masks import check_choosable
from redense.runs.checkpoints import read, save_whole
from redense.runs.configuration import RunConfig
from redense.runs.sharding import Sharded
from redense.runs.task import Batches, Task

STRATEGIES = {"ddp": DDPStrategy, "fsdp2": Sharded}
"""How several devices share a network."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written whole and checked when read."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write beside, sync, rename."""
        save_whole(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Check every byte, then load weights only."""
        return read(Path(path))


def build_trainer(config: RunConfig, epochs: int, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer on the config's devices, or torchrun's, with checkpoints that are
    whole."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    local = int(
        os.environ.get("LOCAL_WORLD_SIZE", 0)
    )  # torchrun's; Lightning's own launcher does not set it
    nodes = int(os.environ["WORLD_SIZE"]) // local if local else 1
    devices = local or config.devices
    # said, for in slurm's interactive sessions Lightning would take the allocation's tasks for ours
    environment = TorchElasticEnvironment() if local else LightningEnvironment()
    return Trainer(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config, nodes * devices),
        precision=cast("Any", config.precision),
        max_epochs=epochs,
        callbacks=callbacks,
        plugins=[WholeCheckpointIO(), environment],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def evaluate(trainer: Trainer, task: Task, loader: Batches) -> dict[str, float]:
    """The scores of the final weights on one split, read once; empty where there is none."""
    if not len(loader):
        return {}
    with quiet_lightning():
        trainer.test(cast("LightningModule", task), loader, verbose=False)
    return task.scores()


def check_machine(config: RunConfig) -> None:
    """Find mistakes that would otherwise show only when training starts.

    Raises:
        ValueError: a mask, device, strategy or precision that there is not.
    """
    if config.strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise ValueError(f"strategy must be one of {known}, got {config.strategy!r}")
    for phase in config.plan:
        check_choosable({}, 0.0, phase["mask"])
    try:
        build_trainer(config, 1, [])
    except MisconfigurationException as error:
        raise ValueError(
            f"accelerator {config.accelerator!r}, devices {config.devices}: {error}"
        ) from error


def _strategy(config: RunConfig, processes: int) -> Any:
    return "auto" if processes == 1 else STRATEGIES[config.strategy]()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without its advice on workers and loggers, which these data loaders do not need."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
