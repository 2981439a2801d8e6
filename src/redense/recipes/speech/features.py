"""Log power spectrograms: 20 ms Hann windows every 10 ms, 161 bins at 16 kHz. NumPy only, for
worker processes."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

try:
    import soundfile
    import soxr
except ImportError as error:
    raise ImportError(
        "speech needs soundfile and soxr; run 'pip install redense[recipes]'"
    ) from error

RATE = 16_000
WINDOW, HOP = 320, 160  # samples: 20 ms and 10 ms
BINS = WINDOW // 2 + 1
FLOOR = 1e-6
"""Added to the power: 60 dB below a sine of amplitude 0.01, about the noise of 16-bit
recordings."""

_HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
_SPHERE = {".sph", ".wv1", ".wv2"}


class BadAudioError(ValueError):
    """A recording that cannot be used; the message says why."""


@dataclass(frozen=True)
class Extracted:
    """Features of one recording, a (T, 161) float16 array for each speed, with its content's sha256
    and its length."""

    frames: tuple[NDArray[np.float16], ...]
    sha256: str
    seconds: float


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(power + 1e-6) of (samples,) at 16 kHz in [-1, 1]: (T, 161), T = 1 + (samples - 320) //
    160.

    >>> spectrogram(np.zeros(16_000, np.float32)).shape
    (99, 161)
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * _HANN
    spectrum = np.fft.rfft(windows, axis=1)
    return np.log(spectrum.real**2 + spectrum.imag**2 + np.float32(FLOOR)).astype(np.float32)


def read_audio(
    path: Path, *, longest: float = 3600.0, content: bytes | None = None
) -> tuple[NDArray[np.float32], int]:
    """Samples (N,) in [-1, 1], channels averaged, and their rate in Hz. wav, flac, ogg, mp3, NIST
    sphere and more.

    Raises:
        BadAudioError: missing, empty, corrupt, cut off or longer than ``longest`` seconds.
    """
    if content is None:
        content = _bytes_of(path)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            promised, rate, kind = file.frames, file.samplerate, file.format
            if promised / rate > longest:
                raise BadAudioError(f"too long: {promised / rate:.1f} s of {longest:g} s")
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.LibsndfileError as error:
        if path.suffix.lower() in _SPHERE and not content.startswith(b"RIFF"):
            return read_audio(path, longest=longest, content=_from_sphere(path))
        raise BadAudioError(f"corrupt: {error.error_string}") from error
    if len(samples) < promised and kind != "MP3":  # an MP3's promise is an estimate
        raise BadAudioError(f"cut off: {len(samples) / rate:.2f} s of {promised / rate:.2f} s")
    if not np.isfinite(samples).all():
        raise BadAudioError("corrupt: a sample is not a finite number")
    return samples, rate


def features(samples: NDArray[np.float32], rate: int, speed: float = 1.0) -> NDArray[np.float32]:
    """(T, 161) of samples at any rate, resampled to 16 kHz by soxr and played ``speed`` times as
    fast.

    Raises:
        BadAudioError: too short for one window.
    """
    if rate != RATE or speed != 1.0:
        samples = soxr.resample(samples, rate * speed, RATE)
    if len(samples) < WINDOW:
        raise BadAudioError(
            f"empty: {1000 * len(samples) / RATE:.0f} ms, shorter than one window of 20 ms"
        )
    return spectrogram(samples)


def extract(
    path: Path, speeds: tuple[float, ...], longest: float, duration: float | None
) -> Extracted | str:
    """Features of a file at every speed, or why it cannot be used: what a worker process does.

    Args:
        duration: what the data set promises, in seconds; a tenth less is a file that was cut off.
    """
    try:
        content = _bytes_of(path)
        samples, rate = read_audio(path, longest=longest, content=content)
        seconds = len(samples) / rate
        if duration is not None and seconds < 0.9 * duration - 0.05:
            raise BadAudioError(f"cut off: {seconds:.2f} s of {duration:.2f} s")
        frames = tuple(features(samples, rate, speed).astype(np.float16) for speed in speeds)
    except BadAudioError as error:
        return str(error)
    return Extracted(frames, hashlib.sha256(content).hexdigest(), seconds)


def _bytes_of(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise BadAudioError("missing: no such file") from error
    except OSError as error:
        raise BadAudioError(f"unreadable: {error.strerror}") from error
    if not content:
        raise BadAudioError("empty: the file has no byte")
    return content


def _from_sphere(path: Path) -> bytes:
    """WAV bytes of a shorten-compressed sphere file (WSJ's), which libsndfile does not read."""
    for command in (
        ["sph2pipe", "-f", "wav", str(path)],
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "wav", "-"],
    ):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0 and done.stdout.startswith(b"RIFF"):
                return done.stdout
            raise BadAudioError(
                f"corrupt: {command[0]} says {done.stderr.decode(errors='replace').strip()[-200:]}"
            )
    raise BadAudioError("compressed sphere: install sph2pipe or ffmpeg, which read it")
