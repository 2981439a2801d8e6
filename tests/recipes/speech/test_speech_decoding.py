"""CTC's blanks and repeats by hand, the alphabet, beam search with and without a language model,
error rates."""

import itertools
import math

import pytest
import torch

from redense.recipes.speech.alphabet import (
    ENGLISH,
    decode,
    encode,
    find_alphabet,
    needed_frames,
    normalize,
    unknown,
)
from redense.recipes.speech.batches import Spoken
from redense.recipes.speech.decoding import BeamSearch, greedy
from redense.recipes.speech.models import SYMBOLS, Padded
from redense.recipes.speech.readers import Utterance
from redense.recipes.speech.scores import Answer, by_speaker, error_rates, most_frequent, worst
from redense.recipes.speech.task import ctc, impossible

ABC = " abc"


def frames(path: str, sure: float = 0.9) -> Padded:
    """Log-probabilities that say ``path``, `_` the blank, each frame with that certainty."""
    symbols = [0 if c == "_" else ABC.index(c) + 1 for c in path]
    data = torch.full((1, len(path), 5), (1 - sure) / 4)
    data[0, torch.arange(len(path)), symbols] = sure
    return Padded(data.log(), torch.tensor([len(path)]))


BY_HAND = {
    "aab": "ab",
    "a_a": "aa",
    "__aa_bb_": "ab",
    "____": "",
    "a  b": "a b",
    " _ a_ ": "a",
    "abccba": "abcba",
}


@pytest.mark.parametrize("path", BY_HAND)
def test_greedy_merges_repeats_and_drops_blanks(path: str):
    assert greedy(frames(path), ABC) == [BY_HAND[path]]


@pytest.mark.parametrize("path", BY_HAND)
def test_beam_search_agrees_where_frames_are_certain(path: str):
    assert BeamSearch(ABC)(frames(path, 0.999)) == [BY_HAND[path]]


def test_greedy_reads_each_utterance_to_its_own_length():
    data = torch.cat([frames("aab").data, frames("abc").data])
    assert greedy(Padded(data, torch.tensor([2, 3])), ABC) == ["a", "abc"]


def test_beam_search_adds_up_paths_where_greedy_takes_the_best_one():
    probabilities = torch.tensor([[0.4, 0.1, 0.35, 0.1, 0.05]] * 2)  # blank, space, a, b, c
    found = Padded(probabilities.log().unsqueeze(0), torch.tensor([2]))
    assert greedy(found, ABC) == [""]  # 0.16, but "a" has 0.35 * 0.35 + 2 * 0.35 * 0.4 = 0.40
    assert BeamSearch(ABC)(found) == ["a"]


def write_arpa(path, scores: dict[str, float]):
    lines = "\n".join(
        f"{score:.4f}\t{word}\t0"
        for word, score in {"<unk>": -9, "<s>": -99, "</s>": -1, **scores}.items()
    )
    path.write_text(
        f"\\data\\\nngram 1={len(scores) + 3}\nngram 2=1\n\n\\1-grams:\n{lines}\n\n\\2-grams:\n"
        f"-0.1\t{next(iter(scores))} {next(iter(scores))}\n\n\\end\\\n"
    )
    return path


def test_a_language_model_chooses_between_words_that_sound_alike(tmp_path):
    heard = frames("cab_ab", 0.8)
    heard.data[0, 3, 1] = math.log(0.2)  # a space, perhaps
    likely = BeamSearch(
        ABC, write_arpa(tmp_path / "one.arpa", {"cab": -1, "ab": -1}), word_score=0.0
    )
    other = BeamSearch(
        ABC, write_arpa(tmp_path / "two.arpa", {"cabab": -0.5, "ab": -3, "cab": -3}), word_score=0.0
    )
    assert likely(heard) == ["cab ab"]
    assert other(heard) == ["cabab"]


