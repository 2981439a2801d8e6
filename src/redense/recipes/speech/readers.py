"""Utterances from where they lie: lists, Kaldi's folders, LibriSpeech, WSJ, Common Voice, LJSpeech.
Errors name the file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from redense.datasets.split import split_of
from redense.files import folders
from redense.files.fields import Field
from redense.files.folders import find, place_of, say
from redense.files.text import is_file, read_lines, read_table, read_text
from redense.files.typed import check, parse_json, read_json, short
from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.forms import AUDIO, PAIRS, ROW, SPEAKER, TEXT

SPLITS = tuple(folders.SPLITS)
_NAMES = {name: split for split, names in folders.SPLITS.items() for name in names}
_LISTS = ("jsonl", "json", "tsv", "csv")


class Utterance(NamedTuple):
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
Rows = list[tuple[Utterance, str | None]]
"""Utterances with the split that their line names."""

KINDS = (
    "a list (.jsonl, .json, .csv or .tsv) of audio and text, or a folder with such lists called "
    "train, valid (or dev) and test, of Kaldi (wav.scp and text), LibriSpeech, WSJ, Common Voice "
    "or LJSpeech"
)


def read(path: Path) -> Splits:
    """The utterances of a file or folder by split, in a stable order.

        read(Path("train.jsonl"))      # {"audio": "a.wav", "text": "hi", "split": "train"} a line
        read(Path("cv-corpus/de"))     # train.tsv, dev.tsv, test.tsv and clips/, as unpacked

    Lists are JSON lines or tables with a header (see `_utterance` for keys), LJSpeech's
    metadata.csv, or deepspeech.pytorch's pairs of files; without splits they are split by sentence.

    Raises:
        FileNotFoundError, ValueError: nothing there, or nothing that is one of these.
    """
    if path.is_file():
        if path.suffix.lower().removeprefix(".") not in _LISTS:
            raise ValueError(f"data {str(path)!r}: a file of a kind that is not read; give {KINDS}")
        if rows := read_list(path):
            return split_by_sentence(rows, path)
        raise ValueError(f"data {str(path)!r}: no line of it is an utterance; give {KINDS}")
    if not path.is_dir():
        what = "list" if path.suffix else "folder"
        raise FileNotFoundError(f"data {str(path)!r}: no such {what}")
    for reader in (_read_lists, _read_kaldi, _read_one_list, _read_librispeech, _read_wsj):
        found = reader(path)
        if any(found.values()):
            return found
    raise ValueError(f"{path} holds no speech that is known here; give {KINDS}")


def read_list(path: Path) -> Rows:
    """(utterance, its line's split) of each line of a list; relative paths count from the list.

    Raises:
        ValueError: names the line that is no utterance.
    """
    if path.suffix.lower() in (".jsonl", ".json"):
        rows = _objects(path)
    else:
        _, first = next(read_lines(path), (0, ""))
        columns = {cell.strip(' "') for cell in re.split(r"[,;|\t]", first.lower())}
        if not columns & {*AUDIO.names} and "|" in first:
            rows = _ljspeech(path)
        elif re.fullmatch(r"[^,]+\.\w+,[^,]+\.txt", first):
            rows = _pairs_of_files(path)
        else:
            rows = read_table(path)
    found: Rows = []
    for number, row in rows:
        place = f"{path}, line {number}"
        try:
            found.append(_utterance(check(row, ROW, place), path.parent))
        except _WrongRowError as error:
            raise ValueError(f"{place} is no {ROW.what}: {error}; {ROW.remedy}") from error
    return found


def split_by_sentence(rows: Rows, source: object) -> Splits:
    """By the line's own split, else 80/10/10 % by sentence, so that no sentence is in two splits;
    of how many lines of ``source`` that is said."""
    splits: Splits = {split: [] for split in SPLITS}
    for utterance, given in rows:
        if given is not None and given.lower() not in _NAMES:
            raise ValueError(f"{utterance}: split {given!r} is none of {', '.join(_NAMES)}")
        split = _NAMES[given.lower()] if given else split_of(normalize(utterance.text))
        splits[split].append(utterance)
    if unsaid := sum(not given for _, given in rows):
        sizes = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
        say(
            f"{source}: {unsaid} of {len(rows)} utterances name no split and are split by "
            f"sentence, the same each time: {sizes} in all; a column split says which is which"
        )
    return splits


def _utterance(row: Mapping[str, Any], folder: Path) -> tuple[Utterance, str | None]:
    """An utterance of a list's row, by the names of its columns."""
    given, said = AUDIO.of(row), TEXT.of(row)
    if given is None or not given[1]:
        raise _lacks(AUDIO)
    if said is None:
        raise _lacks(TEXT)
    key, name = given
    audio = place_of(folder, name)
    if key == "path" and not is_file(audio):  # Common Voice's; of 2019 without an ending
        audio = place_of(folder / "clips", name if audio.suffix else f"{name}.mp3")
    speaker = SPEAKER.of(row)
    who = None if speaker is None else str(speaker[1])
    duration, start = _known(row.get("duration")), _start(row.get("offset"))
    return Utterance(str(audio), said[1], duration, who, start), row.get("split") or None


class _WrongRowError(ValueError):
    """Why a row is no utterance, before its place is put to it."""


def _lacks(field: Field) -> _WrongRowError:
    return _WrongRowError(f"it has no {field.names[0]}, under {', '.join(field.names)}")


def _objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """JSON lines, or deepspeech.pytorch's one object with root_path and samples."""
    for number, line in read_lines(path):
        if number == 1 and line.lstrip().startswith("{") and not line.rstrip().endswith("}"):
            yield from _samples(path)
            return
        row = parse_json(line, ROW, f"{path}, line {number}")
        if isinstance(row, dict) and "samples" in row:
            yield from _samples(path)
            return
        yield number, row


def _samples(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    content = read_json(path, PAIRS)
    root = path.parent / content["root_path"]
    for number, pair in enumerate(content["samples"]):
        text = _text_of(root / pair["transcript_path"], f"{path}, samples[{number}]")
        yield 1, {"audio": str(root / pair["wav_path"]), "text": text}


def _pairs_of_files(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """deepspeech.pytorch's lists: a recording and the file of its text."""
    for number, line in read_lines(path):
        audio, _, text = line.partition(",")
        file = path.parent / text.strip()
        yield number, {"audio": audio, "text": _text_of(file, f"{path}, line {number}")}


def _text_of(file: Path, place: str) -> str:
    """The text that a list keeps in a file of its own."""
    try:
        return read_text(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place}: its text cannot be read ({error})") from error


def _ljspeech(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """LJSpeech's metadata.csv: a name in wavs/, its text, and its text with numbers in words."""
    for number, line in read_lines(path):
        name, *texts = line.split("|")
        spoken = next((text for text in reversed(texts) if text.strip()), "")
        yield number, {"audio": f"wavs/{name}.wav", "text": spoken}


def _known(value: Any) -> float | None:
    """Seconds above 0; tools write null, NaN, -1 or 0 where they know none."""
    seconds = _seconds("duration", value or 0)
    return seconds if 0 < seconds < math.inf else None


def _start(value: Any) -> float | None:
    """Where a part of a recording begins; null or NaN says that it is the whole."""
    start = None if value is None else _seconds("offset", value)
    if start is not None and (start < 0 or start == math.inf):
        raise _WrongRowError(f"offset must be at least 0 seconds, got {start}")
    return None if start is None or math.isnan(start) else start


def _read_lists(folder: Path) -> Splits:
    """Lists by their names: train.jsonl, or else train_manifest.json, librivox-dev-clean.csv."""
    found: Splits = {split: [] for split in SPLITS}
    files = [file for ending in _LISTS for file in find(folder, f"*.{ending}")]
    named = [file for file in files if _split_of_name(file.stem)]
    chosen = [file for file in named if file.stem.lower() in _NAMES] or named
    for file in chosen:
        if file.suffix.lower() == chosen[0].suffix.lower() and (split := _split_of_name(file.stem)):
            found[split] += [utterance for utterance, _ in read_list(file)]
    return found


def _read_one_list(folder: Path) -> Splits:
    """metadata.csv of LJSpeech or Hugging Face, in the folder or in one a split."""
    for name in ("metadata.jsonl", "metadata.csv"):
        if (folder / name).is_file():
            return split_by_sentence(read_list(folder / name), folder / name)
    found: Splits = {split: [] for split in SPLITS}
    for name, split in _NAMES.items():
        for file in (folder / name / "metadata.jsonl", folder / name / "metadata.csv"):
            if file.is_file():
                found[split] += [utterance for utterance, _ in read_list(file)]
    return found


def _read_kaldi(folder: Path) -> Splits:
    """Kaldi's data folders, wav.scp, text and perhaps segments and utt2spk in each: train, dev and
    test (or train_clean_100 and the like) here or below data/, or one to be split by sentence."""
    if (folder / "wav.scp").is_file():
        return split_by_sentence([(utterance, None) for utterance in _kaldi(folder)], folder)
    found: Splits = {split: [] for split in SPLITS}
    parts = [scp.parent for scp in find(folder, "*/wav.scp", "data/*/wav.scp")]
    exact = [part for part in parts if part.name.lower() in _NAMES]
    for part in exact or parts:
        if split := _split_of_name(part.name):
            found[split] += _kaldi(part)
    return found


def _kaldi(folder: Path) -> list[Utterance]:
    columns = {name: dict(_pairs(folder / name)) for name in ("wav.scp", "text")}
    for name in ("segments", "utt2spk"):
        columns[name] = dict(_pairs(folder / name)) if (folder / name).is_file() else {}
    found = []
    for name, text in columns["text"].items():
        recording, start, seconds = name, None, None
        if segment := columns["segments"].get(name):
            try:
                recording, begin, end = segment.split()
                start, seconds = _start(begin), _known(float(end) - float(begin))
            except ValueError as error:
                raise ValueError(f"{folder / 'segments'}, {name}: {error}") from error
        audio = _kaldi_audio(folder, recording, columns["wav.scp"].get(recording, recording))
        found.append(Utterance(audio, text, seconds, columns["utt2spk"].get(name), start))
    return found


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for _, line in read_lines(path):
        name, *rest = line.split(maxsplit=1)
        yield name, "".join(rest).strip()


def _kaldi_audio(folder: Path, name: str, given: str) -> str:
    """The file that a line of wav.scp means, from where its paths count; commands are never run."""
    plain = re.fullmatch(
        r"(?:flac -c -d(?: -s)?|flac -cds|sph2pipe -f wav(?: -p)?|cat) (\S+) *\|", given
    )
    file = plain[1] if plain else given
    if file.endswith("|") or re.search(r"\.ark:\d+$", file):
        raise ValueError(
            f"{folder / 'wav.scp'}, {name}: {given!r} is no file, and commands are not run; write "
            "the recording to a file and name that"
        )
    near = (parent / file for parent in (folder, folder.parent, folder.parent.parent))
    return str(next((one for one in near if is_file(one)), folder / file))


def _read_librispeech(folder: Path) -> Splits:
    """`{train,dev,test}-*/SPEAKER/CHAPTER/*.trans.txt`, each line an utterance's name and its
    text."""
    found: Splits = {split: [] for split in SPLITS}
    for file in find(folder, "*-*/*/*/*.trans.txt"):
        split = _split_of_name(file.relative_to(folder).parts[0])
        for _, line in read_lines(file):
            name, _, text = line.partition(" ")
            if split is not None and name:
                flac, wav = (file.parent / f"{name}.{ending}" for ending in ("flac", "wav"))
                audio = wav if wav.is_file() and not flac.is_file() else flac
                found[split].append(Utterance(str(audio), text, None, name.split("-")[0]))
    return found


def _read_wsj(folder: Path) -> Splits:
    """WSJ0 and WSJ1 as the LDC's discs have them: `si_{tr,dt,et}*/**/*.wv1` and transcripts in
    `**/*.dot`.

    The split is the folder's: si_tr train, si_dt valid, si_et test; a speaker is the name's first
    three letters.
    """
    found: Splits = {split: [] for split in SPLITS}
    audio = find(folder, "**/*.wv1", "**/*.sph")
    if not audio:
        return found
    texts = dict(_dots(folder))
    for file in audio:
        kinds = {"si_tr": "train", "si_dt": "valid", "si_et": "test", "sd_tr": "train"}
        starts = (part.lower()[:5] for part in file.parts)
        split = next((kinds[start] for start in starts if start in kinds), None)
        name = file.stem.lower()
        if split is not None:
            found[split].append(
                Utterance(str(file), clean_wsj(texts.get(name, "")), None, name[:3])
            )
    return found


def _dots(folder: Path) -> Iterator[tuple[str, str]]:
    for file in find(folder, "**/*.dot"):
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


def _split_of_name(name: str) -> str | None:
    """The split of a file or folder by the first word of its name that is one's:
    an4_train_manifest is train's."""
    parts = re.split(r"[\W_]+", name.lower())
    return next((_NAMES[part] for part in parts if part in _NAMES), None)


def _seconds(name: str, value: Any) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise _WrongRowError(f"{name} must be a number, got {short(value)}") from error
