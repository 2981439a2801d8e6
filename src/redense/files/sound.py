"""The door to sound: a recording, or a part of one, as samples, whatever program wrote the file."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

try:
    import soundfile
except ImportError as error:
    raise ImportError("speech needs soundfile; run 'pip install redense[speech]'") from error

Samples = NDArray[np.float32]

_SHORTEST = 0.025
"""Seconds; less is no sound: a window of 20 ms, played 1.1 times as fast, and a bit."""
_SLACK = 0.1
"""Seconds by which a length may be off: headers that count themselves as sound."""
_DENSEST = 192_000 * 8 * 4
"""Bytes a second of the densest recording: 8 channels of 32 bits at 192 kHz."""
_LOUDEST = 2.0**31
"""32-bit numbers that a tool wrote as floats without scaling; more is no sound."""
_RATES = (100, 1_000_000)
_BLOCK = 2**18  # frames read at once
_UNKNOWN_SIZE = 0x7FFF_0000  # and more: what sox, arecord and ffmpeg promise into a pipe
_UNKNOWN_KIND = 1  # SF_ERR_UNRECOGNISED_FORMAT
_UNKNOWN_LENGTH = 2**62  # and more: libsndfile's, of a FLAC from a pipe

_KBPS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Rates of an MP3's frames by their headers' index: of MPEG 2 and 2.5, and of MPEG 1."""

_SHORT_CHUNK = re.compile(
    r"^\s*(?:data|SSND|BODY|riff|Data Size|Data length)\s*:?\s*(\d+) \(?should be (\d+)"
    r"|frame count (?P<actual>\d+) does not match value from 'ds64' chunk of (?P<promised>\d+)",
    re.MULTILINE,
)
"""How libsndfile's log says that a header promises more than there is; it reads on regardless."""


ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("aif", "aifc", "aiff", "au", "caf", "flac", "mp3", "oga", "ogg", "opus", "rf64", "snd"),
        *("sph", "w64", "wav", "wave", "wv1", "wv2"),  # WSJ's are SPHERE
    )
)
"""Of file names, in small letters, of what is listed in a folder of recordings."""


class BadAudioError(ValueError):
    """A recording that cannot be used: ``reason`` says why, and its part before the colon is what
    is counted; the message names the file too."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Sound:
    """Samples (N,), in [-1, 1] where the file keeps that; their rate in Hz; the sha256 of the
    file's content, or of a part's samples."""

    samples: Samples
    rate: int
    sha256: str

    @property
    def seconds(self) -> float:
        """How long it is, measured."""
        return len(self.samples) / self.rate


def read_sound(
    path: Path,
    *,
    start: float | None = None,
    seconds: float | None = None,
    longest: float = 3600.0,
) -> Sound:
    """A recording with its channels averaged: WAV, FLAC, Ogg, MP3, NIST SPHERE and more.

        read_sound(Path("call.wav"))                             # all of it
        read_sound(Path("talk.flac"), start=3.0, seconds=2.5)    # 3 s to 5.5 s of a long recording

    Lengths are measured while decoding, never believed; size and time are bounded before.

    Args:
        start: where a part begins, in seconds; None reads the whole recording.
        seconds: how long the part is, or what is promised of the whole; a tenth less is cut off.
        longest: seconds that may be read.

    Raises:
        BadAudioError: missing, no file, empty, corrupt, cut off or too long, by the file's name.
    """
    try:
        _check_file(path, longest if start is None else None)
        samples, rate = _samples(path, start, seconds, longest)
        sha256 = hashlib.sha256(samples.tobytes()).hexdigest() if start is not None else _sum(path)
    except _UnusableError as error:
        raise BadAudioError(path, str(error)) from error
    except FileNotFoundError as error:
        raise BadAudioError(path, "missing: no such file") from error
    except OSError as error:
        raise BadAudioError(path, f"unreadable: {error.strerror}") from error
    except soundfile.LibsndfileError as error:
        said = error.error_string.strip() or f"libsndfile's error {error.code}"
        if error.code == _UNKNOWN_KIND:
            said += "; ffmpeg converts m4a, webm and wma, which are not read, to wav"
        raise BadAudioError(path, f"corrupt: {said}") from error
    return Sound(samples, rate, sha256)


class _UnusableError(Exception):
    """The reason, before the file's name is put to it."""


