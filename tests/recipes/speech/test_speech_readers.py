"""Lists and manifests as the world has them."""

import json
from pathlib import Path

import pytest

from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.readers import Utterance, read, read_list, split_by_sentence


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding)
    return path


def said(path: Path) -> dict[str, list[tuple[str, str]]]:
    """(recording, text) of each utterance by split, recordings from the folder on."""
    folder = path if path.is_dir() else path.parent
    return {
        split: [(u.audio.removeprefix(f"{folder}/"), u.text) for u in utterances]
        for split, utterances in read(path).items()
    }


WHOLE = {"train": [("a.wav", "one")], "valid": [("b.wav", "two")], "test": [("c.wav", "three")]}


@pytest.mark.parametrize(
    "name", ["train.jsonl.gz", "train-clean-100.tar.gz", "wav.scp", "a.parquet"]
)
def test_a_file_of_another_kind_is_said_to_be_one(tmp_path, name):
    with pytest.raises(ValueError, match=r"kind that is not read.*\.jsonl"):
        read(write(tmp_path / name, "a.wav,hello\n"))


@pytest.mark.parametrize("name", ["train.csv", "validated.tsv", "train.jsonl"])
def test_a_list_without_an_utterance_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}.*no line of it is an utterance.*\.jsonl"):
        read(write(tmp_path / name, "" if name.endswith("l") else "a.wav,hello\n"))
    with pytest.raises(ValueError, match=rf"{name}, line 2 is no"):
        read(write(tmp_path / name, '{"audio": "a.wav", "text": "a"}\nb.wav'))


