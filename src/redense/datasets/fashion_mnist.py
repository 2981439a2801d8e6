"""fashion-mnist: 28x28 grey pictures of clothes, the default of the image recipe.

Task      images: 10 classes, evenly filled
Size      60,000 train + 10,000 test; 31 MB to fetch, 55 MB prepared, about 3 s
Licence   MIT, (C) 2017 Zalando SE
Source    Debian `dataset-fashion-mnist`; without apt, torchvision's own download.
          H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747
Split     the authors'; they ship no validation part, so a recipe takes it from train
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redense.datasets import fetch
from redense.datasets.card import Card, save_tensors

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def write(out: Path, work: Path, source: Path | None) -> Card:
    """Write `train` and `test` `.safetensors`: images uint8 (N, 1, 28, 28), labels int64 (N,)."""
    if source is None and shutil.which("apt-get") is None:
        source = _torchvision_download(work / "torchvision")
    folder = fetch.debian("dataset-fashion-mnist", "*-ubyte.gz", work, source)
    sizes = {}
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images = _read(folder, f"{prefix}-images-idx3-ubyte")  # (N, 28, 28)
        labels = _read(folder, f"{prefix}-labels-idx1-ubyte").astype(np.int64)  # (N,)
        save_tensors(out / f"{split}.safetensors", images=images[:, None], labels=labels)
        sizes[split] = len(labels)
    return Card(
        name="fashion-mnist",
        task="images",
        classes=CLASSES,
        sizes=sizes,
        source="Debian package dataset-fashion-mnist, or torchvision.datasets.FashionMNIST",
        source_sha256=SHA256,
        licence="MIT",
        credit="(C) 2017 Zalando SE; Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747",
        split=(
            "the authors' train and test; no validation part is shipped, a recipe takes it "
            "from train"
        ),
        leakage=(
            "no test picture is byte for byte a training picture; near-identical products of "
            "one shop remain"
        ),
    )


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """An array of bytes in the idx format: 0, 0, 8, number of axes, each axis's length in 4 bytes,
    then the values."""
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"an idx array of bytes starts with 00 00 08, got {content[:3].hex(' ')}")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read(folder: Path, name: str) -> NDArray[np.uint8]:
    path = fetch.find(folder, f"{name}.gz", name)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}); fetch it again") from error
    fetch.check(name, fetch.sha256(content), SHA256[name])
    return read_idx(content)


def _torchvision_download(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(folder), download=True)
    return folder
