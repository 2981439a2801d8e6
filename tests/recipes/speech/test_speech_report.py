"""What the report page says of a speech run: error rates, and the worst utterances to listen to."""

import html
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from study_folder import make_record, write_run

from redense import dsd
from redense.recipes.report import sections
from redense.recipes.speech import report as speech
from redense.report.markup import section_html
from redense.report.page import report

HOSTILE = "<img src=x onerror=alert(1)>"


def rates(value):
    return {"wer": value, "cer": value / 2}


def row(audio, text="un zèbre", said="un", speaker="anna", cer=60.0):
    return {
        "audio": str(audio),
        "speaker": speaker,
        "text": text,
        "said": said,
        "cer": cer,
        "wer": 50.0,
    }


def write(folder: Path, rows, bins=161, speakers=None):
    """A run's folder with these worst utterances in every phase; every speaker's WER falls from
    phase to phase."""
    record = make_record("dsd", 0, dsd(2, 1, 1, 0.5), metric="wer", higher=False)
    record |= {"recipe": "speech", "options": {"model": "small"}}
    for number, phase in enumerate(record["phases"]):
        phase["valid"] |= rates(30.0 - number)
    record["test"] |= rates(27.5)
    record["data"]["most_frequent"] = {"text": "un lapin", "valid": rates(90.0)}
    write_run(folder, record)
    worst = {
        name: {
            "worst": rows,
            "speakers": {
                who: rates(float(wer - number)) | {"utterances": 3}
                for who, wer in (speakers or {"anna": 40}).items()
            },
        }
        for number, name in enumerate(("dense", "sparse", "redense"))
    }
    (folder / "worst.json").write_text(json.dumps(worst))
    (folder / "network.json").write_text(json.dumps({"bins": bins}))
    return folder


def tables(folder):
    """The titles and rows of each table, as texts."""
    blocks = [block for section in speech.sections(folder) for block in section.blocks]
    return [
        [list(table.titles), *([cell.text for cell in line] for line in table.rows)]
        for table in blocks
    ]


def worst(folder):
    return tables(folder)[2]


@pytest.fixture
def clip(tmp_path):
    """Two seconds of a tone at 440 Hz, stereo, 44.1 kHz."""
    file, tone = tmp_path / "tone.flac", 0.3 * np.sin(2 * np.pi * 440 * np.arange(88_200) / 44_100)
    soundfile.write(file, np.stack([tone, tone], axis=1), 44_100)
    return file


def heard(folder):
    """(samples, rate) of every recording of a run's sections."""
    *_, section = speech.sections(folder)
    sounds = [line[5].recording for line in section.blocks[0].rows if line[5].recording]
    return [soundfile.read(io.BytesIO(sound.content)) for sound in sounds]


def test_a_worst_utterance_can_be_heard(tmp_path, clip):
    ((samples, rate),) = heard(write(tmp_path / "run", [row(clip)]))
    assert (samples.ndim, rate) == (1, 16_000)
    assert 2 <= len(samples) / rate < 2.2
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(np.argmax(spectrum) * rate / len(samples) - 440) < 2


def test_the_report_of_a_speech_run_embeds_its_recordings(tmp_path, clip):
    page = report([write(tmp_path / "run", [row(clip)])], sections=sections).read_text()
    assert page.count('src="data:audio/mpeg;base64,') == page.count("<audio ") == 1


def test_reference_hypothesis_rates_and_speaker_stand_in_the_row(tmp_path, clip):
    folder = write(tmp_path / "run", [row(clip), row(clip, said="", speaker=None)])
    assert speech.sections(folder)[1].title == "The worst utterances after redense"
    assert [line[:5] for line in worst(folder)] == [
        ["said", "understood", "CER", "WER", "speaker"],
        ["un zèbre", "un", "60.00", "50.00", "anna"],
        ["un zèbre", "(nothing)", "60.00", "50.00", "unknown"],
    ]


def test_a_page_stays_small_with_many_and_long_recordings(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * 16_000)
    soundfile.write(tmp_path / "long.wav", noise, 16_000)
    folder = write(tmp_path / "run", [row(tmp_path / "long.wav")] * 20)
    assert len(heard(folder)) == 10
    assert all(10 <= len(samples) / rate < 10.2 for samples, rate in heard(folder))
    assert [line[5] for line in worst(folder)[1:]] == ["the first 10 of 60.0 s"] * 10
    assert len(section_html(speech.sections(folder)[1])) < 1_000_000


def test_a_recording_that_is_gone_or_broken_is_named(tmp_path):
    (tmp_path / "noise.flac").write_bytes(b"no sound")
    rows = [row(tmp_path / "gone.flac"), row(tmp_path / "noise.flac")]
    _, gone, broken = worst(write(tmp_path / "run", rows))
    assert gone[5] == "gone.flac: missing: no such file"
    assert broken[5].startswith("noise.flac: corrupt: ")


def test_a_set_of_features_says_that_it_has_no_audio(tmp_path):
    folder = write(tmp_path / "run", [row("spoken-digits/valid/3")], bins=13)
    assert worst(folder)[1][5] == "no audio: the data set has features only"


def test_error_rates_of_every_phase_stand_beside_those_of_a_constant_answer(tmp_path):
    assert tables(write(tmp_path / "run", []))[0] == [
        ["after", "epochs", "held", "WER", "CER"],
        ["dense", "2", "–", "30.00", "15.00"],
        ["sparse", "1", "50 %", "29.00", "14.50"],
        ["redense", "1", "–", "28.00", "14.00"],
        ["test, final weights", "", "", "27.50", "13.75"],
        ["always answering “un lapin”", "", "", "90.00", "45.00"],
    ]


def test_speakers_stand_worst_first_with_every_phase(tmp_path):
    assert tables(write(tmp_path / "run", [], speakers={"anna": 12, "ben": 40}))[1] == [
        ["speaker", "utterances", "WER dense", "WER sparse", "WER redense", "CER"],
        ["ben", "3", "40.00", "39.00", "38.00", "19.00"],
        ["anna", "3", "12.00", "11.00", "10.00", "5.00"],
    ]


def test_more_speakers_than_a_table_holds_are_counted(tmp_path):
    folder = write(tmp_path / "run", [], speakers={f"s{n}": n for n in range(3, 103)})
    assert len(tables(folder)[1]) == 1 + 60
    caption = speech.sections(folder)[0].blocks[1].caption
    assert "40 speakers with fewer utterances are left out" in caption


def test_texts_names_and_files_are_escaped(tmp_path):
    named = row(tmp_path / f"{HOSTILE}.wav", text=HOSTILE, said=HOSTILE, speaker=HOSTILE)
    for section in speech.sections(write(tmp_path / "run", [named], speakers={HOSTILE: 1})):
        text = section_html(section)
        assert "<img" not in text
        assert html.escape(HOSTILE) in text


def test_a_run_without_examples_has_no_section(tmp_path):
    folder = write(tmp_path / "run", [])
    (folder / "worst.json").unlink()
    assert speech.sections(folder) == []
    assert "<title>" in report([folder]).read_text()