LISTS = {
    "ours": ("{split}.jsonl", '{{"audio": "{name}.wav", "text": "{text}"}}\n'),
    "NeMo's": ("{split}_manifest.json", '{{"audio_filepath": "{name}.wav", "text": "{text}"}}\n'),
    "NeMo's LibriSpeech": (
        "{split}_clean.json",
        '{{"audio_filepath": "{name}.wav", "text": "{text}"}}',
    ),
    "Mozilla's": ("{split}.csv", "wav_filename,wav_filesize,transcript\n{name}.wav,9,{text}\n"),
    "Mozilla's importers'": (
        "librivox-{split}-clean.csv",
        "wav_filename,wav_filesize,transcript\n{name}.wav,9,{text}\n",
    ),
    "Hugging Face's": ("{split}/metadata.csv", 'file_name,transcription\n../{name}.wav,"{text}"\n'),
    "deepspeech.pytorch's": ("an4_{split}_manifest.csv", "{name}.wav,{name}.txt\n"),
    "deepspeech.pytorch's JSON": (
        "{split}_manifest.json",
        '{{"root_path": "", "samples": [\n'
        '{{"wav_path": "{name}.wav", "transcript_path": "{name}.txt"}}\n]}}',
    ),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("valid", ["valid", "dev", "val", "validation"])
def test_lists_are_read_by_the_splits_in_their_names(tmp_path, kind, valid):
    name, line = LISTS[kind]
    for split, ours in (("train", "train"), (valid, "valid"), ("test", "test")):
        (audio, text) = WHOLE[ours][0]
        stem = audio.removesuffix(".wav")
        write(tmp_path / f"{stem}.txt", text)
        write(tmp_path / name.format(split=split), line.format(name=stem, text=text))
    write(tmp_path / "config.json", '{"a": 1}')
    write(tmp_path / "validated.tsv", "path\tsentence\nd.mp3\tnot of a split\n")
    found = said(tmp_path)
    assert {split: [(Path(a).name, t) for a, t in rows] for split, rows in found.items()} == WHOLE


def test_every_part_of_a_split_is_read_and_exact_names_come_first(tmp_path):
    for part in ("train_clean_100", "train_other_500", "dev_clean"):
        row = '{"audio_filepath": "a.wav", "text": "%s"}\n'
        write(tmp_path / f"{part}.json", row % part)
    assert [text for _, text in said(tmp_path)["train"]] == ["train_clean_100", "train_other_500"]
    write(tmp_path / "train.json", '{"audio_filepath": "a.wav", "text": "mine"}\n')
    assert said(tmp_path) == {"train": [("a.wav", "mine")], "valid": [], "test": []}


@pytest.mark.parametrize(
    ("listed", "lies"),
    [("clips\\a.wav", "clips/a.wav"), ("ä.wav", "a\u0308.wav"), ("a\u0308.wav", "ä.wav")],
)
def test_a_recording_is_found_though_a_list_spells_its_name_otherwise(tmp_path, listed, lies):
    write(tmp_path / lies, "")
    write(tmp_path / "train.jsonl", json.dumps({"audio": listed, "text": "a"}))
    assert read(tmp_path)["train"][0].audio == str(tmp_path / lies)


def test_librispeech_that_was_converted_is_read(tmp_path):
    chapter = tmp_path / "train-clean-100" / "19" / "198"
    write(chapter / "19-198.trans.txt", "19-198-0000 HELLO\n19-198-0001 THERE\n")
    write(chapter / "19-198-0000.wav", "")
    names = [Path(utterance.audio).name for utterance in read(tmp_path)["train"]]
    assert names == ["19-198-0000.wav", "19-198-0001.flac"]


def test_ljspeech_is_read_with_its_numbers_in_words(tmp_path):
    rows = [f"LJ{n:03}|In 14{n:02}, “so”|In fourteen {n}, “so”" for n in range(60)]
    write(tmp_path / "metadata.csv", "\n".join([*rows, "LJ060|bare|"]))
    found = said(tmp_path)
    assert all(found.values())
    assert found == said(tmp_path / "metadata.csv")
    everything = dict(utterance for split in found.values() for utterance in split)
    assert everything["wavs/LJ003.wav"] == "In fourteen 3, “so”"
    assert everything["wavs/LJ060.wav"] == "bare"


def kaldi(folder: Path, name: str, text: str) -> Path:
    write(folder / "wav.scp", f"{name} {name}.wav\n")
    write(folder / "text", f"{name} {text}\n")
    write(folder / "utt2spk", f"{name} joe\n")
    return folder


@pytest.mark.parametrize("below", ["", "data"])
@pytest.mark.parametrize("part", ["{}", "{}_clean_100"])
def test_kaldis_folders_are_read(tmp_path, below, part):
    for split, name, text in (("train", "a", "one"), ("dev", "b", "two"), ("test", "c", "three")):
        kaldi(tmp_path / below / part.format(split), name, text)
        write(tmp_path / f"{name}.wav", "")  # paths count from where Kaldi ran
    found = read(tmp_path)
    if not below:
        assert said(tmp_path) == WHOLE
    assert texts(found) == {"train": ["one"], "valid": ["two"], "test": ["three"]}
    assert found["train"][0].speaker == "joe"


def texts(found) -> dict[str, list[str]]:
    return {split: [u.text for u in utterances] for split, utterances in found.items()}


def test_kaldis_segments_are_parts_of_recordings(tmp_path):
    write(tmp_path / "train" / "wav.scp", "talk /data/talk.wav\n")
    write(tmp_path / "train" / "segments", "u1 talk 0.0 1.5\nu2\ttalk  1.5 4.0\n")
    write(tmp_path / "train" / "text", "u1 one\nu2 two\nu3\n")
    assert read(tmp_path)["train"] == [
        Utterance("/data/talk.wav", "one", 1.5, None, 0.0),
        Utterance("/data/talk.wav", "two", 2.5, None, 1.5),
        Utterance(str(tmp_path / "train" / "u3"), "", None, None),
    ]
    write(tmp_path / "train" / "segments", "u1 talk zero 1.5\n")
    with pytest.raises(ValueError, match=r"segments, u1: .*zero"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("flac -c -d -s /data/a.flac |", "/data/a.flac"),
        ("sph2pipe -f wav -p /data/a.sph|", "/data/a.sph"),
        ("/data/a b.wav", "/data/a b.wav"),
        ("sph2pipe -f wav -p -c 2 /data/a.sph |", None),
        ("touch /tmp/kaldi-ran; cat /data/a.wav |", None),
        ("/data/raw.ark:1234", None),
    ],
)
def test_a_command_in_wav_scp_is_never_run(tmp_path, given, file):
    kaldi(tmp_path / "train", "a", "one")
    write(tmp_path / "train" / "wav.scp", f"a {given}\n")
    if file:
        assert read(tmp_path)["train"][0].audio == file
        return
    with pytest.raises(ValueError, match=r"wav\.scp, a: .* is no file, and commands are not run"):
        read(tmp_path)


