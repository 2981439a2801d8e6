import gzip
import io
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redense import datasets
from redense.datasets import fetch
from redense.recipes.images import data as images

PREPARE = "import sys; from pathlib import Path; from redense import datasets; " + (
    "print(datasets.prepare('fashion-mnist', source=Path(sys.argv[1]), root=Path(sys.argv[2])))"
)


def make_deb(
    path: Path, files: dict[str, bytes], compress: Callable[[bytes], bytes] = lzma.compress
) -> Path:
    """A Debian package as `ar` would write it, with `files` in data.tar.xz or .gz."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        "data.tar.xz": compress(tar.getvalue()),
    }
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture(scope="session")
def fashion_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("fashion-mnist")
    fetch.debian("dataset-fashion-mnist", "", work)
    return next((work / "downloads").glob("*.deb"))


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress])
def test_a_deb_is_unpacked_without_dpkg(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    deb = make_deb(tmp_path / "a.deb", {"./usr/share/a": b"one", "./usr/b": b""}, compress)
    assert files_under(fetch.unpack_deb(deb, tmp_path / "all")) == {
        "usr/share/a": b"one",
        "usr/b": b"",
    }
    assert files_under(fetch.unpack_deb(deb, tmp_path / "some", only="*/share/*")) == {
        "usr/share/a": b"one"
    }


def test_a_deb_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = make_deb(tmp_path / "whole.deb", {"./a": os.urandom(500)}).read_bytes()
    for size in [*range(0, len(whole) - 1, 17), len(whole) - 2]:
        cut = tmp_path / "cut.deb"
        cut.write_bytes(whole[:size])
        with pytest.raises(
            ValueError, match=r"cut\.deb is not a whole Debian package .*; fetch it again"
        ):
            fetch.unpack_deb(cut, tmp_path / "out")


def test_a_deb_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    deb = make_deb(tmp_path / "evil.deb", {"../outside": b"evil"})
    with pytest.raises(ValueError, match="outside"):
        fetch.unpack_deb(deb, tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


def test_a_broken_wheel_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a-1-py3-none-any.whl"
    file.write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"a-1-py3-none-any\.whl is not a whole wheel"):
        fetch.wheel("a", "1", "*", tmp_path, source=file)


def test_other_content_is_refused_by_its_sha256_and_leaves_nothing(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    (source / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"other"))
    got = fetch.sha256(b"other")
    with pytest.raises(
        ValueError, match=f"train-images-idx3-ubyte: sha256 is {got}, expected c59f468a"
    ):
        datasets.prepare("fashion-mnist", source=source, root=root)
    assert [path.name for path in root.iterdir()] == [".fashion-mnist.lock"]


def test_a_source_that_lacks_the_files_names_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file does not exist"):
        datasets.prepare("fashion-mnist", source=tmp_path / "no-such-file", root=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="no train-images-idx3-ubyte"):
        datasets.prepare("fashion-mnist", source=empty, root=tmp_path)


def test_a_missing_package_tool_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.NotFetchedError, match=r"needs apt-get .* --from FILE"):
        datasets.prepare("amazon-queen", root=tmp_path)


@pytest.mark.parametrize("command", [("data",), ("train", "images", "--data")], ids=" ".join)
def test_without_a_network_a_command_ends_in_one_line_with_name_cause_and_remedy(
    command, redense, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'E: Could not resolve the mirror' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:/bin:/usr/bin")
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "data"))
    images.load.cache_clear()
    answer = redense(*command, "fashion-mnist")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert (
        "apt-get could not download dataset-fashion-mnist: E: Could not resolve the mirror; "
        in answer.err
    )
    assert "give dataset-fashion-mnist_*.deb with --from FILE" in answer.err


@pytest.mark.network
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="the real package comes by apt-get")
class TestWithTheRealDebianPackage:
    def test_unpacking_gives_the_files_that_dpkg_gives(
        self, fashion_deb: Path, tmp_path: Path
    ) -> None:
        subprocess.run(["dpkg-deb", "-x", fashion_deb, tmp_path / "dpkg"], check=True)
        ours = files_under(fetch.unpack_deb(fashion_deb, tmp_path / "ours"))
        assert ours == files_under(tmp_path / "dpkg")

    def test_half_a_package_is_refused_and_leaves_nothing(
        self, fashion_deb: Path, tmp_path: Path
    ) -> None:
        half = tmp_path / "half.deb"
        half.write_bytes(fashion_deb.read_bytes()[: fashion_deb.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"half\.deb is not a whole Debian package"):
            datasets.prepare("fashion-mnist", source=half, root=tmp_path / "root")
        assert not (tmp_path / "root" / "fashion-mnist").exists()

    def test_a_killed_preparation_leaves_nothing_behind(
        self, fashion_deb: Path, tmp_path: Path
    ) -> None:
        pipe, root = tmp_path / "source" / "train-images-idx3-ubyte.gz", tmp_path / "root"
        pipe.parent.mkdir()
        os.mkfifo(pipe)  # nobody writes into it, so the preparation stands still in the middle
        process = subprocess.Popen([sys.executable, "-c", PREPARE, pipe.parent, root])
        while not (root / ".fashion-mnist.work").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (root / "fashion-mnist").exists()
        datasets.prepare("fashion-mnist", source=fashion_deb, root=root)
        assert sorted(path.name for path in root.iterdir()) == [
            ".fashion-mnist.lock",
            "fashion-mnist",
        ]

    def test_two_processes_at_once_prepare_one_folder(
        self, fashion_deb: Path, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-c", PREPARE, fashion_deb, tmp_path / "root"]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.communicate()[0].strip() for process in both] == [
            str(tmp_path / "root" / "fashion-mnist")
        ] * 2
        assert [process.returncode for process in both] == [0, 0]
        left = sorted(path.name for path in (tmp_path / "root").iterdir())
        assert left == [".fashion-mnist.lock", "fashion-mnist"]

    def test_torchvisions_folder_gives_the_same_data(
        self, fashion_deb: Path, tmp_path: Path
    ) -> None:
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in fetch.unpack_deb(fashion_deb, tmp_path / "deb").rglob("*-ubyte.gz"):
            (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        ours = datasets.prepare("fashion-mnist", source=fashion_deb, root=tmp_path / "debian")
        theirs = datasets.prepare("fashion-mnist", source=raw.parent, root=tmp_path / "torchvision")
        assert files_under(ours) == files_under(theirs)
