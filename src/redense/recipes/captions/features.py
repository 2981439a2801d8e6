"""Features once: a fixed CNN runs over the images a single time, into a cache that training reads
instead of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import scipy.io
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.transforms.v2 import functional as T
from tqdm import tqdm

from redense import datasets
from redense.files.names import near
from redense.files.pictures import Source, read_picture
from redense.files.weights import load_exactly, read_weights
from redense.runs.checkpoints import copy_whole, write_text, write_whole
from redense.runs.weights import weights_sha256

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, which torchvision's weights expect."""


@dataclass(frozen=True)
class Cnn:
    """A fixed network (N, 3, size, size) -> (N, width), and how it is shown pictures: normalised by
    this mean and deviation of pixels in [0, 1], and ``upright`` as for `read_picture`."""

    name: str
    network: nn.Module
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    upright: bool = True

    def digest(self) -> str:
        """A hash over everything that decides its features."""
        weights = weights_sha256(self.network.state_dict())
        text = f"{self.name} {self.size} {self.mean} {self.std} {weights}"
        if not self.upright:
            text += " as stored"
        return hashlib.sha256(text.encode()).hexdigest()


def torchvision_cnn(name: str, weights: str, size: int = 224, upright: bool = True) -> Cnn:
    """A torchvision classifier without its last linear layer; ``vgg16`` gives the paper's 4096
    features.

    Args:
        weights: a file of a state dict (``.pth``, ``.safetensors``), ``pretrained`` for
            torchvision's own download, or ``random`` for none, which is good for tests only.

    Raises:
        ValueError, FileNotFoundError: no such network or file, or weights of another network.
    """
    names = zoo.list_models(zoo)
    if name not in names:
        hint = near(name, names) or "it takes words, vgg16, resnet50 and torchvision's others"
        raise ValueError(f"no CNN is called {name!r}; {hint}")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        quick = {"init_weights": False} if name.startswith(("googlenet", "inception")) else {}
        network = zoo.get_model(
            name, weights="DEFAULT" if weights == "pretrained" else None, **quick
        )
    if weights not in ("pretrained", "random"):
        _load_weights(network, name, Path(weights))
    return Cnn(name, _headless(network, name), size, *IMAGENET, upright)


def kept_cnn(name: str, file: Path, size: int, pretrained: bool, upright: bool = True) -> Cnn:
    """The `torchvision_cnn` whose weights `keep_cnn` left in ``file``."""
    weights = read_weights(file)
    odd: dict[str, bool] = {}
    if name.startswith(("googlenet", "inception")):  # these differ by where their weights are from
        auxiliary = any(key.startswith("aux") for key in weights)
        odd = {"init_weights": False, "aux_logits": auxiliary, "transform_input": pretrained}
    with torch.random.fork_rng([]):
        network = _headless(zoo.get_model(name, weights=None, **odd), name)
    load_exactly(network, weights, str(file), name)
    return Cnn(name, network, size, *IMAGENET, upright)


def keep_cnn(cnn: Cnn, folder: Path) -> None:
    """Leave the weights as ``cnn.safetensors`` in a run's folder: many runs share one file, where
    the file system has links."""
    shared = cache_folder() / f"cnn-{cnn.name}-{cnn.digest()[:32]}.safetensors"
    if not shared.exists():
        state = {key: value.contiguous() for key, value in cnn.network.state_dict().items()}
        write_whole(shared, lambda partial: save_file(state, partial))
    copy_whole(shared, folder / "cnn.safetensors")


def _headless(network: nn.Module, name: str) -> nn.Module:
    """Without its last linear layer, fixed."""
    linear = [
        layer
        for layer, module in network.named_modules()
        if isinstance(module, nn.Linear) and "aux" not in layer
    ]
    if not linear:
        raise ValueError(
            f"torchvision's {name} has no linear layer whose input could be the features"
        )
    parent, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return network.eval().requires_grad_(False)


