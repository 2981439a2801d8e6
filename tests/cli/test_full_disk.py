"""A disk that fills up under export, report, search and prove: a file system of 64 kB, where the
tests may mount one. (Under train: tests/runs/test_resume.py.)"""

import errno
import json
import subprocess

import pytest
from conftest import MINE
from safetensors import SafetensorError

from redense.runs.checkpoints import write_text, write_whole

SEARCH = ("--dense", "2", "--epochs", "4", "--trials", "2", "--seeds", "1", "--confirm", "2")


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    size = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"]
    if subprocess.run(["mount", *size, str(folder)], capture_output=True).returncode:
        pytest.skip("file systems are mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder):
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


def check_line(answer, file):
    assert answer.code == 2
    line = answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
    assert line.startswith("redense: error: could not write ")
    assert file in line
    assert line.endswith("(No space left on device); earlier files are whole, free some space")


def test_an_export_says_which_file_did_not_fit_and_is_made_once_there_is_space(
    small, trained_images, redense
):
    (small / "filler").write_bytes(bytes(60_000))
    check_line(redense("export", trained_images.run, small / "hub"), f"{small}/hub/model")
    assert list((small / "hub").iterdir()) == []
    enlarge(small)
    assert redense("export", trained_images.run, small / "hub").code == 0


def test_a_page_that_does_not_fit_leaves_the_older_one(small, trained_images, redense):
    page = small / "page.html"
    page.write_text("older")
    check_line(redense("report", trained_images.run, "--out", page), str(page))
    assert page.read_text() == "older"
    assert [file.name for file in small.iterdir()] == ["page.html"]
    enlarge(small)
    assert redense("report", trained_images.run, "--out", page).code == 0


def test_a_search_says_which_file_did_not_fit_and_goes_on_once_there_is_space(
    small, redense, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    flags = (*SEARCH, "--jobs", "1", "--anyway", "--out", small / "found")
    check_line(redense("search", "mine.py:train", *flags), f"{small}/found/trials/")
    assert not [file for file in small.rglob("*") if file.name.endswith(".part")]
    enlarge(small)
    answer = redense("search", "mine.py:train", *flags)
    assert answer.code == 0, answer.err
    assert "the best of 2 plans" in answer.out


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_proof_says_which_file_did_not_fit_and_goes_on_once_there_is_space(
    jobs, small, redense, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    flags = (*("--dense", "2", "--sparse", "1", "--redense", "1", "--sparsity", "0.5"),)
    flags += ("--methods", "dense,lower_lr,dsd", "--seeds", "3", "--jobs", jobs)
    check_line(
        redense("prove", "mine.py:train", *flags, "--out", small / "study"), f"{small}/study/"
    )
    enlarge(small)
    answer = redense("prove", "mine.py:train", *flags, "--out", small / "study")
    assert answer.code == 0, answer.err
    redense("prove", "mine.py:train", *flags, "--out", tmp_path / "whole")
    for method in ("dense", "lower_lr", "dsd"):
        one, other = (
            json.loads((folder / f"{method}--2" / "record.json").read_text())
            for folder in (small / "study", tmp_path / "whole")
        )
        assert one["weights_sha256"] == other["weights_sha256"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, ", free some space"),
        (errno.EDQUOT, ", free some space"),
        (errno.EFBIG, ", free some space"),
        (errno.EROFS, ", choose another folder"),
        (errno.EACCES, ", choose another folder"),
        (errno.EIO, ""),
    ],
    ids=errno.errorcode.get,
)
@pytest.mark.parametrize("kind", ["the system's", "safetensors'"])
def test_the_remedy_is_that_of_the_error(number, remedy, kind, tmp_path):
    def write(partial):
        if kind == "safetensors'":
            raise SafetensorError(f"I/O error: so it is (os error {number})")
        raise OSError(number, "so it is")

    with pytest.raises(OSError, match="earlier files are whole") as failed:
        write_whole(tmp_path / "file", write)
    assert failed.value.errno == number
    assert failed.value.strerror.endswith(f"earlier files are whole{remedy}")


def test_in_a_folder_that_was_deleted_meanwhile_nobody_is_told_to_free_space(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"could not write .*/gone/file") as failed:
        write_text(tmp_path / "gone/file", "text")
    assert failed.value.strerror.endswith("; earlier files are whole")
