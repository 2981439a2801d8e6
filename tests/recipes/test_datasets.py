import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from safetensors.numpy import load_file

from redense import datasets
from redense.datasets import fetch
from redense.datasets.amazon_queen import read_container
from redense.datasets.emoji import read_emoji_test
from redense.datasets.fashion_mnist import read_idx
from redense.datasets.fillets import read_dialogs
from redense.datasets.speech import Utterance, sentence, write_speech
from redense.datasets.split import SPLITS, split_of
from redense.datasets.tuxpaint import read_stamp

CARD = {
    "name",
    "task",
    "sizes",
    "classes",
    "alphabet",
    "sha256",
    "source",
    "source_sha256",
    "licence",
    "credit",
}


def read_jsonl(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_unknown_name_raises_with_near_names_and_all_names() -> None:
    with pytest.raises(ValueError, match="'fashon-mnist'; did you mean 'fashion-mnist'") as error:
        datasets.prepare("fashon-mnist")
    assert all(name in str(error.value) for name in datasets.names())


def test_the_cache_is_the_environments_or_the_platforms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path))
    assert datasets.cache() == tmp_path
    monkeypatch.delenv("REDENSE_DATA")
    assert datasets.cache().name == "redense"


def test_idx_and_container_refuse_what_they_are_not() -> None:
    assert np.array_equal(read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 9])), [[7, 9]])
    with pytest.raises(ValueError, match="got 00 00 0d"):
        read_idx(bytes([0, 0, 13, 1]))
    with pytest.raises(ValueError, match="b'QTBL'"):
        read_container(b"MIDI" + bytes(20))


def test_a_concept_is_the_name_without_skin_tones() -> None:
    lines = (
        "# group: People & Body\n"
        "1F3CC 1F3FF 200D 2640 FE0F ; fully-qualified     # x E4.0 woman golfing: dark skin tone\n"
        "1F3CC 1F3FF 200D 2640      ; minimally-qualified # x E4.0 woman golfing: dark skin tone\n"
        "1F468 1F3FB 200D 1F9B0     ; fully-qualified     # x E11.0 man: light skin tone, red "
        "hair\n"
        "1F9D1 1F3FB 200D 1F9D1     ; fully-qualified     # x E13.1 kiss: person, person, dark "
        "skin tone\n"
    )
    emoji = read_emoji_test(lines)
    assert [one.concept for one in emoji] == ["woman golfing", "man: red hair", "kiss"]
    assert emoji[0].code == "1f3cc-1f3ff-200d-2640"
    assert emoji[0].group == "People & Body"


def test_texts_are_read_as_the_packages_write_them() -> None:
    lua = (
        'dialogId("a-m-b", "font_small", "Hi, \\"you\\" (all)!")\ndialogStr("Ahoj, \\"ty\\"!")\n\n'
    )
    assert read_dialogs(lua) == [("a-m-b", 'Ahoj, "ty"!', "small")]
    assert read_stamp("A cow.\nde.utf8=Eine Kuh.\nfr.utf8=Une vache.\n")["fr"] == "Une vache."


def test_speech_is_written_in_mono_without_clips_that_cannot_say_their_text(tmp_path: Path) -> None:
    def clip(name: str, seconds: float, text: str) -> Utterance:
        file = io.BytesIO()
        soundfile.write(
            file, np.full((int(8000 * seconds), 2), (1000, 3000), np.int16), 8000, format="WAV"
        )
        return Utterance(name, file.getvalue(), text, "joe")

    clips = [clip(str(number), 1.0, f"sentence  {number}") for number in range(40)]
    wrong = [
        clip("short", 0.4, "oh dear"),
        clip("fast", 1.0, "x" * 23),
        clip("slow", 7.0, "no"),
        clip("long", 9.0, "x" * 50),
    ]
    written = write_speech(tmp_path, clips + wrong)
    lines = [line for split in SPLITS for line in read_jsonl(tmp_path / f"{split}.jsonl")]
    assert sum(written.sizes.values()) == len(lines) == 40
    line = next(line for line in lines if line["audio"] == "audio/7.flac")
    assert line == {
        "audio": "audio/7.flac",
        "text": "sentence 7",
        "duration": 1.0,
        "speaker": "joe",
    }
    samples, rate = soundfile.read(tmp_path / "audio" / "7.flac", dtype="int16")
    assert np.array_equal(samples, np.full(8000, 2000))
    assert rate == 8000


def test_a_split_holds_its_share_and_never_changes() -> None:
    keys = [str(number) for number in range(10_000)]
    splits = [split_of(key) for key in keys]
    assert [splits.count(split) for split in SPLITS] == pytest.approx([8000, 1000, 1000], abs=120)
    assert [split_of(key) for key in ("woman golfing", "inbox tray", "flag: Austria")] == [
        "valid",
        "train",
        "train",
    ]


def test_what_an_older_redense_prepared_is_not_taken(tmp_path: Path) -> None:
    older = tmp_path / "emoji"  # with every skin tone
    older.mkdir()
    with pytest.raises(OSError, match="nothing-here"):
        datasets.prepare("emoji", source=tmp_path / "nothing-here", root=tmp_path)
    assert list(older.iterdir()) == []


