"""Stopped at any moment, by anything, a run goes on and ends with the same bits: real processes,
really killed."""

import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import TINY, write_pictures
from safetensors.torch import save_file

from redense.cli import main
from redense.recipes.images import data
from redense.runs.checkpoints import (
    DamagedCheckpointError,
    read,
    write_text,
    write_whole,
)
from redense.runs.record import masks_of
from redense.runs.trainer import WholeCheckpointIO

PLAN = ("--dense", "1", "--sparse", "4", "--redense", "1", "--augment", "flip-crop")
COMMAND = (
    # a shell's '&' switches SIGINT off for what it starts
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from redense.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Enough of them that a sparse epoch takes longer than it takes to send a signal."""
    return write_pictures(tmp_path_factory.mktemp("many"), {"train": 600, "val": 30, "test": 30})


@pytest.fixture(scope="module")
def wanted(pictures, tmp_path_factory):
    """The final weights' hash of a run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert (
        main(["train", "images", "--data", str(pictures), *TINY, *PLAN, "--out", str(folder)]) == 0
    )
    return sha256(folder)


def sha256(folder):
    return json.loads((folder / "record.json").read_text())["weights_sha256"]


def stop_in_the_sparse_phase(pictures, folder, stop):
    """Start ``redense train images``, call ``stop(process)`` in its second sparse epoch; (exit
    code, stderr)."""
    arguments = ["train", "images", "--data", pictures, *TINY, *PLAN, "--out", folder]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for line in process.stdout:
                if line.startswith("epoch 2/6 sparse"):
                    stop(process)
                    break
            _, complaint = process.communicate(timeout=120)
        finally:
            process.kill()
    assert not (folder / "record.json").exists()
    file = max((folder / "checkpoints").glob("epoch-*.ckpt"))
    assert 2 <= int(file.stem[-4:]) < 5
    assert masks_of(read(file))
    return process.returncode, complaint


@pytest.fixture(scope="module")
def killed(pictures, tmp_path_factory):
    """A run folder as ``kill -9`` left it in the middle of the sparse phase."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    code, _ = stop_in_the_sparse_phase(pictures, folder, lambda process: process.kill())
    assert code == -signal.SIGKILL
    return folder


@pytest.fixture
def copy(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "run")


def newest(folder):
    return max((folder / "checkpoints").glob("epoch-*.ckpt"))


def test_killed_in_the_sparse_phase_a_run_resumes_to_the_same_bits(copy, wanted):
    arguments = [sys.executable, "-m", "redense", "train", "images", "--resume", str(copy)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert f"going on from {copy}/checkpoints/epoch-000" in done.stdout
    assert "epoch 2/6" not in done.stdout
    assert "epoch 6/6 redense" in done.stdout
    assert sha256(copy) == wanted
    rows = (copy / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4", "5", "6"]


def test_ctrl_c_exits_130_says_how_to_go_on_and_loses_nothing(pictures, wanted, tmp_path, redense):
    code, complaint = stop_in_the_sparse_phase(
        pictures, tmp_path / "run", lambda p: p.send_signal(signal.SIGINT)
    )
    assert code == 130
    assert f"redense train images --resume {tmp_path / 'run'}" in complaint
    assert "Traceback" not in complaint
    assert redense("train", "images", "--resume", tmp_path / "run").code == 0
    assert sha256(tmp_path / "run") == wanted


def test_a_full_disk_is_one_clear_line_and_earlier_files_stay_whole(
    pictures, wanted, tmp_path, redense
):
    folder = tmp_path / "run"

    def fill(
        process,
    ):  # from now on the system refuses this process to write more than 8 kB into a file
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, 8192))

    code, complaint = stop_in_the_sparse_phase(pictures, folder, fill)
    assert code == 2
    assert complaint.count("\n") == 1
    assert complaint.startswith(f"redense: error: could not write {folder}/checkpoints/epoch-000")
    assert complaint.endswith(".ckpt (File too large); earlier files are whole, free some space\n")
    assert not list(folder.rglob(".*"))
    for file in folder.rglob("*.ckpt"):
        read(file)
    assert redense("train", "images", "--resume", folder).code == 0
    assert sha256(folder) == wanted


TENSORS = {"weight": torch.ones(5000)}
WRITERS = {
    "text": lambda path: write_text(path, "new " * 500),
    "checkpoint": lambda path: WholeCheckpointIO().save_checkpoint(TENSORS, path),
    "safetensors": lambda path: write_whole(path, lambda partial: save_file(TENSORS, partial)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_write_that_fails_says_why_and_leaves_the_old_file(tmp_path, write):
    (tmp_path / "file").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            OSError, match=r"could not write .*file \(.*File too large.*\); earlier files are whole"
        ):
            write(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def cut(content):
    return content[: len(content) // 2]


def flip_a_byte(content):
    """In the middle of the largest tensor: between entries there are bytes that nobody reads."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        start = content.index(archive.read(largest))
    middle = start + largest.file_size // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def saved_without_loops(content):
    """As a tool would: loaded, changed, saved."""
    checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    del checkpoint["loops"]
    changed = io.BytesIO()
    torch.save(checkpoint, changed)
    return changed.getvalue()


