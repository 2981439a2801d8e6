"""Log power spectrograms: 20 ms Hann windows every 10 ms, 161 bins at 16 kHz. NumPy only, for
worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redense.files.sound import BadAudioError, read_sound

try:
    import soxr
except ImportError as error:
    raise ImportError("speech needs soxr; run 'pip install redense[speech]'") from error

RATE = 16_000
WINDOW, HOP = 320, 160  # samples: 20 ms and 10 ms
BINS = WINDOW // 2 + 1
FLOOR = 1e-6
"""Added to the power: 60 dB below a sine of amplitude 0.01, about the noise of 16-bit
recordings."""

_HANN = np.hanning(WINDOW + 1)[:-1].astype(np.float32)


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


def features(samples: NDArray[np.float32], rate: int, speed: float = 1.0) -> NDArray[np.float32]:
    """(T, 161) of samples at any rate, resampled to 16 kHz by soxr and played ``speed`` times as
    fast."""
    if rate != RATE or speed != 1.0:
        samples = soxr.resample(samples, rate * speed, RATE)
    return spectrogram(samples)


def extract(
    path: Path,
    speeds: tuple[float, ...],
    longest: float,
    seconds: float | None,
    start: float | None = None,
) -> Extracted | str:
    """Features of a file or a part of it at every speed, or why it cannot be used: what a worker
    process does. ``start`` and ``seconds`` are `read_sound`'s."""
    try:
        sound = read_sound(path, start=start, seconds=seconds, longest=longest)
    except BadAudioError as error:
        return error.reason
    frames = (features(sound.samples, sound.rate, speed) for speed in speeds)
    return Extracted(tuple(one.astype(np.float16) for one in frames), sound.sha256, sound.seconds)