@pytest.mark.network
@pytest.mark.parametrize("name", ["amazon-queen", "emoji-groups", "fashion-mnist", "spoken-digits"])
def test_every_card_says_what_it_is(name: str) -> None:
    folder = datasets.prepare(name)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card.keys() >= CARD | {"split", "leakage"}
    assert card["name"] == folder.name == name
    assert all(card[key] for key in CARD - {"classes", "alphabet"})
    assert card["classes"] or card["alphabet"]
    others = [path for path in folder.rglob("*") if path.is_file() and path.name != "card.json"]
    assert fetch.sha256_of_files(others, folder) == card["sha256"]


@pytest.mark.network
def test_fashion_mnist_is_whole() -> None:
    folder = datasets.prepare("fashion-mnist")
    for split, size in {"train": 60_000, "test": 10_000}.items():
        tensors = load_file(folder / f"{split}.safetensors")
        assert tensors["images"].shape == (size, 1, 28, 28)
        assert tensors["images"].dtype == np.uint8
        assert tensors["labels"].dtype == np.int64
        assert np.bincount(tensors["labels"]).tolist() == [size // 10] * 10


@pytest.mark.network
def test_emoji_groups_share_no_picture_between_splits() -> None:
    folder = datasets.prepare("emoji-groups")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    pictures: dict[str, set[bytes]] = {}
    for split in SPLITS:
        tensors = load_file(folder / f"{split}.safetensors")
        assert tensors["images"].shape == (card["sizes"][split], 3, 48, 48)
        assert set(tensors["labels"]) == set(range(9))
        pictures[split] = {image.tobytes() for image in tensors["images"]}
    assert sum(card["sizes"].values()) == 2 * 1914
    assert not pictures["train"] & pictures["test"]
    assert not pictures["train"] & pictures["valid"]
    assert not pictures["valid"] & pictures["test"]


@pytest.mark.network
def test_one_artists_groups_are_half_of_both_artists_in_the_same_splits() -> None:
    both, one, other = (
        datasets.prepare(f"{artist}-groups") for artist in ("emoji", "openmoji", "twemoji")
    )
    for split in SPLITS:
        whole = {image.tobytes() for image in load_file(both / f"{split}.safetensors")["images"]}
        halves = [
            [image.tobytes() for image in load_file(half / f"{split}.safetensors")["images"]]
            for half in (one, other)
        ]
        assert len(halves[0]) == len(halves[1])
        assert set(halves[0]) | set(halves[1]) == whole
        assert not set(halves[0]) & set(halves[1])


@pytest.mark.network
@pytest.mark.parametrize(("name", "drawings"), [("emoji", 3828), ("emoji-tones", 7888)])
def test_emoji_captions_are_karpathys_json_and_share_no_concept(name: str, drawings: int) -> None:
    folder = datasets.prepare(name)
    images = json.loads((folder / "captions.json").read_text(encoding="utf-8"))["images"]
    assert len(images) == len({image["filename"] for image in images}) == drawings
    toned = ["skin" in image["sentences"][0]["tokens"] for image in images]
    assert sum(toned) == drawings - 2 * 1914
    concepts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for image in images:
        concepts[image["split"]].add(image["concept"])
    assert len(set.union(*concepts.values())) == sum(map(len, concepts.values())) == 1914
    flag = next(image for image in images if image["sentences"][0]["raw"] == "flag: Austria")
    assert flag["sentences"][0]["tokens"] == ["flag", "austria"]
    with Image.open(folder / "images" / flag["filename"]) as picture:
        assert (picture.mode, picture.size) == ("RGB", (72, 72))
        assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.network
def test_amazon_queen_has_its_clips_and_shares_no_sentence() -> None:
    folder = datasets.prepare("amazon-queen")
    lines = {split: read_jsonl(folder / f"{split}.jsonl") for split in SPLITS}
    every = [line for split in SPLITS for line in lines[split]]
    assert len(every) == len({line["audio"] for line in every}) == 6257
    assert sum(line["duration"] for line in every) / 3600 == pytest.approx(4.35, abs=0.01)
    assert sum(line["speaker"] == "joe" for line in every) == 1773
    said = {split: {sentence(line["text"]) for line in lines[split]} for split in SPLITS}
    assert not said["train"] & said["test"]
    assert not said["train"] & said["valid"]
    assert not said["valid"] & said["test"]
    line = lines["test"][0]
    samples, rate = soundfile.read(folder / line["audio"])
    assert rate == 11_025
    assert len(samples) / rate == pytest.approx(line["duration"], abs=0.001)
    durations, lengths = zip(
        *((line["duration"], len(line["text"])) for line in every), strict=True
    )
    assert (
        np.corrcoef(durations, lengths)[0, 1] > 0.8
    )  # texts that belonged to other clips would not


@pytest.mark.network
def test_spoken_digits_keep_their_frames() -> None:
    tensors = [
        load_file(datasets.prepare("spoken-digits") / f"{split}.safetensors") for split in SPLITS
    ]
    assert sum(len(part["labels"]) for part in tensors) == 3000
    for part in tensors:
        assert part["features"].shape == (part["lengths"].sum(), 13)
        assert set(part["labels"]) == set(range(10))
