"""Networks for the image recipe: a small default, CIFAR ResNets, and every torchvision classifier
by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision import models as zoo

from redense.files.names import near
from redense.files.typed import Kind, Number


class SmallNet(nn.Module):
    """Three convolutions with batch-norm and two linear layers: 225 k weights at 28 px, 92 % on
    Fashion-MNIST.

    Maps images (B, C, H, W), H and W at least 4, to logits (B, classes).
    """

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(channels, 16), nn.MaxPool2d(2), *_conv(16, 32), nn.MaxPool2d(2), *_conv(32, 64)
        )
        self.hidden = nn.Linear(64 * (size // 4) ** 2, 64, bias=False)
        self.norm = nn.BatchNorm1d(
            64
        )  # without it the whole layer dies at a rate of 0.1 with some seeds
        self.classifier = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes)."""
        return self.classifier(F.relu(self.norm(self.hidden(self.features(images).flatten(1)))))


class SmallVGG(nn.Module):
    """The kind of network that gains most in Han et al.'s table, VGG, for images of 28 to 32 px: no
    normalisation, and nearly all weights in wide linear layers with dropout.

    Two pairs of 3x3 convolutions (8 and 16 filters), each before a pooling, then 256, 256 and the
    classes, half of each hidden layer dropped while training (Simonyan and Zisserman 2014, sections
    2.1 and 3.1): 273 k weights at 28 px, 98 % of them linear. Maps images (B, C, H, W), H and W at
    least 4, to logits (B, classes). A rate of 0.1 kills it; 0.02 trains.
    """

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_plain_conv(channels, 8),
            *_plain_conv(8, 8),
            nn.MaxPool2d(2),
            *_plain_conv(8, 16),
            *_plain_conv(16, 16),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            *_wide(16 * (size // 4) ** 2, 256), *_wide(256, 256), nn.Linear(256, classes)
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)  # 0.01 of the paper's does not get going
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes)."""
        return self.classifier(self.features(images).flatten(1))


class SmallVGGNorm(nn.Module):
    """A VGG-like network with batch-norm for images of 28 to 32 px: 427 k weights at 28 px,
    94.1 % on Fashion-MNIST after 24 epochs with ``--augment flip-erase``.

    Five 3x3 convolutions with 32, 64, 64, 128 and 128 filters, pooled behind the first, the third
    and the fifth, then 128 and the classes. Maps images (B, C, H, W), H and W at least 8, to logits
    (B, classes).
    """

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(channels, 32),
            nn.MaxPool2d(2),
            *_conv(32, 64),
            *_conv(64, 64),
            nn.MaxPool2d(2),
            *_conv(64, 128),
            *_conv(128, 128),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(0.3)
        self.hidden = nn.Linear(128 * (size // 8) ** 2, 128, bias=False)
        self.norm = nn.BatchNorm1d(128)
        self.classifier = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes)."""
        seen = self.dropout(self.features(images).flatten(1))
        return self.classifier(F.relu(self.norm(self.hidden(seen))))


