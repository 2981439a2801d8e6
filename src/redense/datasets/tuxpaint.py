"""tuxpaint and tuxpaint-fr: the rubber stamps of a painting program for children, and the voice
that reads them out.

Task      captions (`tuxpaint`): many cut-out photographs, 128x128, one English sentence each, "A
          cow and her calf." speech (`tuxpaint-fr`): one French voice, 44.1 kHz mono, median 1 s
Size      950 stamps with 804 sentences; 846 clips, 18 min; 161 MB to fetch, 11 and 46 MB prepared,
about 28 s each Licence   GPL-2
Source    Debian `tuxpaint-stamps-default`
Split     by sentence

Too small and too varied to caption from scratch: more than a quarter of the words in test is not in
train.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from redense.datasets import captions, fetch
from redense.datasets.captions import Captioned
from redense.datasets.card import Card
from redense.datasets.speech import Utterance, sentence, write_speech
from redense.datasets.split import SPLITS, split_of

SHA256 = {
    "*.txt": "753f7feee605f96efa126a0c3230bb7ec0e79250dab927a5735a8f3d4d60ed8d",
    "*.png, *.svg": "b50fa7e7e482d36b2808a3ffa84201afad30c2022ade48c976a60769ba3f2dfc",
    "*_desc_fr.ogg": "9f2e9e221133d24ed6dd3ae7d202b529f7747d6f0b20b922cc173db214901f28",
}
_PACKAGE = "tuxpaint-stamps-default"


def write_captions(out: Path, work: Path, source: Path | None) -> Card:
    """Write `captions.json` and `images/*.png`, 128x128 (see `captions.write_captions`)."""
    stamps = fetch.find(fetch.debian(_PACKAGE, "*/stamps/*", work, source), "stamps")
    _check(stamps, "*.txt")
    _check(stamps, "*.png, *.svg")
    pictures = []
    for path in tqdm(_texts(stamps), desc="drawing", unit="stamp", disable=None, delay=2):
        files = [file for suffix in (".png", ".svg") if (file := path.with_suffix(suffix)).exists()]
        if files:
            text, about = (
                read_stamp(path.read_text(encoding="utf-8"))["en"],
                {"category": path.relative_to(stamps).parts[0]},
            )
            name, picture = f"{_name(path, stamps)}.png", captions.draw(files[0], 128)
            pictures.append(Captioned(name, picture, text, split_of(sentence(text)), about))
    unknown = captions.write_captions(out, "tuxpaint", pictures)
    splits = [one.split for one in pictures]
    return _card(
        name="tuxpaint",
        task="captions",
        sizes={split: splits.count(split) for split in SPLITS},
        source_sha256={key: SHA256[key] for key in ("*.txt", "*.png, *.svg")},
        leakage=f"no sentence is shared; {unknown}",
    )


def write_french(out: Path, work: Path, source: Path | None) -> Card:
    """Write the manifests and `audio/*.flac` (see `speech.write_speech`)."""
    stamps = fetch.find(fetch.debian(_PACKAGE, "*/stamps/*", work, source), "stamps")
    _check(stamps, "*.txt")
    _check(stamps, "*_desc_fr.ogg")
    utterances = []
    for path in _texts(stamps):
        text, clip = (
            read_stamp(path.read_text(encoding="utf-8")).get("fr"),
            path.with_name(f"{path.stem}_desc_fr.ogg"),
        )
        if text and clip.exists():
            utterances.append(Utterance(_name(path, stamps), clip.read_bytes(), text, "fr"))
    written = write_speech(out, utterances)
    return _card(
        name="tuxpaint-fr",
        task="speech",
        sizes=written.sizes,
        source_sha256={key: SHA256[key] for key in ("*.txt", "*_desc_fr.ogg")},
        leakage=written.leakage,
        alphabet=written.alphabet,
    )


def read_stamp(text: str) -> dict[str, str]:
    """The sentence of a stamp's text file in each language: the first line is English, others start
    with `xx.utf8=`."""
    english, *others = text.splitlines()
    pairs = (line.split(".utf8=", 1) for line in others if ".utf8=" in line)
    return {"en": english.strip()} | {language: sentence.strip() for language, sentence in pairs}


def _texts(stamps: Path) -> list[Path]:
    return sorted(stamps.rglob("*.txt"))


def _name(path: Path, stamps: Path) -> str:
    return "-".join(path.relative_to(stamps).with_suffix("").parts)


def _check(stamps: Path, patterns: str) -> None:
    files = [file for pattern in patterns.split(", ") for file in stamps.rglob(pattern)]
    fetch.check(f"{_PACKAGE} {patterns}", fetch.sha256_of_files(files, stamps), SHA256[patterns])


def _card(
    *,
    name: str,
    task: str,
    sizes: dict[str, int],
    source_sha256: dict[str, str],
    leakage: str,
    alphabet: str = "",
) -> Card:
    return Card(
        name=name,
        task=task,
        sizes=sizes,
        alphabet=alphabet,
        source=f"Debian package {_PACKAGE}",
        source_sha256=source_sha256,
        licence="GPL-2.0-or-later",
        credit="Tux Paint stamps, (C) Bill Kendrick and contributors",
        split="by the sha256 of the sentence, in lower case without punctuation: 80 / 10 / 10 %",
        leakage=leakage,
    )