@pytest.mark.parametrize("damage", [cut, flip_a_byte, saved_without_loops])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(copy, wanted, redense, damage):
    before, last = sorted((copy / "checkpoints").glob("epoch-*.ckpt"))[-2:]
    last.write_bytes(damage(last.read_bytes()))
    answer = redense("train", "images", "--resume", copy)
    assert answer.code == 0
    assert f"{last} is damaged" in answer.err
    assert "trying the one before it" in answer.err
    assert f"going on from {before}" in answer.out
    assert sha256(copy) == wanted


def first_momentum(checkpoint):
    return checkpoint["optimizer_states"][0]["state"][0]["momentum_buffer"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("loops"), "has no 'loops'"),
        (lambda c: c.pop("optimizer_states"), "has no 'optimizer_states'"),
        (lambda c: c["callbacks"].pop("DSDCallback"), "callbacks have no 'DSDCallback'"),
        (
            lambda c: c["state_dict"].pop("model.classifier.bias"),
            "1 missing: model.classifier.bias",
        ),
        (lambda c: c["callbacks"]["DSDCallback"]["masks"].update(x=torch.ones(1)), "mask of 'x'"),
        (lambda c: first_momentum(c).resize_(2, 2), "momentum_buffer of its optimizer state"),
        (lambda c: c["optimizer_states"][0]["param_groups"].clear(), "its optimizer state does"),
    ],
)
def test_one_from_before_there_were_sums_is_checked_part_by_part(copy, redense, change, words):
    checkpoint = read(newest(copy))
    change(checkpoint)
    torch.save(checkpoint, newest(copy))
    answer = redense("train", "images", "--resume", copy)
    assert answer.code == 2
    assert answer.err.startswith(f"redense: error: {newest(copy)}")
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_a_half_written_checkpoint_is_passed_over_and_cleared_away(copy, wanted, redense):
    half = copy / "checkpoints" / ".epoch-0003.ckpt.4711.part"
    half.write_bytes(cut(newest(copy).read_bytes()))
    assert redense("train", "images", "--resume", copy).code == 0
    assert not half.exists()
    assert sha256(copy) == wanted


def test_without_a_whole_checkpoint_a_run_is_not_silently_started_anew(copy, redense):
    files = list((copy / "checkpoints").glob("epoch-*.ckpt"))
    for file in files:
        file.write_bytes(cut(file.read_bytes()))
    answer = redense("train", "images", "--resume", copy)
    assert answer.code == 2
    assert all(f"{file} is damaged" in answer.err for file in files)
    last = answer.err.splitlines()[-1]
    assert (
        last == f"redense: error: no checkpoint in {copy}/checkpoints is whole; start the run anew"
    )


def test_killed_before_its_first_checkpoint_a_run_starts_from_the_beginning(copy, wanted, redense):
    for file in (copy / "checkpoints").iterdir():
        file.unlink()
    assert "epoch 1/6 dense" in redense("train", "images", "--resume", copy).out
    assert sha256(copy) == wanted


def test_a_resume_under_other_flags_is_refused(copy, redense):
    answer = redense("train", "images", "--resume", copy, "--sparsity", "0.5", "--lr", "0.01")
    assert answer.code == 2
    assert "but for --data, --data-root, where the same data lie now; leave" in answer.err
    assert "leave out --lr, --sparsity" in answer.err


