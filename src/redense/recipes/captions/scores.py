"""How good captions are: BLEU and chrF by sacrebleu, CIDEr-D by the COCO evaluation, exact match,
one by one too.

Captions are compared as they were tokenised when read (lower case, no punctuation, words between
blanks), so sacrebleu tokenises nothing. Every score is in per cent, but CIDEr-D: there 10 is
perfect.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

try:
    from pycocoevalcap.cider.cider import Cider
    from sacrebleu.metrics import BLEU, CHRF
except ImportError as error:
    raise ImportError(
        "captions need sacrebleu and pycocoevalcap: pip install 'redense[captions]'"
    ) from error

Texts = Sequence[str]
References = Sequence[Texts]
"""The right captions of each image, at least one."""

TOKENISATION = "lower case without punctuation, split at blanks; sacrebleu tokenize=none"


def bleu(captions: Texts, references: References) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of the corpus: ``bleu1`` ... ``bleu4``; smoothing is sacrebleu's default."""
    return {
        f"bleu{n}": _bleu(n).corpus_score(captions, _streams(references)).score
        for n in (1, 2, 3, 4)
    }


def bleu_without_penalty(captions: Texts, references: References) -> dict[str, float]:
    """The paper's variant, as NeuralTalk's script has it: BLEU-1 to 4 with no penalty for
    brevity."""
    whole = _bleu(4).corpus_score(captions, _streams(references))
    found = {}
    for n in (1, 2, 3, 4):
        logs = [math.log(p / 100) if p else -math.inf for p in whole.precisions[:n]]
        found[f"bleu{n}_without_penalty"] = 100 * math.exp(sum(logs) / n)
    return found


def exact(captions: Texts, references: References) -> float:
    """Share of captions that equal a reference word for word."""
    right = sum(caption in each for caption, each in zip(captions, references, strict=True))
    return 100 * right / len(references)


def more(captions: Texts, references: References) -> dict[str, float]:
    """The slower scores: chrF, CIDEr-D, BLEU without penalty, and the brevity penalty itself."""
    found = {"chrf": CHRF().corpus_score(captions, _streams(references)).score}
    found["cider_d"] = cider_d(captions, references)
    found["brevity"] = 100 * _bleu(4).corpus_score(captions, _streams(references)).bp
    return found | bleu_without_penalty(captions, references)


def cider_d(captions: Texts, references: References) -> float:
    """CIDEr-D (Vedantam et al. 2015) times 10 as usual; word frequencies are those of these
    references."""
    mean, _ = Cider().compute_score(
        dict(enumerate(references)), {i: [c] for i, c in enumerate(captions)}
    )
    return float(mean)


def each(captions: Texts, references: References) -> list[float]:
    """BLEU of every caption by itself, over as many words at a time as it has (at most 4)."""
    metric = BLEU(tokenize="none", effective_order=True)
    return [
        metric.sentence_score(one, list(right)).score
        for one, right in zip(captions, references, strict=True)
    ]


def constant_caption(references: References, most: int = 50) -> str:
    """The one caption that, said of every image, has the highest BLEU-4: what a network must beat.

    Chosen among the ``most`` commonest captions of these references and ``most`` spread evenly over
    them, scored on as many images as keep it quick.
    """
    texts = [text for right in references for text in right]
    common = [text for text, _ in Counter(texts).most_common(most)]
    some = references[:: max(len(references) // 300, 1)]
    streams = _streams(some)
    scored = {
        text: _bleu(4).corpus_score([text] * len(some), streams).score
        for text in (*common, *texts[:: max(len(texts) // most, 1)])
    }
    return max(scored, key=lambda text: (scored[text], text))


def signature() -> str:
    """sacrebleu's own words for how BLEU-4 is computed."""
    metric = _bleu(4)
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def _bleu(order: int) -> BLEU:
    return BLEU(
        tokenize="none", max_ngram_order=order, force=True
    )  # force: no warning about full stops


def _streams(references: References) -> list[list[str | None]]:
    """The first reference of each image, then the second, ...; None where an image has fewer."""
    most = max(map(len, references))
    return [[right[n] if n < len(right) else None for right in references] for n in range(most)]
