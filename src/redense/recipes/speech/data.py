"""Speech for training: any source as checked utterances with features, the bad ones named and
counted."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from redense import datasets
from redense.files.names import near
from redense.recipes.packaged import open_packaged
from redense.recipes.speech import alphabet as letters
from redense.recipes.speech import digits, readers
from redense.recipes.speech.readers import SPLITS, Splits, Utterance
from redense.recipes.speech.store import Sounds, open_sounds

_SHOWN = 20


@dataclass(frozen=True)
class Split:
    """Checked utterances, their features and their texts as symbols; texts are normalised."""

    utterances: tuple[Utterance, ...]
    sounds: Sounds
    symbols: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.utterances)


@dataclass(frozen=True)
class SpeechData:
    """A data set by its three splits; ``test`` may be empty; ``mean`` and ``std`` (bins,) of
    train's frames."""

    name: str
    alphabet: str
    train: Split
    valid: Split
    test: Split
    mean: Tensor
    std: Tensor
    bad: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What the scores do not say by themselves, with the remedy: said again at the end of a run."""

    @property
    def bins(self) -> int:
        """Numbers a frame."""
        return len(self.mean)

    def fingerprint(self) -> dict[str, object]:
        """Name, sizes, what was left out, and a sha256 over every recording's content and text, for
        the record."""
        digest = hashlib.sha256(self.alphabet.encode())
        for split in (self.train, self.valid, self.test):
            for utterance, sha256 in zip(split.utterances, split.sounds.sha256, strict=True):
                digest.update(f"{sha256} {utterance.text}\n".encode())
        return {
            "name": self.name,
            "sizes": {name: len(getattr(self, name)) for name in SPLITS},
            "hours": {name: _hours(getattr(self, name)) for name in SPLITS},
            "alphabet": self.alphabet,
            "left_out": self.bad,
            "notes": list(self.notes),
            "sha256": digest.hexdigest(),
        }


@lru_cache(maxsize=1)  # a study's worker runs many jobs on the same data
def load(
    name: str,
    *,
    alphabet: str | None = None,
    stride: int = 1,
    speeds: tuple[float, ...] = (1.0,),
    longest: float = 20.0,
    on_bad_data: str = "skip",
    most: int | None = None,
) -> SpeechData:
    """Read a data set and its features.

    Args:
        name: a packaged set, or a path that `readers.read` takes.
        alphabet: the characters that the network says; default `letters.find_alphabet` of train's
            texts. stride: every how many frames the network gives a symbol; a text must fit.
            speeds: at which train's recordings are also played.
        longest: seconds; a longer recording is bad.
        on_bad_data: ``skip`` leaves bad utterances out and names them on stderr, ``stop`` raises.
        most: training utterances to keep, of a shuffle that is the same for every run.

    Raises:
        ValueError, FileNotFoundError: no such data, a split without a good utterance, bad data that
            shall stop.
    """
    splits, given = find(name)
    if not given:
        splits = _complete(name, splits)
    if most is not None:
        order = torch.randperm(len(splits["train"]), generator=torch.Generator().manual_seed(0))[
            :most
        ].tolist()
        splits["train"] = [splits["train"][number] for number in order]
        given = {kind: s.pick(order) if kind == "train" else s for kind, s in given.items()}
    splits = {
        kind: [u._replace(text=letters.normalize(u.text)) for u in utterances]
        for kind, utterances in splits.items()
    }
    if alphabet is None:
        alphabet = letters.find_alphabet([u.text for u in splits["train"]])
    letters.check(alphabet)
    checked, bad = {}, []
    for kind, utterances in splits.items():
        sounds = given.get(kind) or open_sounds(
            utterances, speeds if kind == "train" else (1.0,), longest, f"{Path(name).name} {kind}"
        )
        good = []
        for number, u in enumerate(utterances):
            reason = _reason(u, sounds, number, alphabet, stride)
            if reason is None:
                good.append(number)
            else:
                bad.append(_Bad(kind, u, reason))
        kept = tuple(utterances[number] for number in good)
        symbols = tuple(tuple(letters.encode(u.text, alphabet)) for u in kept)
        checked[kind] = Split(kept, sounds.pick(good), symbols)
    sizes = {kind: len(utterances) for kind, utterances in splits.items()}
    _report(name, bad, sum(sizes.values()), on_bad_data)
    for kind in ("train", "valid"):
        if not len(checked[kind]):
            why = _counted(one for one in bad if one.split == kind)
            raise ValueError(
                f"data {name!r}: no good utterance is left in {kind}, of {sizes[kind]}: "
                + ", ".join(f"{many} {what}" for what, many in why.items())
            )
    return SpeechData(
        Path(name).name,
        alphabet,
        **checked,
        **_statistics(checked["train"].sounds),
        bad=_counted(bad),
        notes=(*_flattering(checked), *_notes(bad, sizes, alphabet)),
    )


def find(name: str) -> tuple[Splits, dict[str, Sounds]]:
    """The utterances of a packaged set or a path by split, as they are written; and their frames,
    where the set has those instead of recordings."""
    return digits.read() if name == digits.NAME else (_find_recordings(name), {})


def _find_recordings(name: str) -> Splits:
    path = Path(name)
    if path.exists() or path.suffix in (".json", ".jsonl", ".csv", ".tsv") or "/" in name:
        return readers.read(path)
    if name not in datasets.names():
        hint = near(name, datasets.names(), 0.6) or "there is none alike:"
        raise ValueError(
            f"no data set is called {name!r}; {hint} it takes amazon-queen, "
            f"fillets-cs, fillets-nl, tuxpaint-fr, spoken-digits, or {readers.KINDS}"
        )
    folder, _ = open_packaged(name, "speech")
    return readers.read(folder)


def _complete(name: str, splits: Splits) -> Splits:
    """With a validation split of train's own where the data come without one: all clips of a tenth
    of its sentences."""
    if not splits["train"]:
        raise ValueError(f"data {name!r} has no training split; call a list or folder of it train")
    if not splits["valid"] and not splits["test"]:
        rows: readers.Rows = [(utterance, None) for utterance in splits["train"]]
        splits = readers.split_by_sentence(rows, name)
    if splits["valid"]:
        return splits
    said = {letters.normalize(u.text) for u in splits["train"]}
    order = sorted(said, key=lambda text: hashlib.sha256(text.encode()).digest())
    held = set(order[: max(len(order) // 10, 1)])
    if len(order) < 2:
        raise ValueError(
            f"data {name!r} has no validation split, and train too few sentences to share; call a "
            "list or folder valid or dev"
        )
    parts: Splits = {"train": [], "valid": [], "test": splits["test"]}
    for utterance in splits["train"]:
        parts["valid" if letters.normalize(utterance.text) in held else "train"].append(utterance)
    print(
        f"{name} has no validation split: {len(parts['valid'])} of {len(splits['train'])} training "
        "utterances, all of a tenth of the sentences, serve as one; or name a list valid",
        file=sys.stderr,
    )
    return parts


def _reason(u: Utterance, sounds: Sounds, number: int, alphabet: str, stride: int) -> str | None:
    if (found := sounds.bad[number]) is not None:
        return found
    return unusable(u.text, int(sounds.lengths[number].min()), alphabet, stride)


def unusable(text: str, frames: int, alphabet: str, stride: int) -> str | None:
    """Why a normalised text cannot be learnt or scored with a sound of so many frames; the part
    before the colon is what is counted.

    >>> unusable("42", 90, "ab ", stride=3)
    "symbol outside the alphabet: '42' in '42'"
    """
    if not text:
        return "no text: the transcript is empty"
    if unknown := letters.unknown(text, alphabet):
        return f"symbol outside the alphabet: {unknown!r} in {text!r}"
    possible = math.ceil(frames / stride)
    if possible < 2:  # a batch of one frame has no variance to normalise by
        return f"too short: {possible} frame at stride {stride}; a smaller --stride gives more"
    if (needed := letters.needed_frames(letters.encode(text, alphabet))) > possible:
        return (
            f"too short for its text: {possible} frames for {needed} symbols; a smaller "
            "--stride gives more"
        )
    return None


@dataclass(frozen=True)
class _Bad:
    split: str
    utterance: Utterance
    reason: str

    def __str__(self) -> str:
        return f"{self.split}: {self.utterance}: {self.reason}"


def _counted(bad: Iterable[_Bad]) -> dict[str, int]:
    return dict(Counter(one.reason.partition(":")[0] for one in bad))


def _notes(bad: Sequence[_Bad], sizes: Mapping[str, int], alphabet: str) -> list[str]:
    notes = []
    missing = Counter(c for one in bad for c in letters.unknown(one.utterance.text, alphabet))
    outside = sum(bool(letters.unknown(one.utterance.text, alphabet)) for one in bad)
    if 10 * outside > sum(sizes.values()):
        most = ", ".join(f"{c!r} ({many})" for c, many in missing.most_common(10))
        notes.append(
            f"{outside} of {sum(sizes.values())} utterances are left out for characters outside "
            f"the alphabet {alphabet!r}: {most}; --alphabet takes letters in, numbers are to be "
            "written in words"
        )
    for split in ("valid", "test"):
        of_split = [one for one in bad if one.split == split]
        if of_split:
            why = ", ".join(f"{many} {what}" for what, many in _counted(of_split).items())
            rest = sizes[split] - len(of_split)
            notes.append(f"{split} scores are of {rest} of {sizes[split]} utterances: {why}")
    return notes


def _flattering(checked: Mapping[str, Split]) -> list[str]:
    """Recordings that are trained on and judged by."""
    heard = {(os.path.normpath(u.audio), u.start) for u in checked["train"].utterances}
    notes = []
    for split in ("valid", "test"):
        names = ((os.path.normpath(u.audio), u.start) for u in checked[split].utterances)
        if shared := sum(name in heard for name in names):
            notes.append(
                f"{shared} of {len(checked[split])} {split} recordings are trained on too, so the "
                f"{split} scores flatter; take them out of one list"
            )
    return notes


def _report(name: str, bad: Sequence[_Bad], total: int, on_bad_data: str) -> None:
    if not bad:
        return
    if on_bad_data == "stop":
        one = bad[0]
        raise ValueError(
            f"{len(bad)} of {total} utterances of {name} are bad, the first in {one}; "
            f"--on-bad-data skip names all and goes on without them"
        )
    file = datasets.cache() / "features" / f"left-out-{Path(name).name}.txt"
    lines = [str(one) for one in bad]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", "utf-8", errors="backslashreplace")
    for line in lines[:_SHOWN]:
        print(f"left out of {line}", file=sys.stderr)
    more = f", {_SHOWN} of them above" if len(bad) > _SHOWN else ""
    print(
        f"{len(bad)} of {total} utterances of {name} are left out{more}; all are in {file}",
        file=sys.stderr,
    )


def _statistics(sounds: Sounds) -> dict[str, Tensor]:
    """Mean and deviation per bin over at most 1,000 utterances, evenly chosen."""
    chosen = range(0, len(sounds.sha256), max(len(sounds.sha256) // 1000, 1))
    rows = np.concatenate([sounds.frames(n) for n in chosen]).astype(np.float64)
    return {
        "mean": torch.tensor(rows.mean(0)).float(),
        "std": torch.tensor(rows.std(0) + 1e-2).float(),
    }


def _hours(split: Split) -> float:
    """Of the sound that was read: a frame every 10 ms, and the rest of the last window."""
    lengths = split.sounds.lengths[:, 0]
    return round(float((lengths + 1).sum()) / 360_000, 3)