def read_image(file: Source, size: int, upright: bool = True) -> Tensor:
    """An image squeezed into a square of ``size``, as NeuralTalk does: (3, size, size) uint8."""
    picture = read_picture(file, upright=upright)
    return T.resize(T.pil_to_tensor(picture), [size, size], antialias=True)


def read_images(files: Sequence[Path], size: int, upright: bool = True) -> Tensor:
    """(N, 3, size, size) uint8."""
    return torch.stack(
        [
            read_image(file, size, upright)
            for file in tqdm(files, "reading", leave=False, disable=None, delay=2)
        ]
    )


@torch.inference_mode()
def extract(cnn: Cnn, files: Sequence[Source], batch: int = 32) -> Tensor:
    """Features (N, F) of images, in batches, with a progress bar."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = cnn.network.to(device).eval()
    mean, std = (
        torch.tensor(values, device=device).view(-1, 1, 1) for values in (cnn.mean, cnn.std)
    )
    found = []
    with tqdm(
        total=len(files),
        desc=f"features by {cnn.name}",
        unit="image",
        disable=None,
        delay=2,
        leave=False,
    ) as bar:
        for start in range(0, len(files), batch):
            pixels = torch.stack(
                [read_image(file, cnn.size, cnn.upright) for file in files[start : start + batch]]
            )
            outputs = network((pixels.to(device).float() / 255 - mean) / std)
            found.append(outputs.flatten(1).float().cpu())
            bar.update(len(pixels))
    network.cpu()
    return torch.cat(found)


def cached_features(cnn: Cnn, files: Sequence[Path]) -> Tensor:
    """`extract`, once for the same images and network: kept as safetensors below `cache_folder`."""
    key = hashlib.sha256(f"{images_sha256(files)} {cnn.digest()}".encode()).hexdigest()[:32]
    file = cache_folder() / f"features-{cnn.name}-{key}.safetensors"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            tensors = {"features": extract(cnn, files)}
            write_whole(file, lambda partial: save_file(tensors, partial))
    return load_file(file)["features"]


def images_sha256(files: Sequence[Path]) -> str:
    """A hash over the images' contents in order; read again only if a name, a size or a time of
    change differs."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    known = cache_folder() / f"images-{hashlib.sha256(repr(stats).encode()).hexdigest()[:32]}.txt"
    if not known.exists():
        digest = hashlib.sha256()
        for file in tqdm(files, "hashing images", unit="image", disable=None, delay=2, leave=False):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        write_text(known, digest.hexdigest())
    return known.read_text("utf-8")


def cache_folder() -> Path:
    """Where features lie: ``captions`` beside the packaged data sets."""
    folder = datasets.cache() / "captions"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_features(file: Path, images: int) -> Tensor:
    """Features (N, F) of a file: Karpathy's ``vgg_feats.mat`` (feats, F x N) or a safetensors file
    (features, N x F).

    Raises:
        ValueError: no such matrix, or not one column an image.
    """
    try:
        if file.suffix == ".mat":
            features = torch.from_numpy(scipy.io.loadmat(file)["feats"]).float().T.contiguous()
        else:
            with safe_open(file, framework="pt") as opened:
                features = opened.get_tensor("features").float()
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy and safetensors raise many kinds
        raise ValueError(
            f"{file} is no feature file ({error}); a .mat needs feats, a .safetensors features"
        ) from error
    if features.ndim != 2 or len(features) < images:
        raise ValueError(
            f"{file} holds features {tuple(features.shape)}, but the captions are of {images} "
            "images"
        )
    if bad := int((~features.isfinite()).any(1).sum()):
        raise ValueError(f"{file}: the features of {bad} images are not finite")
    return features


def _load_weights(network: nn.Module, name: str, file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(
            f"CNN weights {str(file)!r}: no such file; 'pretrained' lets torchvision fetch its own"
        )
    load_exactly(network, read_weights(file), str(file), name)
