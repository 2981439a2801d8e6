"""Beam search over models and settings as users give them."""

import gzip
from pathlib import Path

import pytest
import torch

from redense.recipes.speech.alphabet import ENGLISH
from redense.recipes.speech.decoding import BeamSearch
from redense.recipes.speech.models import Padded


def arpa(folder: Path, *words: str) -> Path:
    path = folder / "a.arpa"
    ones = "".join(f"-1\t{word}\t0\n" for word in words)
    path.write_text(
        f"\\data\\\nngram 1={3 + len(words)}\nngram 2=1\n\n\\1-grams:\n-5\t<UNK>\t0\n-99\t<s>\t0\n"
        f"-1\t</s>\t0\n{ones}\n\\2-grams:\n-0.1\t{words[0]} {words[1]}\n\n\\end\\\n"
    )
    return path


def test_a_model_in_capitals_is_matched_as_texts_are(tmp_path):
    path = "hel_lo wo_rld"
    symbols = torch.tensor([0 if c == "_" else ENGLISH.index(c) + 1 for c in path])
    heard = torch.full((1, len(path), len(ENGLISH) + 1), 0.1 / len(ENGLISH))
    heard[0, torch.arange(len(path)), symbols] = 0.9
    search = BeamSearch(ENGLISH, arpa(tmp_path, "HELLO", "WORLD", "WORD"))
    assert search(Padded(heard.log(), torch.tensor([len(path)]))) == ["hello world"]


def test_a_model_of_another_script_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.arpa: none of its 2 words"):
        BeamSearch(ENGLISH, arpa(tmp_path, "\u043c\u0438\u0440", "\u0434\u0430"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"beam": 0}, "got 0"), ({"beam": -1}, "got -1"), ({"weight": float("nan")}, "got nan")],
)
def test_a_setting_that_searches_nothing_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        BeamSearch(ENGLISH, None, **settings)


def test_a_compressed_model_is_said_to_be(tmp_path):
    path = tmp_path / "3-gram.arpa.gz"  # as openslr.org/11 has them
    path.write_bytes(gzip.compress(arpa(tmp_path, "HELLO", "WORLD").read_bytes()))
    with pytest.raises(ValueError, match=r"3-gram\.arpa\.gz is compressed; gunzip it"):
        BeamSearch(ENGLISH, path)


@pytest.mark.parametrize("sign", "'’ʼ")
def test_a_models_words_are_matched_however_their_apostrophes_are_typed(tmp_path, sign):
    path = "do_n't _"
    symbols = torch.tensor([0 if c == "_" else ENGLISH.index(c) + 1 for c in path])
    heard = torch.full((1, len(path), len(ENGLISH) + 1), 0.1 / len(ENGLISH))
    heard[0, torch.arange(len(path)), symbols] = 0.9
    search = BeamSearch(ENGLISH, arpa(tmp_path, f"DON{sign}T", "WORLD"))
    assert search(Padded(heard.log(), torch.tensor([len(path)]))) == ["don't"]


def test_a_model_whose_words_can_hardly_be_written_is_said_to_be(tmp_path, capsys):
    BeamSearch(ENGLISH, arpa(tmp_path, "мир", "да", "o.k.", "hello"))
    assert "3 of its 4 words cannot be written" in capsys.readouterr().err
    BeamSearch(ENGLISH, arpa(tmp_path, "hello", "world", "да"))
    assert not capsys.readouterr().err
