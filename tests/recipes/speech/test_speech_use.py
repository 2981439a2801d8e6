"""A network that was trained on other features than ours is asked with those."""

from pathlib import Path

import pytest
import torch

from redense.recipes.speech.features import BINS
from redense.recipes.speech.models import network
from redense.recipes.speech.use import Transcriber, example

SIZES = {"width": 8, "layers": 1, "filters": 2, "stride": 2, "cell": "gru"}


def trained_on(bins):
    torch.manual_seed(0)
    config = {
        "architecture": "small",
        "alphabet": " abc",
        "bins": bins,
        "sizes": SIZES,
        "normalize": "utterance",
    }
    return Transcriber(network(config).eval(), config, Path("digits"))


def test_frames_are_normalised_and_padded_as_spectrograms_are():
    transcriber = trained_on(13)
    frames = [torch.randn(40, 13) * 5 + 3, torch.randn(25, 13)]
    batch = transcriber.preprocess(frames)
    assert batch.data.shape == (2, 40, 13)
    assert batch.lengths.tolist() == [40, 25]
    assert batch.data[0].mean(0).abs().max() < 1e-4
    alone = transcriber.predict(frames)
    assert alone == transcriber.predict(frames[0]) + transcriber.predict(frames[1])


def test_what_does_not_fit_the_network_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"frames are \(T, 13\) here, got \(40, 161\)"):
        trained_on(13).predict(torch.zeros(40, BINS))
    with pytest.raises(ValueError, match=r"digits was trained on 13 numbers a frame, not on audio"):
        trained_on(13).predict(torch.zeros(16_000).numpy())


@pytest.mark.parametrize("bins", [13, BINS])
def test_the_cards_program_asks_with_what_the_network_knows(bins, monkeypatch, capsys):
    monkeypatch.setattr("redense.load", lambda folder: trained_on(bins))
    exec(example({"bins": bins}, "digits"), {})
    assert capsys.readouterr().out.startswith("['")
