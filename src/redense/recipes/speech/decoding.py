"""From log-probabilities to text: greedy as in the paper's numbers, and beam search with an n-gram
language model.

The beam search is flashlight-text's C++ decoder with KenLM, the one that torchaudio's was:
pyctcdecode, in Python, has had no release since 2023 and needs numpy < 2.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from redense.recipes.speech.alphabet import decode, normalize
from redense.recipes.speech.models import Padded


def greedy(log_probabilities: Padded, alphabet: str) -> list[str]:
    """The likeliest symbol of each frame, repeats merged, blanks dropped ("max decoding").

    (B, T, symbols) to B texts.
    """
    best = log_probabilities.data.argmax(2).tolist()
    lengths = log_probabilities.lengths.tolist()
    texts = (
        decode((s for s, _ in groupby(row[:length]) if s), alphabet)
        for row, length in zip(best, lengths, strict=True)
    )
    return [" ".join(text.split()) for text in texts]


class BeamSearch:
    """Beam search over characters; with a language model over its words only.

    Args:
        alphabet: the network's characters.
        language_model: an ARPA file of at least bigrams over normalised words; None searches
            without one. beam: hypotheses kept a frame.
        weight, word_score: of a word's log-probability and of each word, chosen on the validation
            split.

    Raises:
        FileNotFoundError, ValueError: no such model, or not an ARPA file.
    """

    def __init__(
        self,
        alphabet: str,
        language_model: Path | None = None,
        *,
        beam: int = 64,
        weight: float = 1.0,
        word_score: float = 1.0,
    ) -> None:
        if beam < 1:
            raise ValueError(f"beam must be at least 1, got {beam}; 64 is usual")
        for name, value in (("weight", weight), ("word_score", word_score)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}; 1.0 is usual")
        try:
            from flashlight.lib.text import decoder as flashlight
        except ImportError as error:
            raise ImportError(
                "beam search needs flashlight-text; run 'pip install redense[speech]'"
            ) from error
        self._alphabet, self._space = alphabet, alphabet.index(" ") + 1
        self._end = torch.full(
            (1, len(alphabet) + 1), -30.0
        )  # a last frame that says a space, where words end
        self._end[0, self._space] = 0.0
        tokens = min(len(alphabet) + 1, 50)
        if language_model is None:
            options = flashlight.LexiconFreeDecoderOptions(
                beam, tokens, 50.0, 0.0, 0.0, True, flashlight.CriterionType.CTC
            )
            self._decoder: Any = flashlight.LexiconFreeDecoder(
                options, flashlight.ZeroLM(), -1, 0, []
            )
            self._keep: tuple[Any, ...] = ()
            return
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        spellings = _spelled(language_model, alphabet)
        words = list(spellings)
        dictionary = Dictionary(words)
        unknown = dictionary.entry_size()
        dictionary.add_entry("<unk>")
        try:
            model = KenLM(str(language_model), dictionary)
        except (RuntimeError, UnicodeDecodeError) as error:  # its message may hold any bytes
            reason = str(error).splitlines()[-1]
            raise ValueError(
                f"{language_model} is no ARPA file that KenLM reads: {reason}"
            ) from error
        trie = flashlight.Trie(len(alphabet) + 1, self._space)
        start = model.start(False)
        for index, word in enumerate(words):
            _, score = model.score(start, index)
            trie.insert(
                [*(alphabet.index(c) + 1 for c in spellings[word]), self._space], index, score
            )
        trie.smear(flashlight.SmearingMode.MAX)
        options = flashlight.LexiconDecoderOptions(
            beam,
            tokens,
            50.0,
            weight,
            word_score,
            float("-inf"),
            0.0,
            True,
            flashlight.CriterionType.CTC,
        )
        self._decoder = flashlight.LexiconDecoder(
            options, trie, model, self._space, 0, unknown, [], False
        )
        self._keep = (dictionary, model, trie)  # the C++ side holds no reference

    def __call__(self, log_probabilities: Padded) -> list[str]:
        """(B, T, symbols) to B texts."""
        texts = []
        lengths = log_probabilities.lengths.tolist()
        for row, length in zip(log_probabilities.data.detach().float().cpu(), lengths, strict=True):
            emissions = torch.cat((row[:length], self._end))
            best = self._decoder.decode(emissions.data_ptr(), *emissions.shape)[0]
            symbols = (s for s, _ in groupby(best.tokens) if s > 0)
            texts.append(" ".join(decode(symbols, self._alphabet).split()))
        return texts


def _spelled(path: Path, alphabet: str) -> dict[str, str]:
    """Each word of a model that the alphabet can write, and how texts spell it: HELLO, hello."""
    words = list(_words_of(path))
    spellings = {}
    for word in words:
        spelling = normalize(word)
        if spelling and " " not in spelling and set(spelling) <= set(alphabet):
            spellings[word] = spelling
    if not spellings:
        raise ValueError(
            f"{path}: none of its {len(words)} words can be written with {alphabet!r}; "
            "give a model of the network's language"
        )
    if 2 * len(spellings) < len(words):
        print(
            f"{path}: {len(words) - len(spellings)} of its {len(words)} words cannot be written "
            f"with {alphabet!r} and are never answered",
            file=sys.stderr,
        )
    return spellings


def _words_of(path: Path) -> Iterable[str]:
    """The vocabulary of an ARPA file."""
    if not path.is_file():
        raise FileNotFoundError(f"language model {str(path)!r}: no such file")
    with path.open("rb") as content:
        if content.read(2) == b"\x1f\x8b":
            raise ValueError(f"language model {path} is compressed; gunzip it")
    words, inside = [], False
    with path.open(encoding="utf-8", errors="strict") as lines:
        try:
            for line in lines:
                if line.startswith("\\"):
                    inside = line.strip() == "\\1-grams:"
                elif inside and line.strip():
                    words.append(line.split("\t")[1].strip())
                if line.strip() == "\\2-grams:":
                    break
        except (UnicodeDecodeError, IndexError) as error:
            raise ValueError(f"{path} is no ARPA file: {error}") from error
    return [word for word in words if word not in ("<s>", "</s>", "<unk>", "<UNK>")]
