"""Lists and manifests as the world has them."""

import pytest

from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.readers import Utterance, read, split_by_sentence


@pytest.mark.parametrize("name", ["train.csv", "validated.tsv", "train.jsonl.gz", "wav.scp"])
def test_a_file_of_another_kind_is_said_to_be_one(tmp_path, name):
    (tmp_path / name).write_text("a.wav,hello\n")
    with pytest.raises(ValueError, match=r"kind that is not read.*\.jsonl"):
        read(tmp_path / name)


def test_a_split_that_is_no_string_is_named_by_line(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"audio": "a.wav", "text": "yes", "split": ["train"]}\n')
    with pytest.raises(ValueError, match=r"list\.jsonl, line 1: .*split"):
        read(path)


def test_a_mark_before_common_voices_list_loses_no_speaker_and_a_bare_name_is_an_mp3(tmp_path):
    (tmp_path / "train.tsv").write_text("client_id\tpath\tsentence\nme\ta\tHello.\n", "utf-8-sig")
    clip = str(tmp_path / "clips" / "a.mp3")
    assert read(tmp_path)["train"] == [Utterance(clip, "Hello.", None, "me")]


def test_no_sentence_is_in_two_splits_however_its_apostrophe_is_written():
    words = ["don't", "can't", "won't", "isn't", "wasn't", "it's", "that's", "let's"]
    said = [f"{a} {b} {c}" for a in words for b in words for c in words[:3]]
    said += [text.replace("'", "\u2019") for text in said]
    splits = split_by_sentence([(Utterance(f"{n}.wav", text), None) for n, text in enumerate(said)])
    train, valid, test = ({normalize(u.text) for u in found} for found in splits.values())
    assert not train & valid
    assert not train & test
    assert not valid & test
