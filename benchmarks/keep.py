"""Keep a study's or a search's records in the repository:
``python -m benchmarks.keep RUN_FOLDER results/NAME``.

Copied are study.json, every record.json without white space, and summary.md and study.csv made anew
from them; pictures, weights, checkpoints and, beyond the first seeds, the rows of single epochs are
left out. It refuses a study with a run missing. Of a search it keeps what was asked, frozen and
found, and its confirmation as a study; `redense report` makes the page of either.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from redense.report.page import report
from redense.study.folder import records
from redense.study.summary import as_markdown, summarize_records

WITH_EPOCHS = 4
"""Seeds whose epochs are kept, for the page's curves."""


OF_A_SEARCH = (
    "search.json",
    "frozen.json",
    "found.json",
    "budget.json",
    "plan.toml",
    "control.toml",
    "summary.txt",
)


def keep_search(search: Path, out: Path) -> int:
    """Copy what ``search`` asked, froze and found to ``out``, and the records of its confirmation;
    how many of those there are."""
    out.mkdir(parents=True, exist_ok=True)
    for name in OF_A_SEARCH:
        shutil.copy(search / name, out / name)
    return keep(search / "confirm", out / "confirm")


def keep(study: Path, out: Path) -> int:
    """Copy the records of ``study`` to ``out``; how many there are."""
    files = sorted(study.glob("*--*/record.json"))
    missing = [
        folder.name for folder in study.glob("*--*/") if not (folder / "record.json").exists()
    ]
    if not files or missing:
        raise SystemExit(f"{study} is not finished: {', '.join(missing) or 'it has no run'}")
    for file in files:
        record = json.loads(file.read_text("utf-8"))
        if record["seed"] >= WITH_EPOCHS:
            record["history"] = []
        target = out / file.parent.name / "record.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, separators=(",", ":")) + "\n", "utf-8")
    asked = json.loads((study / "study.json").read_text("utf-8"))
    (out / "study.json").write_text(json.dumps(asked, indent=2) + "\n", "utf-8")
    against = {name: asked[name] for name in ("control", "baseline") if name in asked}
    summary = summarize_records(records(out), **against)
    (out / "summary.md").write_text(as_markdown(summary) + "\n", "utf-8")
    report([out], out / "report.html").unlink()  # for study.csv, which it writes beside the page
    return len(files)


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    kept = (keep_search if (source / "found.json").exists() else keep)(source, target)
    print(f"{kept} records in {sys.argv[2]}")
