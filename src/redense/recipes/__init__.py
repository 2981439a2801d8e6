"""Training recipes: each a folder with its options, its data, its models and its task; what they
share stands beside them.

A recipe is trained as any function is: `train` is its ``train(run)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from redense.files.fields import Form
    from redense.files.typed import Kind
    from redense.recipes.portable import Portable
    from redense.runs.configuration import RunConfig
    from redense.runs.run import Run, Scores
    from redense.runs.task import Task


_NAMES = ("imagenet", "pretrained", "random", "spoken-digits")
"""Never paths, whatever lies in the working folder."""


class Options(Protocol):
    """A recipe's own flags: a frozen dataclass whose docstring explains them."""

    def check_sharding(self) -> None:
        """Raise ValueError where FSDP2 cannot train what these options ask for."""


class Use(Protocol):
    """What a trained network does for people."""

    def preprocess(self, inputs: Any) -> Any:
        """The network's input, of one file or several, or what is in memory."""

    def predict(self, inputs: Any) -> list[Any]:
        """An answer for each."""


class Preset(Protocol):
    """A published training; as a string it says what its paper reports."""

    @property
    def flags(self) -> dict[str, Any]:
        """Defaults of the command line's flags."""

    @property
    def summary(self) -> str:
        """One line for ``--help``."""


@dataclass(frozen=True)
class Recipe:
    """Where a recipe's task and options live, and what its schedule defaults to.

    Options are imported without what the task needs, so that ``--help`` comes at once.

    Args:
        data: the options that may name its data's files and folders; a run may find the same data
            elsewhere when it goes on.
        files: those that may name other files.
        use: what answers with a trained network.
        answers: what it gives for what, in the words of model hubs.
    """

    name: str
    task: str
    options: str
    summary: str
    data: tuple[str, ...]
    use: str
    answers: str
    files: tuple[str, ...] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)
    presets: str = ""

    def options_class(self) -> type[Any]:
        """The dataclass of its flags."""
        return self._find("options", self.options)

    def options_of(self, config: RunConfig) -> Any:
        """A run's options, each of its kind; those that an older version lacks have their
        default."""
        from redense.files.typed import Kind, build

        kind = Kind(self.options_class(), f"run of {self.name}", "start the run anew")
        return build(config.options, kind, "options in config.json")

    def task_class(self) -> Callable[[Any, int], Task]:
        """What makes a task of options and a seed."""
        return self._find("task", self.task)

    def all_presets(self) -> Mapping[str, Preset]:
        """Published trainings by name."""
        return self._find("presets", self.presets) if self.presets else {}

    def forms(self) -> tuple[Form, ...]:
        """How data of one's own may lie."""
        forms: tuple[Form, ...] = self._find("forms", "FORMS")
        return forms

    def description(self) -> Kind[Any]:
        """What network.json, and an export's config.json, must hold."""
        kind: Kind[Any] = self._find("models", "DESCRIPTION")
        return kind

    def network(self, config: Mapping[str, Any]) -> nn.Module:
        """The untrained network of a task's `config()`."""
        network: nn.Module = self._find("models", "network")(config)
        return network

    def user(self, network: nn.Module, config: Mapping[str, Any], folder: Path) -> Use:
        """What answers with a trained network."""
        user: Use = self._find("use", self.use)(network, config, folder)
        return user

    def evaluation(self) -> Callable[..., object]:
        """What scores a trained network, ``evaluate(network, data)``; its answer prints itself."""
        evaluate: Callable[..., object] = self._find("evaluation", "evaluate")
        return evaluate

    def portable(
        self, network: nn.Module, config: Mapping[str, Any], folder: Path
    ) -> list[Portable]:
        """The parts of a trained network that other runtimes are given."""
        parts: list[Portable] = self._find("portable", "portable")(network, config, folder)
        return parts

    def example(self, config: Mapping[str, Any], folder: str) -> str:
        """A program that uses an exported network."""
        program: str = self._find("use", "example")(config, folder)
        return program

    def settings(self, options: Options) -> dict[str, Any]:
        """Options as a run keeps them: files and folders with their whole path, so that it goes on
        from any other folder."""
        settings = dict(vars(options))
        for name in (*self.data, *self.files):
            value = settings[name]
            if value is not None and value.lower() not in _NAMES and Path(value).exists():
                settings[name] = str(Path(value).absolute())
        return settings

    def _find(self, module: str, name: str) -> Any:
        return getattr(import_module(f"redense.recipes.{self.name}.{module}"), name)


def build_task(config: RunConfig) -> Task:
    """The task of a run's config, its data read and its network built; mistakes in either are told
    here."""
    from redense.runs.training import check_plan

    if config.function:
        raise ValueError(
            f"this run was trained by your function {config.function}, which alone can build its "
            f"network; it takes runs of {', '.join(RECIPES)}"
        )
    if config.recipe not in RECIPES:
        raise ValueError(
            f"recipe in config.json must be one of {', '.join(RECIPES)}, got {config.recipe!r}"
        )
    recipe = RECIPES[config.recipe]
    options = recipe.options_of(config)
    if config.strategy == "fsdp2":
        options.check_sharding()
    task = recipe.task_class()(options, config.seed)
    check_plan(config, task)
    return task


def train(run: Run) -> dict[str, Scores | Callable[[], Scores]]:
    """Train the recipe that the run's config names; what `redense.prove` and a study call."""
    from redense.runs.training import fit

    return fit(run, build_task(run.config))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "images",
            "ImageTask",
            "ImageOptions",
            "classify images: Fashion-MNIST by default, your folder, CIFAR, ImageNet",
            ("data", "data_root"),
            "Classifier",
            "image-classification",
            ("init",),
            schedule={  # lower rates and shorter ends are worse than one cosine of eight epochs
                "dense": 2,
                "sparse": 2,
                "redense": 4,
                "redense_lr": 1.0,
            },
            presets="PRESETS",
        ),
        Recipe(
            "captions",
            "CaptionTask",
            "CaptionOptions",
            "caption images: NeuralTalk on drawings of emoji, Flickr8k, Flickr30k, COCO",
            ("data", "images", "features"),
            "Captioner",
            "image-to-text",
            ("cnn_weights",),
            schedule={
                "dense": 19,
                "sparse": 10,
                "redense": 6,
                "sparsity": 0.8,
                "redense_lr": 0.3,  # at the paper's 0.1 and 0.01 four fifths held are not made good
            },
        ),
        Recipe(
            "speech",
            "SpeechTask",
            "SpeechOptions",
            "recognise speech: DeepSpeech 1 and 2 on recorded voices, your manifest, LibriSpeech, "
            "WSJ, Common Voice",
            ("data",),
            "Transcriber",
            "automatic-speech-recognition",
            schedule={
                "dense": 4,
                "sparse": 2,
                "redense": 2,
                "passes": 2,
                "sparsity": [0.5, 0.25],
                "sparse_lr": [0.625, 0.125],
                "redense_lr": [0.375, 0.0375],  # the paper's rates of DeepSpeech over 8e-4
            },
        ),
    )
}