def _check_file(path: Path, longest: float | None) -> None:
    try:
        status = path.stat()
    except ValueError as error:
        raise _UnusableError(f"missing: {error} in its name") from error
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableError("unreadable: a folder, device or pipe; save the sound as a file")
    if not status.st_size:
        raise _UnusableError("empty: the file has no byte")
    if longest is not None and status.st_size > (most := int((longest + 10) * _DENSEST)):
        raise _UnusableError(f"too long: {status.st_size} bytes of {most}")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _samples(
    path: Path, start: float | None, seconds: float | None, longest: float
) -> tuple[Samples, int]:
    with path.open("rb") as file:
        head = file.read(1024)
    if not (head.startswith(b"NIST_1A") and b"embedded-" in head):
        return _decode(path, start, seconds, longest)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "decoded.wav"
        wav.write_bytes(_from_sphere(path))
        return _decode(wav, start, seconds, longest)


def _decode(
    path: Path, start: float | None, seconds: float | None, longest: float
) -> tuple[Samples, int]:
    with soundfile.SoundFile(os.fsencode(path)) as file:
        rate = file.samplerate
        if not _RATES[0] <= rate <= _RATES[1]:
            raise _UnusableError(f"corrupt: a rate of {rate} Hz")
        part = seconds if start is not None else None
        known = file.format != "MP3" and file.frames < _UNKNOWN_LENGTH
        wanted = part or (file.frames / rate if known and start is None else 0.0)
        if wanted > longest:
            raise _UnusableError(f"too long: {wanted:.1f} s of {longest:g} s")
        left = round(part * rate) if part else int(longest * rate) + 1
        reached = _skip(file, round((start or 0.0) * rate))
        blocks = [np.zeros(0, np.float32)]
        while reached and left and len(block := _read(file, min(left, _BLOCK))):
            blocks.append(block.mean(axis=1))
            left -= len(block)
        samples = np.concatenate(blocks)
        length = len(samples) / rate
        promised = _promised(file, path, length) if start is None else 0.0
    if length > longest:
        raise _UnusableError(f"too long: more than {longest:g} s")
    if seconds is not None and length < 0.9 * seconds - _SLACK:
        promised = max(promised, seconds)
    if promised > length + _SLACK:
        raise _UnusableError(f"cut off: {length:.2f} s of {promised:.2f} s")
    if length < _SHORTEST:
        raise _UnusableError(f"empty: {1000 * length:.0f} ms, shorter than one window of 20 ms")
    return samples, rate


def _read(file: soundfile.SoundFile, frames: int) -> Samples:
    """The next (frames, channels); checked, for one absurd number makes every weight NaN."""
    block = np.full((frames, file.channels), np.nan, np.float32)
    try:
        block = file.read(out=block)
    except soundfile.LibsndfileError:
        # soundfile seeks after each read, which fails at the end of a FLAC of unknown length
        # although the samples are there (soundfile 0.14.0, libsndfile 1.2.2)
        if file.frames < _UNKNOWN_LENGTH:
            raise
        block = block[~np.isnan(block).any(axis=1)]
    loudest = np.abs(block).max(initial=0.0)
    if not loudest <= _LOUDEST:
        raise _UnusableError(f"corrupt: a sample is {loudest:g}, which is no sound")
    return block


