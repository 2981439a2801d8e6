"""Word errors of the network that ``make queen`` trains, greedily and with a language model of its
training transcripts: ``python -m benchmarks.queen``, after ``apt-get install irstlm``.

Weight and word score of the beam search are chosen on the validation split, from `WEIGHTS` and
`WORD_SCORES`; then the test split is scored, once each way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from pathlib import Path

from redense.recipes.speech.alphabet import normalize
from redense.recipes.speech.data import find
from redense.recipes.speech.evaluation import evaluate
from redense.runs.record import environment

ROOT = Path(__file__).parents[1]
RUN, OUT = ROOT / "runs/queen", ROOT / "results/bench/queen.json"
DATA = "amazon-queen"
TLM = "/usr/lib/irstlm/bin/tlm"
BEAM = 64
WEIGHTS = (0.5, 1.0, 1.5, 2.0)
WORD_SCORES = (0.0, 1.0, 2.0)


def language_model(folder: Path) -> Path:
    """Trigrams of the training transcripts, as an ARPA file."""
    texts = (normalize(utterance.text) for utterance in find(DATA)[0]["train"])
    (folder / "words.txt").write_text("".join(f"<s> {text} </s>\n" for text in texts if text))
    command = [TLM, "-tr=words.txt", "-n=3", "-lm=wb", "-oarpa=words.arpa"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "words.arpa"


def main() -> None:
    """Choose on valid, score test, and write both."""
    record = json.loads((RUN / "record.json").read_text())
    lm = language_model(RUN)
    tried = []
    for weight, word_score in itertools.product(WEIGHTS, WORD_SCORES):
        search = {"lm_weight": weight, "word_score": word_score}
        scores = evaluate(str(RUN), DATA, split="valid", lm=lm, beam=BEAM, **search)
        tried.append(search | scores)
        print(tried[-1], flush=True)
    best = min(tried, key=lambda one: one["wer"])
    search = {name: best[name] for name in ("lm_weight", "word_score")}
    result = {
        "machine": environment(),
        "weights_sha256": record["weights_sha256"],
        "language_model_sha256": hashlib.sha256(lm.read_bytes()).hexdigest(),
        "utterances": {split: len(find(DATA)[0][split]) for split in ("train", "valid", "test")},
        "beam": BEAM,
        "valid": {"greedy": evaluate(str(RUN), DATA, split="valid"), "searched": tried},
        "chosen": search,
        "test": {
            "greedy": evaluate(str(RUN), DATA),
            "searched": evaluate(str(RUN), DATA, lm=lm, beam=BEAM, **search),
        },
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["test"], indent=2))


if __name__ == "__main__":
    main()