def test_a_run_whose_data_moved_goes_on_where_they_are_now(
    copy, pictures, redense, tmp_path, wanted
):
    settings = json.loads((copy / "config.json").read_text())
    settings["options"]["data"] = gone = str(tmp_path / "scratch")
    (copy / "config.json").write_text(json.dumps(settings))
    answer = redense("train", "images", "--resume", copy)
    assert answer.code == 2
    said = f"{gone}, the run's --data, is not there; add --data and where it is now"
    assert answer.err == f"redense: error: {said}\n"

    answer = redense("train", "images", "--resume", copy, "--data", pictures)
    assert answer.code == 0, answer.err
    assert sha256(copy) == wanted
    assert json.loads((copy / "config.json").read_text())["options"]["data"] == str(pictures)


def test_a_run_does_not_go_on_with_other_data_that_are_named(copy, redense, tmp_path):
    other = write_pictures(tmp_path / "other", {"train": 60, "val": 30, "test": 30})
    before = (copy / "config.json").read_text()
    answer = redense("train", "images", "--resume", copy, "--data", other)
    assert answer.code == 2
    assert "was trained on other data than other holds now" in answer.err
    assert (copy / "config.json").read_text() == before

    for file in (copy / "checkpoints").iterdir():
        file.unlink()
    answer = redense("train", "images", "--resume", copy, "--data", other)
    assert answer.code == 2
    assert "has no checkpoint yet, so nothing says on which data it was begun" in answer.err
    assert (copy / "config.json").read_text() == before


def test_a_resume_on_pictures_that_changed_is_refused_with_both_fingerprints(
    copy, pictures, redense, tmp_path
):
    settings = json.loads((copy / "config.json").read_text())
    was = data.load(str(pictures), size=8).fingerprint()["sha256"]
    changed = shutil.copytree(pictures, tmp_path / "pictures")
    next((changed / "val").rglob("*.png")).unlink()
    settings["options"]["data"] = str(changed)
    (copy / "config.json").write_text(json.dumps(settings))
    answer = redense("train", "images", "--resume", copy)
    now = data.load(str(changed), size=8).fingerprint()["sha256"]
    assert answer.code == 2
    assert answer.err == (
        f"redense: error: {newest(copy)} was trained on other data than pictures holds now: its "
        f"sha256 was {was}, now "
        f"it is {now}; bring the data back as they were, or start a new run\n"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 5), ("lr", 0.01), ("batch", 16), ("augment", "none")]
)
def test_a_resume_under_an_edited_config_is_refused(name, value, copy, redense):
    settings = json.loads((copy / "config.json").read_text())
    where = settings if name in settings else settings["options"]
    was, where[name] = where[name], value
    (copy / "config.json").write_text(json.dumps(settings))
    answer = redense("train", "images", "--resume", copy)
    assert answer.code == 2
    assert answer.err == (
        f"redense: error: {newest(copy)} was trained with {name} {was!r}, its run's config.json "
        f"says {value!r}: put it back, or start a new run\n"
    )


def same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    return ours == theirs


def test_no_single_flipped_bit_changes_what_is_read(tmp_path):
    file = tmp_path / "small.ckpt"
    torch.save(
        {"a": torch.arange(5.0), "b": torch.ones(3, dtype=torch.uint8), "c": [1, 2.5, "x"]}, file
    )
    content, whole, named = file.read_bytes(), read(file), 0
    with zipfile.ZipFile(file) as archive:
        directory = archive.start_dir  # no checksum covers it: every bit; elsewhere one of sixteen
    flips = [
        (at, bit)
        for at in range(len(content))
        for bit in (range(8) if at >= directory else [at % 8][: at % 2])
    ]
    for at, bit in flips:
        file.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
        try:
            assert same(read(file), whole), f"bit {bit} of byte {at}"
        except DamagedCheckpointError:
            named += 1
    assert named > len(flips) / 3  # the others are the archive's padding and dates


def test_a_run_that_was_stopped_in_its_first_phase_can_be_used(pictures, tmp_path, redense):
    folder = tmp_path / "run"
    flags = ("--data", pictures, *TINY, "--dense", 60, "--sparse", 1, "--redense", 1)
    command = ["train", "images", *flags, "--out", folder]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, command)], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    answer = redense("eval", folder, "--data", pictures, "--workers", 0)
    assert answer.code == 0, answer.err
