"""Fetch what packages ship: unpack a Debian package or a wheel without installing it, and prove its
content by sha256.

apt and pip know their registries, so no host is named here. Where one of them is missing, `source`
is the package's file, a folder that holds the files, or a folder that is already unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

_BROKEN = (
    EOFError,
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    subprocess.CalledProcessError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class NotFetchedError(OSError):
    """A package cannot be fetched or unpacked with what is here; the message says why and what to
    do."""


def debian(package: str, only: str, work: Path, source: Path | None = None) -> Path:
    """Unpack the files of Debian `package` that match `only` under `work` and return the folder
    that stands for `/`.

    Without `source` the package is downloaded with apt-get, for which nobody has to be root.
    """
    found = _given(source, f"{package}_*.deb")
    if found is None:
        found = _apt_download(package, work / "downloads")
    return found if found.is_dir() else unpack_deb(found, work / package, only)


def wheel(name: str, version: str, only: str, work: Path, source: Path | None = None) -> Path:
    """Unpack the files that match `only` from the wheel of PyPI's `name` `version` under `work`;
    return the folder."""
    found = _given(source, f"{name.replace('-', '_')}-{version}-*.whl")
    if found is None:
        found = _pip_download(name, version, work / "downloads")
    return found if found.is_dir() else unpack_wheel(found, work / name, only)


def unpack_deb(deb: Path, folder: Path, only: str = "*") -> Path:
    """Unpack the files of a `.deb` that match `only` (fnmatch); links are left out.

    A `.deb` is an `ar` archive (man 5 deb) that holds `data.tar.{xz,gz,zst}`. Plain Python, but for
    zst, which needs dpkg-deb. Raises ValueError where `deb` is cut off or is no Debian package.
    """
    try:
        name, data = _ar_member(deb, "data.tar")
        if name.endswith(".zst"):
            data = _dpkg_tar(deb)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            wanted = [entry for entry in archive if entry.isreg() and fnmatch(entry.name, only)]
            archive.extractall(folder, members=wanted, filter="data")
    except _BROKEN as error:
        raise ValueError(
            f"{deb} is not a whole Debian package ({error or 'cut off'}); fetch it again"
        ) from error
    return folder


def unpack_wheel(file: Path, folder: Path, only: str = "*") -> Path:
    """Unpack the files of a wheel, a zip archive, that match `only`; ValueError where it is cut off
    or is no wheel."""
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if fnmatch(name, only)])
    except _BROKEN as error:
        raise ValueError(f"{file} is not a whole wheel ({error}); fetch it again") from error
    return folder


def find(folder: Path, *names: str) -> Path:
    """The one file under `folder` with one of these names, however deep it lies."""
    found = sorted(path for name in names for path in folder.rglob(name))
    if not found:
        raise FileNotFoundError(
            f"no {' or '.join(names)} under {folder}; give --from the package's file, "
            "a folder with all the packages' files, or the folder of an unpacked package"
        )
    return found[0]


def sha256(content: bytes) -> str:
    """The sha256 of `content`, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_files(files: Iterable[Path], folder: Path) -> str:
    """One sha256 over many files: that of the lines `<sha256>  <path from folder>`, as sha256sum
    prints, by path."""
    named = sorted((file.relative_to(folder).as_posix(), file) for file in files)
    lines = (f"{sha256(file.read_bytes())}  {name}\n" for name, file in named)
    return sha256("".join(lines).encode())


def check(name: str, got: str, expected: str) -> None:
    """Raise ValueError unless the content called `name` has the sha256 that this version of redense
    knows."""
    if got != expected:
        raise ValueError(
            f"{name}: sha256 is {got}, expected {expected}; the package holds other data than this "
            "version of redense "
            "knows: fetch it again, or give the known version with --from"
        )


def _given(source: Path | None, pattern: str) -> Path | None:
    """The package's file or folder that `source` stands for; None without a source."""
    if source is None:
        return None
    if not source.exists():
        raise FileNotFoundError(f"--from {source} does not exist; give a .deb, a .whl or a folder")
    inside = sorted(source.glob(pattern)) if source.is_dir() else []
    return inside[-1] if inside else source


def _ar_member(path: Path, prefix: str) -> tuple[str, bytes]:
    """Name and bytes of the first member of an `ar` archive whose name starts with `prefix`."""
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError("it does not start with '!<arch>'")
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
            if name.startswith(prefix):
                data = file.read(size)
                if len(data) < size:
                    raise EOFError(f"{name} ends after {len(data):,} of {size:,} bytes")
                return name, data
            file.seek(size + size % 2, os.SEEK_CUR)
    raise EOFError(f"no {prefix} in it")


def _dpkg_tar(deb: Path) -> bytes:
    """The uncompressed tar stream of a `.deb`, by dpkg-deb: Python reads zst from 3.14 on only."""
    if shutil.which("dpkg-deb") is None:
        raise NotFetchedError(
            f"{deb} is packed with zst, which needs dpkg-deb; give an unpacked folder with --from "
            "instead"
        )
    return subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True
    ).stdout


def _apt_download(package: str, folder: Path) -> Path:
    """The `.deb` of `package`, downloaded into `folder`; root without package lists gets them
    first."""
    if shutil.which("apt-get") is None:
        raise NotFetchedError(
            f"fetching {package} needs apt-get (Debian, Ubuntu), which is not here; "
            f"get {package}_*.deb on another machine and give it with --from FILE"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # root hands downloads to the user _apt, who may not write into our folder
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    done = _run(download, folder)
    if done.returncode and os.geteuid() == 0:
        _run(["apt-get", "-q", "update"], folder)
        done = _run(download, folder)
    found = sorted(folder.glob(f"{package}_*.deb"))
    if done.returncode or not found:
        raise NotFetchedError(
            f"apt-get could not download {package}: {_last_line(done)}; "
            f"run 'sudo apt-get update' once, or give {package}_*.deb with --from FILE"
        )
    return found[-1]


def _pip_download(name: str, version: str, folder: Path) -> Path:
    """The wheel of `name` `version`, downloaded into `folder` with this interpreter's pip."""
    if importlib.util.find_spec("pip") is None:
        raise NotFetchedError(
            f"fetching {name} needs pip, which is not installed for {sys.executable}; "
            f"run '{sys.executable} -m ensurepip', or give the wheel of {name} {version} with "
            "--from FILE"
        )
    folder.mkdir(parents=True, exist_ok=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    done = _run([*pip, "--only-binary", ":all:", f"{name}=={version}"], folder)
    found = sorted(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if done.returncode or not found:
        raise NotFetchedError(
            f"pip could not download {name}=={version}: {_last_line(done)}; give its wheel with "
            "--from FILE"
        )
    return found[-1]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}, no message"