def _skip(file: soundfile.SoundFile, frames: int) -> bool:
    """Go to a frame, by reading where the encoding cannot be sought in; False where it is beyond
    the end."""
    if file.seekable():
        try:
            return bool(frames <= file.frames and file.seek(frames) == frames)
        except soundfile.LibsndfileError:  # the end of a file that was cut off
            return False
    while frames > 0 and (passed := len(_read(file, min(frames, _BLOCK)))):
        frames -= passed
    return frames <= 0


def _promised(file: soundfile.SoundFile, path: Path, length: float) -> float:
    """The seconds that the file's own headers promise, where they do so in earnest."""
    with path.open("rb") as content:
        head = content.read(2**14)
        content.seek(max(path.stat().st_size - 2**17, 0))
        tail = content.read()
    if file.format == "NIST" and (count := re.search(rb"sample_count -i (\d+)", head)):
        return int(count[1]) / float(file.samplerate)
    if file.format == "OGG" and _lacks_end(tail):
        raise _UnusableError(f"cut off: {length:.2f} s, then an unfinished page")
    if (
        file.format == "MP3"
    ):  # its length is a guess from the first frame, or what Xing's frame says
        known = file.frames / file.samplerate if re.search(rb"\0{9}(?:Xing|Info)", head) else 0.0
        there = _seconds_of_mp3(path.read_bytes())
        if length < 0.9 * there - 0.3:  # an encoder adds up to four frames
            raise _UnusableError(
                f"cut off: {length:.2f} s of {there:.2f} s, for its header is of a part; "
                "ffmpeg -i OLD.mp3 -c copy NEW.mp3 mends it"
            )
        return known
    for found in _SHORT_CHUNK.finditer(file.extra_info):
        promised, actual = found["promised"] or found[1], found["actual"] or found[2]
        if int(actual) < int(promised) < _UNKNOWN_SIZE:
            return length * int(promised) / max(int(actual), 1)
    return 0.0 if file.frames >= _UNKNOWN_LENGTH else file.frames / file.samplerate


def _seconds_of_mp3(content: bytes) -> float:
    """Counted frame by frame (ISO 11172-3 and 13818-3, layer III): libsndfile stops where the guess
    ends, in a joined file after the first part."""
    at, seconds = 0, 0.0
    if content.startswith(b"ID3"):  # a tag, perhaps with a picture of any bytes
        at = 10 + sum((byte & 127) << 7 * n for n, byte in enumerate(reversed(content[6:10])))
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 3:
        second, third = content[at + 1], content[at + 2]
        version, rate, kbps = second >> 3 & 3, third >> 2 & 3, third >> 4
        if second < 0xE0 or second & 6 != 2 or version == 1 or rate == 3 or not 0 < kbps < 15:
            at += 1
            continue
        hertz = (44_100, 48_000, 32_000)[rate] >> (3 - version if version else 2)
        samples = 1152 if version == 3 else 576
        size = samples * _KBPS[version == 3][kbps] * 125 // hertz + (third >> 1 & 1)
        at += size
        seconds += samples / hertz if at <= len(content) else 0.0
    return seconds


def _lacks_end(tail: bytes) -> bool:
    """Whether the last Ogg page (RFC 3533: 27 bytes, a table of lengths, its body) is cut off."""
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 + len(table) + sum(table)


def _from_sphere(path: Path) -> bytes:
    """WAV of a shorten-compressed SPHERE file (WSJ's), which libsndfile does not read."""
    source = str(path.absolute())  # no name is taken for an option
    for command in (
        ["sph2pipe", "-f", "wav", source],
        ["ffmpeg", "-v", "error", "-i", source, "-f", "wav", "-"],
    ):
        if not shutil.which(command[0]):
            continue
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=300)
        except subprocess.TimeoutExpired as error:
            raise _UnusableError(f"corrupt: {command[0]} has not ended after 300 s") from error
        if done.returncode == 0 and done.stdout.startswith(b"RIFF"):
            return done.stdout
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise _UnusableError(f"corrupt: {command[0]} says {said}")
    raise _UnusableError("compressed sphere: install sph2pipe or ffmpeg, which read it")
