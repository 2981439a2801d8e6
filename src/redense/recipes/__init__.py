"""Training recipes: each a folder with its data, its models and its task; what they share stands
beside them.

A task is a LightningModule that also has ``model`` (the network, exported), ``metric``,
``higher_is_better`` and ``unit`` (of its main score), ``scores()`` (the validation scores since the
last call), ``fingerprint()`` (of its data), ``config()`` (what rebuilds the network) and data
loaders that give the same batches for the same seed and epoch: ``train_dataloader()`` has
``set_epoch(epoch)`` and a length, ``test_dataloader()`` has length 0 where there is no test split.
A task may also have ``phase_ended(phase, folder)``, called with the run folder when a phase's last
epoch is validated, to keep examples of what the network says by then, and with it the static
``branched(parent, child, phases)``: the run in the folder ``child`` begins with those phases of
``parent``'s, whose examples it takes over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Where a recipe's task and options live, what its schedule defaults to, and which weights it
    holds at most.

    ``prunes``: shell patterns of the network's weights, for a recipe whose paper holds others than
    `redense.prunable` would; ``--include`` replaces them.
    """

    name: str
    module: str
    task: str
    options: str
    summary: str
    schedule: Mapping[str, Any] = field(default_factory=dict)
    prunes: tuple[str, ...] = ()

    def load(self) -> tuple[Any, Any]:
        """(task class, options class), imported now."""
        module = import_module(self.module)
        return getattr(module, self.task), getattr(module, self.options)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "images",
            "redense.recipes.images.task",
            "ImageTask",
            "ImageOptions",
            "classify images: Fashion-MNIST by default, your folder, CIFAR, ImageNet",
        ),
        Recipe(
            "captions",
            "redense.recipes.captions.task",
            "CaptionTask",
            "CaptionOptions",
            "caption images: NeuralTalk on drawings of emoji, Flickr8k, Flickr30k, COCO",
            schedule={
                "dense": 12,
                "sparse": 10,
                "redense": 6,
                "sparsity": 0.8,
                "sparse_lr": 1.0,
                "redense_lr": 0.3,
            },
        ),
        Recipe(
            "speech",
            "redense.recipes.speech.task",
            "SpeechTask",
            "SpeechOptions",
            "recognise speech: DeepSpeech 1 and 2 on recorded voices, your manifest, LibriSpeech, "
            "WSJ, Common Voice",
            schedule={
                "dense": 4,
                "sparse": 2,
                "redense": 2,
                "passes": 2,
                "sparsity": [0.5, 0.25],
                "sparse_lr": [0.625, 0.125],
                "redense_lr": [0.375, 0.0375],  # the paper's rates of DeepSpeech over 8e-4
            },
            prunes=("fully_connected.*", "recurrent.*"),  # neither convolutions nor the CTC output
        ),
    )
}
