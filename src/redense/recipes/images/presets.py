"""The paper's four ImageNet networks as plain data: flags to train them by, and the errors it
reports.

Source of phases, rates, sparsity and errors: Han et al., DSD, ICLR 2017 (arXiv 1607.04381), section
4 and its table of hyper-parameters. Where the paper is silent each preset's note says what stands
in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any


@dataclass(frozen=True)
class Preset:
    """One network's training.

    Args:
        epochs, rates: the paper's, of the dense, sparse and re-dense phase.
        expected: the paper's (top-1, top-5) error in per cent after each of them, single centre
            crop of ImageNet. settings: flags besides those that epochs, rates and sparsity decide.
            note: what the paper leaves open, and what is rounded.
    """

    name: str
    epochs: tuple[float, float, float]
    rates: tuple[float, float, float]
    expected: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    settings: Mapping[str, Any]
    note: str
    sparsity: float = 0.3

    @property
    def flags(self) -> dict[str, Any]:
        """Defaults for the command line's flags; a plan counts whole epochs, so fractions are
        rounded, at least 1."""
        dense, sparse, redense = (max(round(epochs), 1) for epochs in self.epochs)
        start, *later = self.rates
        sparse_lr, redense_lr = (round(rate / start, 9) for rate in later)
        return {
            "data": "imagenet",
            "size": 224,
            "momentum": 0.9,
            **self.settings,
            "model": self.name,
            "lr": start,
            "dense": dense,
            "sparse": sparse,
            "redense": redense,
            "sparsity": self.sparsity,
            "sparse_lr": sparse_lr,
            "redense_lr": redense_lr,
        }

    @property
    def summary(self) -> str:
        """One line for ``--help``."""
        epochs = " + ".join(f"{number:g}" for number in self.epochs)
        before, after = self.expected[0][0], self.expected[-1][0]
        return (
            f"{self.name} ({epochs} epochs at {100 * self.sparsity:.0f} %, top-1 error "
            f"{before:.2f} to {after:.2f} % in the paper)"
        )

    def __str__(self) -> str:
        rows = [("the paper", "epochs", "rate", "sparsity", "top-1 error", "top-5 error")]
        names, shares = ("dense", "sparse", "DSD"), ("-", f"{100 * self.sparsity:.0f} %", "-")
        for name, epochs, rate, share, (top1, top5) in zip(
            names, self.epochs, self.rates, shares, self.expected, strict=True
        ):
            rows.append(
                (name, f"{epochs:g}", f"{rate:.0e}", share, f"{top1:.2f} %", f"{top5:.2f} %")
            )
        table = "\n".join("".join(cell.ljust(13) for cell in row).rstrip() for row in rows)
        note = fill(
            f"One run each, ImageNet's validation images, one centre crop of 224. {self.note}", 110
        )
        return f"{table}\n\n{note}"


_CAFFE = {"nesterov": False, "augment": "resize-crop"}
_RESNET = {
    "nesterov": True,
    "augment": "scale-crop-colour",
    "batch": 256,
    "weight_decay": 1e-4,
    "decay": "step",
}
_RESNET_NOTE = (
    "Nesterov momentum, weight decay on all parameters, batch and augmentation are the paper's "
    "(fb.resnet.torch), but "
    "for that code's noise along the colours' principal components, which is left out. Its rate "
    "falls to a tenth every "
    "30 epochs; here after each third of a phase, which is the same for 90 epochs and every 15 for "
    "45."
)

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "googlenet",
            epochs=(60, 11, 22),
            rates=(1e-2, 1e-3, 1e-4),
            expected=((31.14, 10.96), (30.58, 10.58), (30.02, 10.34)),
            settings={**_CAFFE, "batch": 32, "weight_decay": 2e-4, "decay": "linear"},
            note=(
                "The paper took Caffe's bvlc_googlenet. Batch, momentum, weight decay and crops "
                "without scaling are "
                "that model's (quick_solver.prototxt, readme.md), not the paper's; its rate fell "
                "with the square root "
                "of the epochs left, here in a line. torchvision's network has batch-norm, which "
                "Caffe's has not. Its "
                "two auxiliary heads count 0.3 each and are pruned like the rest."
            ),
        ),
        Preset(
            "vgg16",
            epochs=(74, 1.25, 18),
            rates=(1e-2, 1e-4, 1e-5),
            expected=((31.50, 11.32), (28.19, 9.23), (27.19, 8.67)),
            settings={**_CAFFE, "batch": 256, "weight_decay": 5e-4, "decay": "step"},
            note=(
                "The paper took Caffe's model zoo. Its 1.25 sparse epochs are 1 here: a plan "
                "counts whole epochs. "
                "Batch, momentum and weight decay are of Simonyan and Zisserman 2014, section 3.1, "
                "not the paper's; "
                "they divided the rate three times when validation stalled, here after each third "
                "of a phase."
            ),
        ),
        Preset(
            "resnet18",
            epochs=(90, 45, 45),
            rates=(1e-1, 1e-2, 1e-3),
            expected=((30.43, 10.76), (30.15, 10.56), (29.17, 10.13)),
            settings=_RESNET,
            note=_RESNET_NOTE,
        ),
        Preset(
            "resnet50",
            epochs=(90, 45, 45),
            rates=(1e-1, 1e-2, 1e-3),
            expected=((24.01, 7.02), (23.55, 6.88), (22.89, 6.47)),
            settings=_RESNET,
            note=_RESNET_NOTE,
        ),
    )
}
"""By name; none of them was trained to its end here."""
