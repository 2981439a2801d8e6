"""What is fuzzed: a reader or a command, the files that it reads, and how they may be damaged."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.mutations import (
    BYTES,
    Bytes,
    change_checkpoint,
    change_header,
    change_json,
    change_json_line,
    change_text,
)
from redense.cli import main
from redense.runs.checkpoints import read
from redense.runs.seal import content_sum

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import write_pictures, write_stripes
from study_folder import write_study
from trained_runs import train, write_captions, write_speech

JSON = (change_json, change_json, change_json, change_text, *BYTES)
LINES = (change_json_line, change_json_line, change_json_line, change_text, *BYTES)
TEXT = (change_text, change_text, change_text, *BYTES)
TENSORS = (change_header, change_header, *BYTES)
CHECKPOINT = (change_checkpoint, change_checkpoint, *BYTES)

Reader = Callable[[Path, Path], Any]
"""Of (the target's folder, the damaged file in it); what it gives is compared where that is
asked."""


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        folder: below the base folder; a copy of it is damaged.
        files: patterns of the files in it that are.
        share: of all cases.
        exact: whether a file that is accepted must give what the undamaged one gave.
        writes: whether the reader changes the folder, so that each case needs a fresh copy.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    reader: Reader
    damages: tuple[Bytes, ...]
    share: float = 1.0
    exact: bool = False
    writes: bool = False


class RefusedError(Exception):
    """A command that ended with code 2, and what it said."""


def command(*arguments: object) -> None:
    """Run a command in this process."""
    code = main([str(argument) for argument in arguments])
    if code == 2:
        raise RefusedError
    if code != 0:
        raise RuntimeError(f"exit code {code}")


# readers


def _picture(folder: Path, file: Path) -> None:
    from redense.files.pictures import middle, read_picture

    middle(read_picture(file))


def _sound(folder: Path, file: Path) -> None:
    from redense.files.sound import read_sound

    read_sound(file)


def _utterances(folder: Path, file: Path) -> None:
    from redense.recipes.speech.readers import read

    read(file.parent if file.name in ("wav.scp", "text", "segments", "utt2spk") else file)


def _captions(folder: Path, file: Path) -> None:
    from redense.recipes.captions.readers import read

    read(str(file))


def _image_list(folder: Path, file: Path) -> None:
    from redense.recipes.images.folders import list_pictures

    list_pictures(file)


def _shards(folder: Path, file: Path) -> None:
    from redense.files.pictures import read_picture
    from redense.recipes.images.shards import open_shards

    data = open_shards(folder, 8)
    for part in (data.train, data.valid):
        get = part.reader(1)
        for number in range(len(part)):
            read_picture(get(number)[0], name=part.title(number))


def _plan(folder: Path, file: Path) -> None:
    from redense.recipes.schedule import read_plan, read_settings

    str(read_plan(file))
    read_settings(file)


def _space(folder: Path, file: Path) -> None:
    from redense.cli.search import _space as read_space

    read_space(file)


def _config(folder: Path, file: Path) -> None:
    from redense.recipes import build_task
    from redense.runs.folder import RunFolder

    build_task(RunFolder(folder).config)


def _report(folder: Path, file: Path) -> None:
    command("report", folder, "--out", folder / "page.html")


def _restore(folder: Path, file: Path) -> str:
    from redense.recipes.trained import restore
    from redense.runs.weights import weights_sha256

    network, _ = restore(folder)
    return weights_sha256(network.state_dict())


def _inspect(folder: Path, file: Path) -> None:
    command("inspect", file)


def _checkpoint(folder: Path, file: Path) -> str:
    return content_sum(read(file))


def _resume(folder: Path, file: Path) -> str:
    recipe = json.loads((folder / "kind.json").read_text("utf-8"))
    command("train", recipe, "--resume", folder)
    record = json.loads((folder / "record.json").read_text("utf-8"))
    return str(record["weights_sha256"])


def _prove(folder: Path, file: Path) -> None:
    os.chdir(folder)  # a study knows its function by the place that was named
    plan = ("--dense", 2, "--sparse", 1, "--redense", 1, "--sparsity", 0.5)
    command("prove", "mine.py:train", *plan, "--seeds", 2, "--jobs", 1, "--out", "study")


def _search(folder: Path, file: Path) -> None:
    os.chdir(folder)
    size = ("--dense", 2, "--epochs", 4, "--trials", 2, "--seeds", 1, "--confirm", 2)
    command("search", "mine.py:train", *size, "--jobs", 1, "--anyway", "--out", "search")


def _features(folder: Path, file: Path) -> None:
    from redense.recipes.captions.features import read_features

    read_features(file, 3)


def _packaged(folder: Path, file: Path) -> None:
    from redense.recipes.images.readers import read_packaged

    os.environ["REDENSE_DATA"] = str(folder)
    read_packaged("fashion-mnist")


def _language_model(folder: Path, file: Path) -> None:
    from redense.recipes.speech.decoding import BeamSearch

    BeamSearch(" 'abc", file)


def _stored_sounds(folder: Path, file: Path) -> str:
    from redense.recipes.speech.data import load

    os.environ["REDENSE_DATA"] = str(folder / "cache")
    return str(load(str(folder / "data")).fingerprint()["sha256"])


TARGETS = (
    Target("pictures", "pictures", ("*",), _picture, BYTES, share=3),
    Target("sounds", "sounds", ("*",), _sound, BYTES, share=3),
    Target("lists of speech, JSON lines", "speech/data", ("train.jsonl",), _utterances, LINES),
    Target("lists of speech, JSON", "lists/speech", ("*.json",), _utterances, JSON),
    Target("lists of speech, tables", "lists/speech", ("*.csv", "*.tsv"), _utterances, TEXT),
    Target("lists of speech, Kaldi", "lists/kaldi", ("*",), _utterances, TEXT),
    Target("captions, JSON", "lists/captions", ("*.json",), _captions, JSON, share=1.5),
    Target("captions, tables", "lists/captions", ("*.txt", "*.csv"), _captions, TEXT),
    Target("lists of pictures", "lists/images", ("*.csv", "*.tsv"), _image_list, TEXT),
    Target("shards", "shards", ("*.parquet",), _shards, BYTES),
    Target("shards, classes", "shards", ("classes.txt",), _shards, TEXT, share=0.5),
    Target("plans", "plans", ("*.toml", "*.yaml"), _plan, TEXT, share=2),
    Target("spaces", "spaces", ("*.toml",), _space, TEXT, share=0.5),
    Target("configs", "images/run", ("config.json",), _config, JSON),
    Target("records", "images/run", ("record.json",), _report, JSON),
    Target("histograms", "images/run", ("histograms.json",), _report, JSON, share=0.5),
    Target("worst utterances", "speech/run", ("worst.json",), _report, JSON, share=0.5),
    Target("captions by phase", "captions/run", ("captions.json",), _report, JSON, share=0.5),
    Target("networks, pictures", "images/run", ("network.json",), _restore, JSON, share=0.7),
    Target("networks, captions", "captions/run", ("network.json",), _restore, JSON, share=0.7),
    Target("networks, speech", "speech/run", ("network.json",), _restore, JSON, share=0.7),
    Target("weights of runs", "images/run", ("*.safetensors",), _restore, TENSORS, 1.5, True),
    Target("weights of exports", "hub", ("*.safetensors",), _restore, TENSORS, 1.0, True),
    Target("exports", "hub", ("config.json",), _restore, JSON),
    Target(
        "weights, inspected",
        "weights",
        ("*.safetensors", "*.pt"),
        _inspect,
        (*TENSORS, change_checkpoint),
    ),
    Target("checkpoints", "images/run/checkpoints", ("*.ckpt",), _checkpoint, CHECKPOINT, 3, True),
    Target(
        "checkpoints of functions",
        "function/study/dsd--0/checkpoints",
        ("*.ckpt",),
        _checkpoint,
        CHECKPOINT,
        1.5,
        True,
    ),
    Target(
        "resumed runs", "stopped", ("checkpoints/epoch-*.ckpt",), _resume, CHECKPOINT, 0.3, True
    ),
    Target("resumed runs, config", "stopped", ("config.json",), _resume, JSON, 0.1, writes=True),
    Target("studies", "study", ("study.json", "*/record.json"), _report, JSON),
    Target(
        "studies, gone on with",
        "function",
        ("study/study.json", "study/*/record.json", "study/*/config.json"),
        _prove,
        JSON,
        share=0.6,
        writes=True,
    ),
    Target(
        "searches",
        "search",
        ("search/*.json", "search/*.log", "search/trials/*/record.json"),
        _search,
        JSON,
        share=0.3,
        writes=True,
    ),
    Target("searches, reported", "search/search", ("found.json",), _report, JSON, share=0.5),
    Target("features", "features", ("*",), _features, TENSORS),
    Target("packaged sets, cards", "packaged", ("fashion-mnist/card.json",), _packaged, JSON, 0.5),
    Target(
        "packaged sets, tensors",
        "packaged",
        ("fashion-mnist/*.safetensors",),
        _packaged,
        TENSORS,
        share=0.7,
    ),
    Target("language models", "language", ("*.arpa",), _language_model, TEXT),
    Target(
        "kept features of sounds",
        "kept",
        ("cache/features/*/index.json",),
        _stored_sounds,
        JSON,
        0.4,
        True,
        True,
    ),
)


# undamaged files


def prepare(base: Path, trained: dict[str, Path] | None = None) -> None:
    """Write what the targets read below ``base``.

    Args:
        trained: folders of `trained_runs.train` by recipe, each with ``run`` and its data, that
            are copied instead of trained.
    """
    base.mkdir(parents=True)
    _write_pictures(base / "pictures")
    _write_sounds(base / "sounds")
    _write_lists(base / "lists")
    _write_shards(base / "shards")
    _write_plans(base)
    _train_recipes(base, trained or {})
    _stop_a_run(base)
    command("export", base / "images" / "run", base / "hub")
    write_study(base / "study", methods=("dense", "lower_lr", "dsd"), seeds=3)
    _prove_a_function(base)
    _write_tensors(base)
    write_stripes(base / "packaged")
    _write_language_model(base / "language")
    _keep_sounds(base / "kept")


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for ending in ("png", "jpg", "gif", "bmp", "ppm", "tif", "webp", "tga"):
        picture.save(folder / f"noise.{ending}")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    picture.convert("P").save(folder / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)


def _write_sounds(folder: Path) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (8000, 2))
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        soundfile.write(folder / f"noise.{ending}", noise, 16_000)
    soundfile.write(folder / "float.wav", noise, 16_000, subtype="FLOAT")
    soundfile.write(folder / "old.wv1", noise[:, 0], 16_000, format="NIST", subtype="PCM_16")


def _write_lists(folder: Path) -> None:
    speech = folder / "speech"
    (speech / "wavs").mkdir(parents=True)
    (speech / "train.csv").write_text("path,sentence,client_id\na.wav,a cab,me\nb.wav,ab,you\n")
    (speech / "train.tsv").write_text("path\tsentence\na.wav\ta cab\nb.wav\tab\n")
    (speech / "metadata.csv").write_text("a|A cab|a cab\nb|ab|ab\n")
    (speech / "a.txt").write_text("a cab")
    pair = {"wav_path": "a.wav", "transcript_path": "a.txt"}
    (speech / "pairs.json").write_text(json.dumps({"root_path": ".", "samples": [pair, pair]}))
    rows = [{"audio_filepath": "a.wav", "text": "a cab", "duration": 1.5, "offset": 0.5}] * 3
    (speech / "nemo.json").write_text("\n".join(map(json.dumps, rows)))
    kaldi = folder / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("a a.wav\nb flac -c -d -s b.flac |\n")
    (kaldi / "text").write_text("a-1 a cab\na-2 ab\nb-1 c\n")
    (kaldi / "segments").write_text("a-1 a 0.0 1.5\na-2 a 1.5 2.5\nb-1 b 0 1\n")
    (kaldi / "utt2spk").write_text("a-1 me\na-2 me\nb-1 you\n")
    captions = folder / "captions"
    captions.mkdir()
    shown = [
        {
            "filename": f"{number}.png",
            "split": ("train", "train", "val", "test")[number % 4],
            "imgid": number,
            "sentences": [{"raw": "A red square", "tokens": ["a", "red", "square"]}],
        }
        for number in range(8)
    ]
    (captions / "dataset.json").write_text(json.dumps({"images": shown}))
    coco = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)],
        "annotations": [{"image_id": number % 4, "caption": "A dog"} for number in range(6)],
    }
    (captions / "captions_train2017.json").write_text(json.dumps(coco))
    (captions / "x.token.txt").write_text("a.jpg#0\ta dog\nb.jpg#0\ta cat\n")
    (captions / "captions.txt").write_text("image,caption\na.jpg,a dog\nb.jpg,a cat\n")
    (captions / "results.csv").write_text("image_name| comment\na.jpg| a dog\nb.jpg| a cat\n")
    images = folder / "images"
    images.mkdir()
    rows = [f"{n}.png,{'ab'[n % 2]},{('train', 'val')[n % 3 == 0]}" for n in range(8)]
    table = "\n".join(("path,label,split", *rows))
    (images / "list.csv").write_text(table)
    (images / "list.tsv").write_text(table.replace(",", "\t"))


def _write_shards(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    encoded = [
        (Path(folder.parent) / "pictures" / f"noise.{kind}").read_bytes() for kind in ("png", "jpg")
    ]
    for split in ("train", "validation"):
        table = pa.table({"image": encoded * 4, "label": [0, 1] * 4})
        parquet.write_table(
            table,
            folder / f"{split}-00000-of-00001.parquet",
            row_group_size=4,
            write_page_checksum=True,
        )
    (folder / "classes.txt").write_text("cat\ndog\n")


def _write_plans(base: Path) -> None:
    (base / "plans").mkdir()
    (base / "plans" / "plan.toml").write_text(
        'include = ["*.weight"]\nweight_decay = [1.0, 0.5]\nselect = "best"\n\n'
        '[[phases]]\nname = "dense"\nlength = 3\n\n'
        '[[phases]]\nname = "sparse"\nlength = 2\nsparsity = 0.3\nlr = 0.1\ndecay = "cosine"\n'
        'mask = "magnitude"\n'
    )
    (base / "plans" / "plan.yaml").write_text(
        "phases:\n- {name: dense, length: 3}\n- name: sparse\n  length: 2\n"
        "  sparsity: {'*.fc*': 0.3, '*': 0.1}\n  decay: linear\n"
    )
    (base / "spaces").mkdir()
    (base / "spaces" / "space.toml").write_text(
        'sparsity = [0.3, 0.8]\nmasks = ["magnitude"]\npasses = [1, 2]\nlr = [0.1, 1.0]\n'
        'decays = ["cosine"]\nlayers = ["all"]\nscored = ["last epoch"]\n'
    )


def _train_recipes(base: Path, trained: dict[str, Path]) -> None:
    data = {
        "images": lambda folder: write_pictures(folder),
        "captions": lambda folder: write_captions(folder),
        "speech": lambda folder: write_speech(folder),
    }
    samples = {
        "images": "test/red/0002.png",
        "captions": "images/test0.png",
        "speech": "test0.wav",
    }
    for recipe, write in data.items():
        folder = base / recipe
        write(folder / "data")
        if recipe in trained:
            shutil.copytree(trained[recipe], folder / "run")
        else:
            train(recipe, folder / "data", folder / "data" / samples[recipe], folder)
            shutil.rmtree(folder / "cache", ignore_errors=True)


def _stop_a_run(base: Path) -> None:
    """The image run as a kill in its last epoch would leave it."""
    folder = shutil.copytree(base / "images" / "run", base / "stopped")
    epochs = sorted((folder / "checkpoints").glob("epoch-*.ckpt"))
    for file in (epochs[-1], folder / "checkpoints" / "redense.ckpt"):
        file.unlink()
    for name in ("record.json", "model.safetensors"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["options"]["data"] = str(base / "images" / "data")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "kind.json").write_text(json.dumps("images"))


def _prove_a_function(base: Path) -> None:
    from conftest import MINE

    for name in ("function", "search"):
        (base / name).mkdir()
        (base / name / "mine.py").write_text(MINE)
    _prove(base / "function", base)
    _search(base / "search", base)


def _write_tensors(base: Path) -> None:
    torch.manual_seed(0)
    tensors = {"layer.weight": torch.randn(8, 4), "layer.bias": torch.zeros(8)}
    (base / "weights").mkdir()
    save_file(tensors, base / "weights" / "model.safetensors")
    torch.save(tensors, base / "weights" / "model.pt")
    (base / "features").mkdir()
    save_file({"features": torch.randn(4, 6)}, base / "features" / "features.safetensors")
    from scipy.io import savemat

    savemat(base / "features" / "vgg_feats.mat", {"feats": np.ones((6, 4), np.float32)})


def _write_language_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "words.arpa").write_text(
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-1.0\t<unk>\n-1.0\t<s>\t-0.3\n"
        "-1.0\t</s>\n-0.7\ta\t-0.3\n-0.7\tcab\t-0.3\n\n\\2-grams:\n-0.5\t<s> a\n-0.5\ta cab\n"
        "-0.5\tcab </s>\n\n\\end\\\n"
    )


def _keep_sounds(folder: Path) -> None:
    write_speech(folder / "data")
    _stored_sounds(folder, folder)