def test_a_missing_or_wrong_language_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.arpa.*no such file"):
        BeamSearch(ABC, tmp_path / "nowhere.arpa")
    (tmp_path / "a.arpa").write_bytes(b"\\1-grams:\nnonsense\n")
    with pytest.raises(ValueError, match=r"a\.arpa is no ARPA file"):
        BeamSearch(ABC, tmp_path / "a.arpa")


def all_paths(text: str, length: int) -> list[str]:
    said = (
        "".join(k for k, _ in itertools.groupby(path)).replace("_", "")
        for path in itertools.product("_ abc", repeat=length)
    )
    return [
        path
        for path, s in zip(itertools.product("_ abc", repeat=length), said, strict=True)
        if s == text
    ]


@pytest.mark.parametrize("text", ["ab", "aa", "abca"])
def test_the_ctc_loss_is_minus_the_log_of_all_paths_probabilities(text: str):
    log = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    total = sum(
        math.exp(sum(float(log[0, t, "_ abc".index(c)]) for t, c in enumerate(p)))
        for p in all_paths(text, 5)
    )
    spoken = said(text)
    assert float(ctc(Padded(log, torch.tensor([5])), spoken)) == pytest.approx(
        -math.log(total) / len(text), rel=1e-5
    )


def said(*texts: str) -> Spoken:
    rows = [torch.tensor(encode(text, ABC)) for text in texts]
    symbols = Padded(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.tensor([len(row) for row in rows]),
    )
    return Spoken(symbols, tuple(Utterance("", text) for text in texts))


def test_texts_too_long_for_their_frames_count_zero_and_are_counted():
    log = (
        torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
        .log_softmax(2)
        .requires_grad_()
    )
    found, spoken = Padded(log, torch.tensor([4, 3])), said("abc", "abb")
    assert needed_frames(encode("abb", ABC)) == 4
    assert impossible(found.lengths, spoken) == 1
    loss = ctc(found, spoken)
    loss.backward()
    assert torch.isfinite(loss)
    assert not log.grad[1].any()
    alone = ctc(Padded(log[:1], torch.tensor([4])), said("abc"))
    torch.testing.assert_close(loss, alone * 3 / 6)


def test_texts_are_lower_case_without_punctuation():
    assert normalize("Well -- I don’t   KNOW!") == "well i don't know"
    assert normalize("É 'tis ' 42") == "é 'tis 42"
    assert normalize("Ře\u030cc") == "řěc"
    assert normalize("?!") == ""


def test_the_english_alphabet_and_the_blank_are_the_papers_29_symbols():
    assert len(ENGLISH) + 1 == SYMBOLS
    assert decode(encode("it's a dog", ENGLISH), ENGLISH) == "it's a dog"


def test_the_alphabet_is_what_a_thousandth_of_the_texts_uses_and_no_digit():
    assert find_alphabet(["abc", "b 12"]) == " 'abc"
    assert find_alphabet(["ab"] * 1999 + ["abé"]) == " 'ab"
    assert unknown("ab éé 1", " 'ab") == "é1"


def test_error_rates_pool_all_words_and_are_split_by_speaker():
    answers = [
        Answer(Utterance("1", "a b c d", None, "x"), "a b c d"),
        Answer(Utterance("2", "a b", None, "y"), "a c"),
        Answer(Utterance("3", "aa", None, None), ""),
    ]
    assert error_rates(answers) == {
        "wer": pytest.approx(100 * 2 / 7),
        "cer": pytest.approx(100 * 3 / 12),
    }
    assert by_speaker(answers)["y"] == {"wer": 50.0, "cer": pytest.approx(100 / 3), "utterances": 1}
    assert list(by_speaker(answers)) == ["unknown", "x", "y"]
    assert [row["audio"] for row in worst(answers, 2)] == ["3", "2"]
    assert (
        most_frequent([a.utterance for a in answers[:1]], [a.utterance for a in answers])[0]
        == "a b c d"
    )
