"""Utterances from where they lie: packaged sets, manifests, LibriSpeech, WSJ, Common Voice. Errors
name the file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redense.datasets.split import split_of
from redense.files.text import read_lines, read_tabs
from redense.recipes.speech.alphabet import normalize

SPLITS = ("train", "valid", "test")
_FILES = {
    "train": ("train",),
    "valid": ("valid", "validation", "dev", "val"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Utterance:
    """A recording, what is said in it, how long it should be in seconds, who says it, where that
    is known, and where it starts in a recording of several."""

    audio: str
    text: str
    duration: float | None = None
    speaker: str | None = None
    start: float | None = None

    def __str__(self) -> str:
        return self.audio if self.start is None else f"{self.audio} from {self.start:g} s"


Splits = dict[str, list[Utterance]]


def read(path: Path) -> Splits:
    """The utterances of a file or folder by split, in a stable order.

    Takes a manifest (`.jsonl` or `.json`, see `read_manifest`), a folder with `train.jsonl`,
    `valid.jsonl` (or dev) and `test.jsonl`, LibriSpeech's, WSJ's or Common Voice's folder as they
    are unpacked.

    Raises:
        FileNotFoundError, ValueError: nothing there, or nothing that is one of these.
    """
    if path.suffix.lower() in (".jsonl", ".json"):
        if not path.is_file():
            raise FileNotFoundError(f"data {str(path)!r}: no such manifest")
        return split_by_sentence(read_manifest(path))
    if path.is_file():
        raise ValueError(
            f"data {str(path)!r}: a file of a kind that is not read; give a manifest (.jsonl or "
            ".json) or the corpus's unpacked folder"
        )
    if not path.is_dir():
        raise FileNotFoundError(f"data {str(path)!r}: no such folder")
    for reader in (_read_manifests, _read_common_voice, _read_librispeech, _read_wsj):
        found = reader(path)
        if any(found.values()):
            return found
    raise ValueError(
        f"{path} holds no speech that is known here: train.jsonl and its kin, Common Voice's "
        "train.tsv and clips/, "
        f"LibriSpeech's train-*/*/*/*.trans.txt, or WSJ's si_tr*/**/*.wv1 with .dot files"
    )


def read_manifest(path: Path) -> list[tuple[Utterance, str | None]]:
    """(utterance, its line's split) of each line: a JSON object with audio, text, and perhaps
    duration, speaker, split.

    NeMo's keys audio_filepath and speaker_id are taken too. Relative paths count from the manifest.

    Raises:
        ValueError: names the line that is no such object.
    """
    found = []
    for number, line in read_lines(path):
        try:
            row: Mapping[str, Any] = json.loads(line)
            audio, text = row.get("audio", row.get("audio_filepath")), row["text"]
            speaker = row.get("speaker", row.get("speaker_id"))
            if not isinstance(audio, str) or not isinstance(text, str):
                raise TypeError("audio and text must be strings")
            split = row.get("split")
            if split is not None and not isinstance(split, str):
                raise TypeError(f"split must be a string, got {split!r}")
            utterance = Utterance(
                str(path.parent / audio),
                text,
                _known(row.get("duration")),
                None if speaker is None else str(speaker),
                _start(row.get("offset")),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {number}: {type(error).__name__}: {error}; each line is an object "
                "with audio and text, "
                f"and perhaps duration, speaker and split"
            ) from error
        found.append((utterance, split))
    if not found:
        raise ValueError(f"{path} is empty")
    return found


def _known(value: Any) -> float | None:
    """Seconds above 0; tools write null, NaN, -1 or 0 where they know none."""
    seconds = float(value or 0)
    return seconds if 0 < seconds < math.inf else None


def _start(value: Any) -> float | None:
    """Where a part of a recording begins; null or NaN says that it is the whole."""
    start = None if value is None else float(value)
    if start is not None and (start < 0 or start == math.inf):
        raise ValueError(f"offset must be at least 0 seconds, got {start}")
    return None if start is None or math.isnan(start) else start


def split_by_sentence(rows: list[tuple[Utterance, str | None]]) -> Splits:
    """By the line's own split, else 80/10/10 % by sentence, so that no sentence is in two
    splits."""
    splits: Splits = {split: [] for split in SPLITS}
    names = {name: split for split, known in _FILES.items() for name in known}
    for utterance, given in rows:
        if given is not None and given not in names:
            raise ValueError(f"{utterance.audio}: split {given!r} is none of {', '.join(names)}")
        splits[names[given] if given is not None else split_of(normalize(utterance.text))].append(
            utterance
        )
    return splits


def _read_manifests(folder: Path) -> Splits:
    return {
        split: [u for u, _ in read_manifest(file)] if file else []
        for split, file in _files(folder, "jsonl").items()
    }


def _read_common_voice(folder: Path) -> Splits:
    """`train.tsv`, `dev.tsv`, `test.tsv` with the columns path, sentence and client_id;
    `clips/`."""
    found: Splits = {}
    for split, file in _files(folder, "tsv").items():
        found[split] = []
        if file is None:
            continue
        for _, row in read_tabs(file, ("path", "sentence")):
            clip = folder / "clips" / row["path"]
            if not clip.suffix:  # the releases of 2019 name clips without their ending
                clip = clip.with_name(f"{clip.name}.mp3")
            speaker = row.get("client_id")
            found[split].append(Utterance(str(clip), row["sentence"], None, speaker))
    return found


def _read_librispeech(folder: Path) -> Splits:
    """`{train,dev,test}-*/SPEAKER/CHAPTER/*.trans.txt`, each line an utterance's name and its
    text."""
    found: Splits = {split: [] for split in SPLITS}
    for file in sorted(folder.glob("*-*/*/*/*.trans.txt")):
        split = _split_of_part(
            file.relative_to(folder).parts[0], {"train": "train", "dev": "valid", "test": "test"}
        )
        for _, line in read_lines(file):
            name, _, text = line.partition(" ")
            if split is not None and name:
                found[split].append(
                    Utterance(str(file.parent / f"{name}.flac"), text, None, name.split("-")[0])
                )
    return found


def _read_wsj(folder: Path) -> Splits:
    """WSJ0 and WSJ1 as the LDC's discs have them: `si_{tr,dt,et}*/**/*.wv1` and transcripts in
    `**/*.dot`.

    The split is the folder's: si_tr train, si_dt valid, si_et test; a speaker is the name's first
    three letters.
    """
    found: Splits = {split: [] for split in SPLITS}
    audio = sorted(file for ending in ("wv1", "WV1", "sph") for file in folder.rglob(f"*.{ending}"))
    if not audio:
        return found
    texts = dict(_dots(folder))
    for file in audio:
        kinds = {"si_tr": "train", "si_dt": "valid", "si_et": "test", "sd_tr": "train"}
        split = next((s for part in file.parts if (s := _split_of_part(part.lower(), kinds))), None)
        name = file.stem.lower()
        if split is not None:
            found[split].append(
                Utterance(str(file), clean_wsj(texts.get(name, "")), None, name[:3])
            )
    return found


def _dots(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted([*folder.rglob("*.dot"), *folder.rglob("*.DOT")]):
        for _, line in read_lines(file, "latin-1"):
            if match := re.fullmatch(r"(.*?)\s*\((\w+)\)\s*", line):
                yield match[2].lower(), match[1]


def clean_wsj(text: str) -> str:
    r"""The words of a WSJ transcript: no noises, pauses and pronunciation marks; spoken punctuation
    as its word.

    >>> clean_wsj("[<lip_smack] *Mr\\. Smith* ,COMMA said ~ <thi-> -DASH no. .PERIOD")
    'Mr. Smith COMMA said thi- DASH no. PERIOD'
    """
    words = []
    for word in text.replace("\\", "").split():
        if re.fullmatch(r"\[.*\]?|.*\]|[.~:]", word):
            continue
        word = re.sub(r"^[,.?!:;\-\"'%&()/{}]+(?=[A-Z]{4,}(?:-[A-Z]+)*$)", "", word)
        words.append(word.replace("*", "").replace("~", "").strip("<>").replace(":", ""))
    return " ".join(word for word in words if word)


def _files(folder: Path, ending: str) -> dict[str, Path | None]:
    return {
        split: next(
            (file for name in names if (file := folder / f"{name}.{ending}").is_file()), None
        )
        for split, names in _FILES.items()
    }


def _split_of_part(part: str, kinds: Mapping[str, str]) -> str | None:
    return next((split for start, split in kinds.items() if part.startswith(start)), None)