@pytest.mark.parametrize("sign", "\u2028\u2029\x85")
def test_only_a_newline_ends_a_line_of_a_list(tmp_path, sign):
    row = json.dumps({"audio": "a.wav", "text": f"well{sign}then"}, ensure_ascii=False)
    path = write(tmp_path / "a.jsonl", f"{row}\n" + '{"audio": "b.wav", "text": "yes"}\n')
    assert [utterance.text for utterance, _ in read_list(path)] == [f"well{sign}then", "yes"]


@pytest.mark.parametrize(("encoding", "what"), [("utf-16", "UTF-16"), ("cp1252", "line 1")])
def test_a_list_in_another_encoding_is_named(tmp_path, encoding, what):
    for path, text in (
        (tmp_path / "m.jsonl", '{"audio": "a.wav", "text": "café"}\n'),
        (tmp_path / "m.tsv", "path\tsentence\tcafé\n"),
        (tmp_path / "libri" / "train-a" / "1" / "2" / "1-2.trans.txt", "1-2-3 CAFÉ\n"),
    ):
        write(path, text, encoding)
        asked = tmp_path / "libri" if "trans" in path.name else path
        with pytest.raises(ValueError, match=f"{path.name}.*{what}"):
            read(asked)


def test_a_row_of_common_voice_that_was_cut_off_is_named(tmp_path):
    write(tmp_path / "train.tsv", "client_id\tpath\tsentence\nme\ta.mp3\tHello.\nyou")
    with pytest.raises(ValueError, match=r"train\.tsv, line 3 is no utterance: it has no audio"):
        read(tmp_path)


def test_a_split_that_is_no_string_is_named_by_line(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"audio": "a.wav", "text": "yes", "split": ["train"]}\n')
    with pytest.raises(ValueError, match=r"list\.jsonl, line 1 is .*: split must be text"):
        read(path)


def test_a_mark_before_common_voices_list_loses_no_speaker_and_a_bare_name_is_an_mp3(tmp_path):
    (tmp_path / "train.tsv").write_text("client_id\tpath\tsentence\nme\ta\tHello.\n", "utf-8-sig")
    clip = str(tmp_path / "clips" / "a.mp3")
    assert read(tmp_path)["train"] == [Utterance(clip, "Hello.", None, "me")]


def test_no_sentence_is_in_two_splits_however_its_apostrophe_is_written():
    words = ["don't", "can't", "won't", "isn't", "wasn't", "it's", "that's", "let's"]
    said = [f"{a} {b} {c}" for a in words for b in words for c in words[:3]]
    said += [text.replace("'", "\u2019") for text in said]
    rows = [(Utterance(f"{n}.wav", text), None) for n, text in enumerate(said)]
    splits = split_by_sentence(rows, "a list")
    train, valid, test = ({normalize(u.text) for u in found} for found in splits.values())
    assert not train & valid
    assert not train & test
    assert not valid & test


@pytest.mark.parametrize("kind", ["librispeech", "wsj", "lists"])
def test_what_a_mac_leaves_beside_speech_is_no_recording(tmp_path, kind):
    if kind == "librispeech":
        write(tmp_path / "train-clean-100/84/121/84-121.trans.txt", "84-121-0000 HELLO\n")
    elif kind == "wsj":
        write(tmp_path / "wsj0/si_tr_s/011/011c0201.wv1", "")
        write(tmp_path / "wsj0/si_tr_s/011/011c0200.dot", "hello (011C0201)\n")
    else:
        write(tmp_path / "TRAIN.JSONL", '{"audio": "a.wav", "text": "hello"}\n')
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7Mac OS X")
    assert [one.text.lower() for one in read(tmp_path)["train"]] == ["hello"]