class CifarResNet(nn.Module):
    """The 6n + 2 layer residual network for small images of He et al. 2015 (arXiv 1512.03385),
    section 4.2.

    Three stages of n blocks with 16, 32 and 64 filters; shortcuts without weights (option A). Maps
    (B, C, H, W) to logits (B, classes). ResNet-20 is n = 3 (0.27 M weights), ResNet-56 is n = 9
    (0.85 M).
    """

    def __init__(self, depth: int, classes: int, channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"a CIFAR ResNet has 6n + 2 layers, got depth {depth}; 20 and 56 are usual"
            )
        widths = [16] + [width for width in (16, 32, 64) for _ in range((depth - 2) // 6)]
        self.stem = nn.Sequential(*_conv(channels, 16))
        self.blocks = nn.Sequential(*(_Block(i, o) for i, o in pairwise(widths)))
        self.classifier = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes)."""
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.stride = width_out // width_in
        self.grown = width_out - width_in
        self.first = nn.Sequential(*_conv(width_in, width_out, self.stride))
        self.second = nn.Sequential(*_conv(width_out, width_out)[:2])

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grown // 2, self.grown // 2)
        )
        return F.relu(self.second(self.first(x)) + shortcut)


def _conv(width_in: int, width_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


def _plain_conv(width_in: int, width_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width_in, width_out, 3, padding=1), nn.ReLU(inplace=True)


def _wide(width_in: int, width_out: int) -> tuple[nn.Module, ...]:
    return nn.Linear(width_in, width_out), nn.ReLU(inplace=True), nn.Dropout(0.5)


_OURS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "small": lambda classes, channels, size: SmallNet(classes, channels, size),
    "vgg-small": lambda classes, channels, size: SmallVGG(classes, channels, size),
    "vgg-small-bn": lambda classes, channels, size: SmallVGGNorm(classes, channels, size),
    "cifar-resnet20": lambda classes, channels, size: CifarResNet(20, classes, channels),
    "cifar-resnet56": lambda classes, channels, size: CifarResNet(56, classes, channels),
}
SMALL = tuple(_OURS)
"""Those that take images of any number of channels."""


def names() -> list[str]:
    """Every model name that `build` knows."""
    return [*_OURS, *zoo.list_models(zoo)]


def check_name(name: str) -> None:
    """Raise ValueError with near names if no model is called ``name``."""
    if name not in names():
        hint = near(name, names()) or f"it takes {', '.join(_OURS)} and torchvision's"
        raise ValueError(f"no model is called {name!r}; {hint}")


def build(name: str, classes: int, channels: int, size: int) -> nn.Module:
    """An untrained classifier (B, channels, size, size) -> (B, classes); torchvision's take three
    channels.

    Raises:
        ValueError: no such model, or one that does not take images of this size.
    """
    check_name(name)
    if name in _OURS:
        return _OURS[name](classes, channels, size)
    if channels != 3:
        raise ValueError(f"torchvision's {name} takes 3 channels, got images with {channels}")
    try:
        model = zoo.get_model(name, weights=None, **settings(name, classes, size))
        _try_on_meta(model, size)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{name} takes no images of {size} px ({reason}); most of torchvision's take --size "
            "224, Inception 299"
        ) from error
    return model


def settings(name: str, classes: int, size: int) -> dict[str, Any]:
    """What torchvision's ``get_model`` is told for images of this size:
    ``settings("vit_b_16", 3, 64)`` is ``{"num_classes": 3, "image_size": 64}``."""
    told: dict[str, Any] = {"num_classes": classes}
    if "init_weights" in inspect.signature(zoo.get_model_builder(name)).parameters or name in (
        "googlenet",
        "inception_v3",
    ):
        told["init_weights"] = True
    if name.startswith("vit_"):
        told["image_size"] = size
    if name.startswith("maxvit"):
        told["input_size"] = (size, size)
    return told


class Description(TypedDict):
    """What rebuilds a classifier, as a task's `config()` has it."""

    architecture: str
    classes: list[str]
    channels: Annotated[int, Meta(ge=1, le=64)]
    size: Annotated[int, Meta(ge=1, le=2**16)]
    resize: Annotated[int, Meta(ge=1, le=2**16)]
    mean: list[Number]
    std: list[Annotated[float, Meta(gt=0, le=1e9)]]
    valid_share: NotRequired[Number | None]
    upright: NotRequired[bool]
    transform_input: NotRequired[bool]


DESCRIPTION = Kind(Description, "description of a network", "restore it from where it came")


def network(config: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a task's `config()`."""
    built = build(
        config["architecture"], len(config["classes"]), config["channels"], config["size"]
    )
    if config.get("transform_input"):
        built.transform_input = True  # type: ignore[assignment]
    return built


def _try_on_meta(model: nn.Module, size: int) -> None:
    """Run it where nothing is computed, so that a network too deep for the images says so before
    training."""
    meta = {
        key: tensor.to("meta")
        for key, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    functional_call(model, meta, (torch.empty(2, 3, size, size, device="meta"),))


def logits_and_auxiliary(
    outputs: Tensor | tuple[Tensor | None, ...],
) -> tuple[Tensor, list[Tensor]]:
    """The main logits and those of auxiliary heads, which GoogLeNet and Inception return while
    training."""
    if isinstance(outputs, torch.Tensor):
        return outputs, []
    return outputs[0], [head for head in outputs[1:] if head is not None]
