"""spoken-digits as sentences: the set has single digits as MFCCs, here three to six of one split
make an utterance."""

from __future__ import annotations

import hashlib

import numpy as np

from redense.recipes.packaged import open_packaged, read_tensors
from redense.recipes.speech.readers import SPLITS, Splits, Utterance
from redense.recipes.speech.store import Sounds

NAME = "spoken-digits"
_SENTENCES = {"train": 1200, "valid": 200, "test": 200}


def read() -> tuple[Splits, dict[str, Sounds]]:
    """Utterances and their features (T, 13), chained by a seeded draw that is the same for every
    run."""
    folder, card = open_packaged(NAME, "speech")
    words = card.get("classes", ())
    utterances: Splits = {}
    sounds = {}
    for split in SPLITS:
        loaded = read_tensors(folder / f"{split}.safetensors")
        tensors = {name: tensor.numpy() for name, tensor in loaded.items()}
        ends = np.cumsum(tensors["lengths"])
        draw = np.random.default_rng(0)
        utterances[split], rows, lengths, sums = [], [], [], []
        for number in range(_SENTENCES[split]):
            chosen = draw.integers(len(ends), size=draw.integers(3, 7))
            part = np.concatenate(
                [tensors["features"][ends[n] - tensors["lengths"][n] : ends[n]] for n in chosen]
            )
            utterances[split].append(
                Utterance(
                    f"{NAME}/{split}/{number}",
                    " ".join(words[tensors["labels"][n]] for n in chosen),
                )
            )
            rows.append(part)
            lengths.append([len(part)])
            sums.append(hashlib.sha256(part.tobytes()).hexdigest())
        counts = np.asarray(lengths, dtype=np.int64)
        sounds[split] = Sounds(
            np.concatenate(rows),
            counts.cumsum(0) - counts,
            counts,
            tuple(sums),
            (None,) * len(sums),
        )
    return utterances, sounds
