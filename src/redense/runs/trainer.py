"""Lightning's trainer as every recipe uses it: on the run's devices or torchrun's, quiet, with
whole checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from redense.masks import build_masks
from redense.recipes import RECIPES
from redense.runs.checkpoints import WholeCheckpointIO
from redense.runs.sharding import Sharded

STRATEGIES = {"ddp": DDPStrategy, "fsdp2": Sharded}
"""How several devices share a network."""


def build_trainer(config: dict[str, Any], epochs: int, callbacks: list[Callback]) -> Trainer:
    """A Lightning trainer on the config's devices, or torchrun's, with checkpoints that are
    whole."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    local = int(
        os.environ.get("LOCAL_WORLD_SIZE", 0)
    )  # torchrun's; Lightning's own launcher does not set it
    nodes = int(os.environ["WORLD_SIZE"]) // local if local else 1
    devices = local or config["devices"]
    # said, for in slurm's interactive sessions Lightning would take the allocation's tasks for ours
    environment = TorchElasticEnvironment() if local else LightningEnvironment()
    return Trainer(
        accelerator=config["accelerator"],
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config, nodes * devices),
        precision=config["precision"],
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


def evaluate(trainer: Trainer, task: Any, loader: Any) -> dict[str, float]:
    """The scores of the final weights on one split, read once; empty where there is none."""
    if not len(loader):
        return {}
    with quiet_lightning():
        trainer.test(task, loader, verbose=False)
    scores: dict[str, float] = task.scores()
    return scores


def check_config(config: dict[str, Any]) -> None:
    """Find mistakes that would otherwise show only when training starts.

    Raises:
        ValueError: a seed out of range, a mask, device, strategy or precision that there is not.
    """
    strategy = config.get("strategy", "ddp")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy == "fsdp2" and "configure_model" not in vars(RECIPES[config["recipe"]].load()[0]):
        raise ValueError(
            f"strategy fsdp2 trains images only, got recipe {config['recipe']}; leave out "
            "--strategy"
        )
    if strategy == "fsdp2" and config["options"]["ema"]:
        raise ValueError("strategy fsdp2 keeps no moving average of its shards; leave out --ema")
    if (
        strategy == "fsdp2" and not config["options"]["momentum"]
    ):  # lightning 2.6's _rekey_optimizer_state_if_needed
        raise ValueError(
            "strategy fsdp2 needs a momentum above 0: Lightning resumes no optimizer without state"
        )
    if not 0 <= config["seed"] < 2**32:
        raise ValueError(f"seed must lie in 0 to {2**32 - 1}, got {config['seed']}")
    for phase in config["plan"]:
        build_masks({}, phase["sparsity"], phase["mask"])
    try:
        build_trainer(config, 1, [])
    except MisconfigurationException as error:
        raise ValueError(
            f"accelerator {config['accelerator']!r}, devices {config['devices']}: {error}"
        ) from error


def _strategy(config: dict[str, Any], processes: int) -> Any:
    if processes == 1:
        return "auto"
    return STRATEGIES[config.get("strategy", "ddp")]()  # study's and older folders have none


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without its advice on workers and loggers, which these data loaders do not need."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        yield
