"""Features: against plain NumPy, every container, resampling, what is wrong with a file."""

import os
import stat

import numpy as np
import pytest
import soundfile
import torch

from redense.recipes.speech import features
from redense.recipes.speech.batches import mask_spectrum, normalizer
from redense.recipes.speech.features import BadAudioError, extract, read_audio, spectrogram


def tone(hertz: float, rate: int = 16_000, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(
        np.float32
    )


def plain_spectrogram(samples: np.ndarray) -> np.ndarray:
    """The definition: window after window, bin after bin, by the discrete Fourier sum in double
    precision."""
    n = np.arange(320)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 320)
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(161), n) / 320)
    rows = []
    for start in range(0, len(samples) - 319, 160):
        windowed = samples[start : start + 320].astype(np.float64) * hann
        rows.append(np.log(np.abs(fourier @ windowed) ** 2 + 1e-6))
    return np.array(rows)


def test_the_spectrogram_equals_a_plain_numpy_computation():
    samples = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    found = spectrogram(samples)
    assert found.dtype == np.float32
    assert found.shape == (1 + (5000 - 320) // 160, 161)
    np.testing.assert_allclose(found, plain_spectrogram(samples), atol=1e-4)


def test_a_tone_stands_in_its_bin_and_silence_at_the_floor():
    assert (spectrogram(tone(1000)).argmax(1) == 1000 // 50).all()  # bins are 50 Hz apart
    np.testing.assert_allclose(spectrogram(np.zeros(800, np.float32)), np.log(1e-6), rtol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_to_16_khz(rate: int):
    found, wanted = features.features(tone(1000, rate), rate), features.features(tone(1000), 16_000)
    assert abs(len(found) - len(wanted)) <= 1
    assert (found[5:-5].argmax(1) == 20).all()
    np.testing.assert_allclose(found[5:90, 18:23], wanted[5:90, 18:23], atol=0.1)


def test_speed_perturbation_shortens_and_raises_the_pitch():
    slow, normal, fast = (features.features(tone(1000), 16_000, speed) for speed in (0.9, 1.0, 1.1))
    assert [round(len(found) / len(normal), 1) for found in (slow, fast)] == [1.1, 0.9]
    assert [int(np.median(found.argmax(1))) for found in (slow, normal, fast)] == [18, 20, 22]


@pytest.mark.parametrize(
    ("ending", "settings"),
    [
        ("wav", {}),
        ("flac", {}),
        ("ogg", {}),
        ("mp3", {}),
        ("sph", {"format": "NIST", "subtype": "PCM_16"}),
    ],
)
def test_every_container_is_read_and_channels_are_averaged(tmp_path, ending, settings):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.stack([tone(1000), 0 * tone(1000)], 1), 16_000, **settings)
    samples, rate = read_audio(path)
    assert rate == 16_000
    assert abs(len(samples) - 16_000) < 2400  # an MP3 is padded
    assert abs(np.abs(samples[2000:14000]).max() - 0.15) < 0.01


def write(path, content: bytes):
    path.write_bytes(content)
    return path


def flac(path, seconds: float = 1.0):
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)), 16_000)
    return path


BAD = {
    "missing: no such file": lambda folder: folder / "nowhere.wav",
    "empty: the file has no byte": lambda folder: write(folder / "a.wav", b""),
    "empty: 10 ms, shorter than one window": lambda folder: flac(folder / "a.flac", 0.01),
    "corrupt: ": lambda folder: write(folder / "a.wav", b"this is no sound" * 100),
    "too long: 4.0 s of 3 s": lambda folder: flac(folder / "a.flac", 4),
    "cut off: ": lambda folder: write(
        folder / "a.wav", flac(folder / "b.wav", 2).read_bytes()[:20_000]
    ),
    "unreadable: Is a directory": lambda folder: folder,
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_recording_says_what_is_wrong(tmp_path, reason: str):
    found = extract(BAD[reason](tmp_path), (1.0,), 3.0, 2.0 if reason.startswith("cut") else None)
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_a_recording_that_is_no_number_is_corrupt(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(4000, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(BadAudioError, match="a sample is not a finite number"):
        read_audio(tmp_path / "a.wav")


def test_compressed_sphere_goes_through_sph2pipe_and_its_lack_is_named(tmp_path, monkeypatch):
    path = write(
        tmp_path / "a.wv1",
        b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n",
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadAudioError, match="install sph2pipe or ffmpeg"):
        read_audio(path)
    soundfile.write(tmp_path / "known.wav", tone(1000), 16_000)
    tool = write(
        tmp_path / "sph2pipe", f'#!/bin/sh\nexec /bin/cat "{tmp_path}/known.wav"\n'.encode()
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    samples, rate = read_audio(path)
    assert (len(samples), rate) == (16_000, 16_000)
    assert os.environ["PATH"] == str(tmp_path)


def test_normalising_an_utterance_takes_its_bins_means_and_one_deviation():
    frames = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3 + torch.arange(7.0)
    found = normalizer("utterance", torch.zeros(7), torch.ones(7))(frames)
    torch.testing.assert_close(found.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    assert abs(float(found.std(correction=0)) - 1) < 0.01
    corpus = normalizer("corpus", torch.arange(7.0), torch.full((7,), 3.0))
    torch.testing.assert_close(corpus(frames), (frames - torch.arange(7.0)) / 3)
    with pytest.raises(ValueError, match="utterance or corpus, got 'speaker'"):
        normalizer("speaker", torch.zeros(7), torch.ones(7))


def test_specaugment_zeroes_bands_and_times_and_little_else():
    frames = torch.ones(100, 60)
    found = [mask_spectrum(frames, np.random.default_rng(seed)) for seed in range(50)]
    assert frames.all()
    assert all(set(one.unique().tolist()) <= {0.0, 1.0} for one in found)
    assert all(
        (one[one.any(1)] == one[one.any(1)][:1]).all() for one in found
    )  # whole rows and whole columns
    assert min(float(one.mean()) for one in found) > (1 - 2 / 6) * (1 - 2 / 10)
    assert sum(float(one.mean()) < 1 for one in found) > 40
