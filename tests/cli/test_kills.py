"""Killed at seeded moments, export and report leave whole files or none, and started again they
write the same bytes.

With these, more than ten kills of real processes run with the tests: train by kill -9, SIGTERM and
Ctrl-C (tests/runs/test_resume.py, tests/cli/test_process.py, there also while it imports and with
loader processes alive), prove (tests/study/test_proof.py, test_study.py, its workers alone in
test_running.py), search (tests/search/test_search.py), data preparation
(tests/recipes/test_datasets_fetch.py), a loop of one's own (tests/docs/test_examples.py).
``make kills`` runs as many as one likes over all commands.
"""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the package

from benchmarks import kills


@pytest.mark.parametrize(
    ("name", "manner", "share"),
    [("export", "SIGKILL", 0.95), ("report", "SIGTERM", 0.9)],
)
def test_killed_near_its_end_it_leaves_whole_files_and_starts_again(
    name, manner, share, trained_images, tmp_path
):
    base = tmp_path / "base"
    shutil.copytree(trained_images.run, base / "finished")
    (base / "page").mkdir()
    (command,) = (one for one in kills.COMMANDS if one.name == name)
    seconds, wanted = kills.unkilled(command, base)
    assert kills.kill(command, base, manner, share * seconds, wanted).faults == ()
