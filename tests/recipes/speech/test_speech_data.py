"""Speech data: every layout on tiny files, bad data by name, the cache, batches."""

import json
import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from redense.recipes.speech import store
from redense.recipes.speech.batches import SPEEDS, Batches
from redense.recipes.speech.data import load
from redense.recipes.speech.readers import Utterance, clean_wsj, read, read_list
from redense.recipes.speech.store import open_sounds


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Features go where no other test's are."""
    load.cache_clear()
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REDENSE_DATA", str(folder))
    return folder


def sound(path: Path, seconds: float = 0.5, seed: int = 0, **settings: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)), 16_000, **settings
    )
    return path


def manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    return path


def corpus(folder: Path, train: int = 12, **changes: dict[str, object]) -> Path:
    """train.jsonl and valid.jsonl of noise; ``changes`` replace keys of train's first line."""
    folder.mkdir(exist_ok=True)
    for split, many in (("train", train), ("valid", 4)):
        rows = []
        for n in range(many):
            file = sound(folder / f"{split}{n}.wav", 0.4 + 0.05 * n, n)
            rows.append(
                {"audio": file.name, "text": "Ab, ab!" if n % 2 else "ba", "speaker": f"s{n % 2}"}
            )
        if split == "train":
            rows[0] |= changes
        manifest(folder / f"{split}.jsonl", rows)
    return folder


def texts(found: dict[str, list[Utterance]]) -> dict[str, list[str]]:
    return {split: [u.text for u in utterances] for split, utterances in found.items()}


# layouts


def test_a_manifest_takes_our_keys_and_nemos(tmp_path):
    path = manifest(
        tmp_path / "a.jsonl",
        [
            {"audio": "x.wav", "text": "one", "duration": 1.5, "speaker": "joe", "split": "dev"},
            {"audio_filepath": "/y.wav", "text": "two", "speaker_id": 7, "split": "train"},
        ],
    )
    one, two = (utterance for utterance, _ in read_list(path))
    assert one == Utterance(str(tmp_path / "x.wav"), "one", 1.5, "joe")
    assert two == Utterance("/y.wav", "two", None, "7")
    assert texts(read(path)) == {"train": ["two"], "valid": ["one"], "test": []}


def test_a_manifest_without_splits_shares_no_sentence_between_them(tmp_path):
    path = manifest(
        tmp_path / "a.jsonl", [{"audio": f"{n}.wav", "text": f"say {n // 2}."} for n in range(400)]
    )
    found = {split: set(said) for split, said in texts(read(path)).items()}
    assert not found["train"] & found["valid"]
    assert not found["train"] & found["test"]
    assert all(len(said) > 10 for said in found.values())


@pytest.mark.parametrize(
    "line", ["{", '{"audio": "x.wav"}', '{"audio": 3, "text": "a"}', "[]", '{"text": "a"}']
)
def test_a_broken_manifest_line_is_named(tmp_path, line: str):
    (tmp_path / "a.jsonl").write_text('{"audio": "x.wav", "text": "fine"}\n' + line)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is no"):
        read(tmp_path / "a.jsonl")


def test_librispeechs_folders_are_read(tmp_path):
    for part, text in (("train-clean-100", "A B"), ("dev-other", "C"), ("test-clean", "D E")):
        folder = tmp_path / part / "19" / "198"
        folder.mkdir(parents=True)
        (folder / "19-198.trans.txt").write_text(f"19-198-0000 {text}\n")
    found = read(tmp_path)
    assert texts(found) == {"train": ["A B"], "valid": ["C"], "test": ["D E"]}
    assert found["train"][0] == Utterance(
        str(tmp_path / "train-clean-100/19/198/19-198-0000.flac"), "A B", None, "19"
    )


def test_common_voices_lists_are_read(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.tsv").write_text(
            f'client_id\tpath\tsentence\nme\t{part}.mp3\tSay "{part}"\n'
        )
    found = read(tmp_path)
    assert texts(found) == {
        "train": ['Say "train"'],
        "valid": ['Say "dev"'],
        "test": ['Say "test"'],
    }
    assert found["test"][0] == Utterance(str(tmp_path / "clips/test.mp3"), 'Say "test"', None, "me")
    (tmp_path / "dev.tsv").write_text("client_id\tpath\nme\ta.mp3\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2 is .*no text, under .*sentence"):
        read(tmp_path)


def test_wsjs_discs_are_read_and_trained_on(tmp_path):
    for part, name in (("si_tr_s", "011c0201"), ("si_dt_05", "050c0103"), ("si_et_05", "440c0204")):
        sound(
            tmp_path / "wsj0" / part / name[:3] / f"{name}.wv1",
            1.0,
            format="NIST",
            subtype="PCM_16",
        )
        (tmp_path / "wsj0" / part / name[:3] / f"{name[:6]}00.dot").write_text(
            f"*Be* [<breath] a bee ,COMMA ({name})\n"
        )
    data = load(str(tmp_path))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [1, 1, 1]
    assert data.train.utterances[0].text == "be a bee comma"
    assert data.test.utterances[0].speaker == "440"


