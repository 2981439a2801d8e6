"""The captions recipe's flags."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CaptionOptions:
    """What is trained, on what, and how.

    Args:
        data: packaged set (emoji, tuxpaint), JSON in Karpathy's or COCO's form, Flickr's
            .token.txt, a table with the columns image and caption (Kaggle's captions.txt), or a
            folder with one of them.
        images: folder of the images; default images, imgs or the captions' own.
        features: file of image features (vgg_feats.mat, safetensors); default vgg_feats.mat if it
            lies beside the captions and no cnn is asked for.
        cnn: what makes features otherwise: words (small, trained first on the training words; the
            default) or a torchvision network.
        cnn_weights: of a torchvision network: a file, pretrained (torchvision fetches them) or
            random.
        cnn_size: pixels a side for a torchvision network.
        cnn_epochs: of the words network.
        upright: turn pictures as their EXIF data say the camera was held; false leaves them as they
            are stored, as torchvision does.
        least: words that train has less often are left out.
        hidden: width of encoders and LSTM.
        dropout: share dropped of encodings and of the decoder's input; the paper's 0.5 keeps
            sets smaller than Flickr8k from being fitted.
        batch: pairs of image and caption an optimizer step, over all devices together.
        lr: learning rate that the phases' factors multiply.
        clip: largest absolute value of a gradient element.
        weight_decay: L2 penalty.
        beam: sentences side by side in decoding; 1 is greedy.
        length_penalty: power of the length that a beam's scores are divided by; 0 none, 1 mean.
        most_words: where a caption ends at the latest.
    """

    data: str = "emoji"
    images: str | None = None
    features: str | None = None
    cnn: str | None = None
    cnn_weights: str = "pretrained"
    cnn_size: int = 224
    cnn_epochs: int = 40
    upright: bool = True
    least: int = 2
    hidden: int = 256
    dropout: float = 0.1
    batch: int = 100
    lr: float = 4e-3
    clip: float = 5.0
    weight_decay: float = 1e-8
    beam: int = 3
    length_penalty: float = 0.0
    most_words: int = 20

    def __post_init__(self) -> None:
        for name in ("cnn_size", "cnn_epochs", "least", "hidden", "batch", "beam", "most_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "clip", "weight_decay", "length_penalty"):
            value, positive = getattr(self, name), name in ("lr", "clip")
            if not (math.isfinite(value) and value >= 0) or (positive and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above' if positive else 'at least'} 0, got "
                    f"{value}"
                )
        if self.features is not None and self.cnn is not None:
            raise ValueError(f"features {self.features} need no cnn, got {self.cnn}; pass one")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")

    def check_sharding(self) -> None:
        """Each device holds the whole network."""
        raise ValueError(
            "strategy fsdp2 trains images only, got recipe captions; leave out --strategy"
        )
