"""Features: against plain NumPy, resampling, parts and speeds."""

import numpy as np
import pytest
import soundfile
import torch

from redense.recipes.speech import features
from redense.recipes.speech.batches import mask_spectrum, normalizer
from redense.recipes.speech.features import spectrogram


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


def test_extracting_takes_a_part_at_every_speed_or_says_what_is_wrong(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(1000, seconds=3.0), 16_000)
    one = features.extract(tmp_path / "a.flac", (1.0, 1.1), 2.0, 1.0, 1.5)
    assert [len(frames) for frames in one.frames] == [99, 89]
    assert one.frames[0].dtype == np.float16
    said = features.extract(tmp_path / "a.flac", (1.0,), 2.0, None)
    assert said == "too long: 3.0 s of 2 s"


def test_the_shortest_sound_is_a_window_at_the_fastest_speed(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1000, seconds=0.025), 16_000)
    one = features.extract(tmp_path / "a.wav", (1.0, 0.9, 1.1), 2.0, None)
    assert [len(frames) for frames in one.frames] == [1, 1, 1]


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