def test_wsjs_marks_are_taken_off():
    text = (
        r"[<lip_smack] *Mr\. Smith* ,COMMA said ~ <thi-> -DASH no. .PERIOD [door_slam] it's "
        r"-HYPHEN %PERCENT ."
    )
    assert clean_wsj(text) == "Mr. Smith COMMA said thi- DASH no. PERIOD it's HYPHEN PERCENT"


def test_what_is_no_data_is_refused_by_name(tmp_path):
    for name, message in (
        ("amazon-quen", "did you mean amazon-queen"),
        (str(tmp_path / "nowhere"), "no such folder"),
        (str(tmp_path / "a.jsonl"), "no such list"),
        (str(tmp_path), "holds no speech that is known here"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load(name)


# bad data

BAD = {
    "symbol outside the alphabet": {"text": "ab 42"},
    "no text": {"text": " ... "},
    "too short for its text": {"text": "ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab"},
    "missing": {"audio": "nowhere.wav"},
    "cut off": {"duration": 3.0},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_utterance_is_named_counted_and_left_out(tmp_path, capsys, cache, reason: str):
    data = load(str(corpus(tmp_path / "tiny", **BAD[reason])))
    said = capsys.readouterr().err
    assert f"left out of train: {tmp_path / 'tiny'}" in said
    assert f": {reason}: " in said
    assert "1 of 16 utterances" in said
    assert data.fingerprint()["left_out"] == {reason: 1}
    assert len(data.train) == 11
    assert reason in (cache / "features" / "left-out-tiny.txt").read_text()


@pytest.mark.parametrize("reason", BAD)
def test_on_bad_data_stop_names_it(tmp_path, reason: str):
    with pytest.raises(
        ValueError, match=f"1 of 16 utterances.* bad, the first in train: .*: {reason}: "
    ):
        load(str(corpus(tmp_path / "tiny", **BAD[reason])), on_bad_data="stop")


def test_a_stride_decides_what_is_too_short(tmp_path):
    folder = corpus(tmp_path / "tiny", text="ab ab ab ab ab")
    assert len(load(str(folder), stride=2).train) == 12
    assert load(str(folder), stride=4).bad == {"too short for its text": 1}


def test_data_without_a_good_utterance_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no good utterance is left in train, of 12"):
        load(str(corpus(tmp_path / "tiny")), longest=0.3)


def test_texts_of_one_long_recording_are_taught_their_own_parts(tmp_path):
    talk = sound(tmp_path / "talk.wav", 9.0).name
    parts = [
        {"audio_filepath": talk, "offset": 3.0 * n, "duration": 3.0, "text": text}
        for n, text in enumerate(("one fish", "two fish", "red fish"))
    ]
    for split in ("train", "valid"):
        manifest(tmp_path / f"{split}.jsonl", parts)
    train = load(str(tmp_path)).train
    assert train.sounds.lengths[:, 0].tolist() == [299, 299, 299]
    assert not np.array_equal(train.sounds.frames(0), train.sounds.frames(1))
    assert len(set(train.sounds.sha256)) == 3


@pytest.mark.parametrize("given", [float("nan"), -1, 0, 0.1, None])
def test_hours_are_those_of_the_sound_that_was_read(tmp_path, given):
    folder = corpus(tmp_path / "tiny", duration=given)
    seconds = sum(0.4 + 0.05 * n for n in range(12))
    assert load(str(folder)).fingerprint()["hours"]["train"] == round(seconds / 3600, 3)


def test_data_without_a_validation_split_validate_on_a_tenth_of_trains_sentences(tmp_path, capsys):
    for split, many in (("train", 40), ("test", 4)):
        rows = [
            {
                "audio": sound(tmp_path / f"{split}{n}.wav", 1.5).name,
                "text": f"{'ab'[n // 20]} {'abcde'[n // 4 % 5]} {'ab'[n // 2 % 2]}",
            }
            for n in range(many)
        ]
        manifest(tmp_path / f"{split}.jsonl", rows)
    data = load(str(tmp_path))
    assert [len(part) for part in (data.train, data.valid, data.test)] == [36, 4, 4]
    said = [{u.text for u in part.utterances} for part in (data.train, data.valid)]
    assert not said[0] & said[1]
    assert "has no validation split: 4 of 40 training utterances" in capsys.readouterr().err


def test_a_missing_split_is_named_and_no_recording_is_blamed(tmp_path):
    one = {"audio": sound(tmp_path / "a.wav").name, "text": "a"}
    manifest(tmp_path / "train.jsonl", [one, one])
    manifest(tmp_path / "test.jsonl", [one])
    with pytest.raises(ValueError, match=r"no validation split, and train too few sentences"):
        load(str(tmp_path))
    (tmp_path / "train.jsonl").rename(tmp_path / "valid.jsonl")
    with pytest.raises(ValueError, match="has no training split; call a list"):
        load(str(tmp_path))


def test_an_alphabet_that_leaves_out_much_is_said_with_the_remedy(tmp_path):
    folder = corpus(tmp_path / "tiny")
    manifest(folder / "valid.jsonl", [{"audio": "valid0.wav", "text": "a"}] * 4)
    with (folder / "train.jsonl").open("a") as lines:
        lines.write(json.dumps({"audio": "train0.wav", "text": "aa"}) + "\n")
    (note,) = load(str(folder), alphabet=" a").fingerprint()["notes"]
    assert note.startswith("12 of 17 utterances are left out for characters outside the alphabet")
    assert "'b' (12); --alphabet takes letters in" in note


def test_test_utterances_that_are_dropped_are_said(tmp_path):
    folder = corpus(tmp_path / "tiny")
    rows = [{"audio": f"valid{n}.wav", "text": text} for n, text in enumerate(("ab", "", "42"))]
    manifest(folder / "test.jsonl", rows)
    notes = load(str(folder)).notes
    assert notes[-1] == (
        "test scores are of 1 of 3 utterances: 1 no text, 1 symbol outside the alphabet"
    )


def test_recordings_that_are_trained_on_and_judged_by_are_said(tmp_path):
    folder = corpus(tmp_path / "tiny")
    manifest(folder / "test.jsonl", [{"audio": "../tiny/train3.wav", "text": "ab"}])
    (note,) = load(str(folder)).notes
    assert note.startswith("1 of 1 test recordings are trained on too")


@pytest.mark.parametrize(
    ("alphabet", "said"),
    [("ab", "must have a space"), (" AB", "lower case; give ' ab'"), (" abb", "'b' twice")],
)
def test_an_alphabet_that_no_text_is_written_with_is_refused(tmp_path, alphabet, said):
    with pytest.raises(ValueError, match=said):
        load(str(corpus(tmp_path / "tiny")), alphabet=alphabet)


def test_a_recording_of_one_frame_is_left_out_by_name(tmp_path):
    folder = corpus(tmp_path / "tiny", text="a")
    sound(folder / "train0.wav", 0.04)
    assert load(str(folder), stride=3).bad == {"too short": 1}
    assert load(str(folder), stride=2).bad == {}


def test_a_part_that_begins_before_its_recording_is_named_by_line(tmp_path):
    rows = [{"audio": "a.wav", "text": "a", "offset": -1.0, "duration": 1.0}]
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1 is .*: offset must be at least 0"):
        read(manifest(tmp_path / "a.jsonl", rows))


def test_one_absurd_sample_spoils_its_own_recording_only(tmp_path):
    folder = corpus(tmp_path / "tiny")
    samples, rate = soundfile.read(folder / "train3.wav")
    samples[500] = 3e25
    soundfile.write(folder / "train3.wav", samples, rate, subtype="FLOAT")
    data = load(str(folder))
    assert data.bad == {"corrupt": 1}
    assert torch.isfinite(data.mean).all()
    assert all(np.isfinite(data.train.sounds.frames(n)).all() for n in range(11))


# the cache


def test_features_are_computed_once_and_anew_when_a_file_changes(tmp_path, monkeypatch):
    utterances = [Utterance(str(sound(tmp_path / f"{n}.wav", seed=n)), "a") for n in range(3)]
    first = open_sounds(utterances, (1.0,), 20.0, "")
    monkeypatch.setattr(store.features, "extract", lambda *_: pytest.fail("computed twice"))
    again = open_sounds(utterances, (1.0,), 20.0, "")
    assert all(np.array_equal(first.frames(n), again.frames(n)) for n in range(3))
    monkeypatch.undo()
    sound(tmp_path / "1.wav", 0.7, 9)
    assert len(open_sounds(utterances, (1.0,), 20.0, "").frames(1)) > len(first.frames(1))


@pytest.mark.parametrize("name", ["index.json", "frames.f16"])
def test_features_that_were_cut_off_on_disk_are_made_again(tmp_path, cache, name):
    utterances = [Utterance(str(sound(tmp_path / f"{n}.wav", seed=n)), "a") for n in range(3)]
    frames = np.array(open_sounds(utterances, (1.0,), 20.0, "").frames(2))
    (file,) = cache.glob(f"features/*/{name}")
    os.truncate(file, file.stat().st_size // 2)
    assert np.array_equal(open_sounds(utterances, (1.0,), 20.0, "").frames(2), frames)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("places", [[[-1, 5]]]),
        ("places", [[[1000, 49]]]),
        ("places", "all"),
        ("sha256", [3]),
        ("bad", {}),
    ],
)
def test_an_index_of_features_that_was_edited_is_made_again(tmp_path, cache, key, value):
    utterances = [Utterance(str(sound(tmp_path / "0.wav")), "a")]
    frames = np.array(open_sounds(utterances, (1.0,), 20.0, "").frames(0))
    (file,) = cache.glob("features/*/index.json")
    index = json.loads(file.read_text())
    (((_, many),),) = index["places"]
    file.write_text(
        json.dumps(index | {key: json.loads(json.dumps(value).replace("49", f"{many}"))})
    )
    assert np.array_equal(open_sounds(utterances, (1.0,), 20.0, "").frames(0), frames)


def test_worker_processes_give_what_this_process_gives(tmp_path, monkeypatch):
    utterances = [
        Utterance(str(sound(tmp_path / f"{n}.wav", 0.1 + 0.01 * n, n)), "a") for n in range(12)
    ]
    here = list(store._extracted(utterances, (1.0, 0.9), 20.0))
    monkeypatch.setattr(store, "_FEW", 0)
    there = list(store._extracted(utterances, (1.0, 0.9), 20.0))
    for one, other in zip(here, there, strict=True):
        assert one.sha256 == other.sha256
        assert all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set REDENSE_DATA to another folder"):
        open_sounds([Utterance(str(sound(tmp_path / "a.wav")), "a")], (1.0,), 20.0, "")


# batches


def drawn(batches: Batches, epoch: int) -> list[tuple[torch.Tensor, list[str]]]:
    batches.set_epoch(epoch)
    return [(sounds.data, [u.audio for u in spoken.utterances]) for sounds, spoken in batches]


def flat(rows):
    return [*chain.from_iterable(rows)]


def centred(frames: torch.Tensor) -> torch.Tensor:
    return frames - frames.mean(0)


def test_the_first_epoch_goes_from_short_to_long_and_later_ones_do_not(tmp_path):
    data = load(str(corpus(tmp_path / "tiny", train=40)))
    batches = Batches(data.train, 4, centred, seed=3)
    batches.set_epoch(0)
    lengths = [sounds.lengths.tolist() for sounds, _ in batches]
    assert flat(lengths) == sorted(flat(lengths))
    batches.set_epoch(1)
    later = [sounds.lengths.tolist() for sounds, _ in batches]
    assert flat(later) != sorted(flat(later))
    assert all(max(row) <= 1.15 * min(row) + 20 for row in later)  # alike still
    assert sorted(flat(later)) == flat(lengths)


def test_batches_are_the_same_for_the_same_seed_and_epoch(tmp_path):
    data = load(str(corpus(tmp_path / "tiny", train=20)), speeds=SPEEDS)
    one, two = (Batches(data.train, 4, centred, seed=3, augment="spec-speed") for _ in range(2))
    drawn(two, 1)
    for epoch in (5, 0):
        for (mine, names), (theirs, others) in zip(
            drawn(one, epoch), drawn(two, epoch), strict=True
        ):
            assert torch.equal(mine, theirs)
            assert names == others
    assert [names for _, names in drawn(one, 5)] != [names for _, names in drawn(one, 6)]
    other = Batches(data.train, 4, centred, seed=4, augment="spec-speed")
    assert [names for _, names in drawn(one, 5)] != [names for _, names in drawn(other, 5)]


def test_speed_perturbation_plays_each_utterance_at_three_speeds(tmp_path):
    data = load(str(corpus(tmp_path / "tiny")), speeds=SPEEDS)
    batches = Batches(data.train, 1, centred, seed=0, augment="speed")
    heard: dict[str, set[int]] = {}
    for epoch in range(30):
        for frames, names in drawn(batches, epoch):
            heard.setdefault(names[0], set()).add(frames.shape[1])
    assert all(len(lengths) == 3 for lengths in heard.values())


@pytest.mark.parametrize("seed", [None, 1])
def test_ranks_share_a_split_without_overlap(tmp_path, seed):
    data = load(str(corpus(tmp_path / "tiny", train=16)))
    parts = [
        drawn(Batches(data.train, 4, centred, seed=seed, rank=rank, ranks=2), 1)
        for rank in range(2)
    ]
    names = [flat(names for _, names in part) for part in parts]
    assert len(names[0]) == len(names[1]) == 8
    assert len({*names[0], *names[1]}) == 16


def test_train_utterances_are_the_same_choice_in_every_run(tmp_path):
    folder = str(corpus(tmp_path / "tiny", train=20))
    one = load(folder, most=7)
    load.cache_clear()
    assert [u.audio for u in one.train.utterances] == [
        u.audio for u in load(folder, most=7).train.utterances
    ]
    assert len(one.train) == 7
    assert one.fingerprint() != load(folder, most=8).fingerprint()
