"""The door to sound: every container, what is wrong with a file by name, size and time bounded."""

import io
import os
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from redense.files.sound import BadAudioError, read_sound

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)

CONTAINERS = {
    "WAV": [
        "PCM_16",
        "PCM_24",
        "PCM_32",
        "PCM_U8",
        "FLOAT",
        "DOUBLE",
        "ULAW",
        "ALAW",
        "GSM610",
        "IMA_ADPCM",
        "MS_ADPCM",
    ],
    "WAVEX": ("PCM_16",),
    "RF64": ("PCM_16",),
    "W64": ("PCM_16",),
    "AIFF": ("PCM_16", "GSM610"),
    "AU": ("PCM_16", "G721_32"),
    "CAF": ("PCM_16", "ALAC_16"),
    "FLAC": ("PCM_16",),
    "NIST": ("PCM_16",),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}
EVERY = [(container, kind) for container, kinds in CONTAINERS.items() for kind in kinds]


def tone(seconds: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 1000 * np.arange(int(RATE * seconds)) / RATE)


def write(path: Path, samples=NOISE, container: str = "WAV", kind: str = "PCM_16", **more) -> Path:
    soundfile.write(path, samples, RATE, format=container, subtype=kind, **more)
    return path


def changed(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def reason(path: Path, **more) -> str:
    with pytest.raises(BadAudioError) as caught:
        read_sound(path, **more)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


@pytest.mark.parametrize(("container", "kind"), EVERY)
def test_every_container_is_read_and_its_channels_are_averaged(tmp_path, container, kind):
    channels = 1 if "GSM" in kind or "G721" in kind else 2
    samples = np.stack([tone(), *[0 * tone()] * (channels - 1)], 1)
    sound = read_sound(write(tmp_path / "a.x", samples, container, kind))
    assert sound.rate == RATE
    assert abs(len(sound.samples) - RATE) < 2400  # an MP3 and blocks of ADPCM are padded
    assert abs(np.abs(sound.samples[2000:14000]).max() - 0.3 / channels) < 0.03


CUT = [one for one in EVERY if one[0] != "MP3"]


@pytest.mark.parametrize(("container", "kind"), CUT)
@pytest.mark.parametrize("share", [0.37, 0.8])
def test_a_file_that_was_cut_off_is_said_to_be(tmp_path, container, kind, share):
    content = write(tmp_path / "whole", NOISE, container, kind).read_bytes()
    said = reason(changed(tmp_path / "cut", content[: int(share * len(content))]))
    assert said.startswith(("cut off: ", "corrupt: "))
    if container in ("WAV", "NIST", "AU", "AIFF"):
        seconds, promised = (float(one.split()[0]) for one in said.split(": ")[1].split(" s of "))
        assert seconds == pytest.approx(2 * share, abs=0.1)
        assert promised == pytest.approx(2, abs=0.11)


def test_an_mp3_that_was_cut_off_is_said_to_be_where_its_header_knows(tmp_path):
    content = write(tmp_path / "a.mp3", NOISE, "MP3", "MPEG_LAYER_III").read_bytes()
    said = reason(changed(tmp_path / "b.mp3", content[: len(content) // 2]))
    assert said.startswith("cut off: ")
    assert said.endswith(" s of 2.00 s")


def test_a_header_that_counts_itself_is_no_cut(tmp_path):
    content = bytearray(write(tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", len(content))
    assert read_sound(changed(tmp_path / "a.wav", content)).seconds == 2


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF024])
def test_a_wav_out_of_a_pipe_is_whole(tmp_path, size):
    content = bytearray(write(tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = struct.pack("<I", size)
    assert read_sound(changed(tmp_path / "a.wav", content)).seconds == 2


def test_a_flac_out_of_a_pipe_is_whole(tmp_path):
    content = bytearray(write(tmp_path / "a.flac", NOISE, "FLAC").read_bytes())
    content[21] &= 0xF0  # 36 bits of STREAMINFO: how many samples there are
    content[22:26] = bytes(4)
    path = changed(tmp_path / "b.flac", content)
    assert np.array_equal(read_sound(path).samples, read_sound(tmp_path / "a.flac").samples)
    assert reason(path, longest=1.5) == "too long: more than 1.5 s"


def test_an_mp3s_length_is_measured_and_not_guessed_from_its_first_frame(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.2, 5 * RATE)
    samples[:RATE] = 0.0
    settings = {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    path = write(tmp_path / "a.mp3", samples, "MP3", "MPEG_LAYER_III", **settings)
    content = path.read_bytes()
    assert b"Xing" in content[:300]
    path.write_bytes(content[content.index(b"\xff\xf3", content.index(b"Xing") + 100) :])
    assert soundfile.info(path).duration > 20
    assert 4.5 < read_sound(path, longest=20.0).seconds < 5.5


def test_an_mp3_whose_header_is_of_a_part_is_not_read_as_that_part(tmp_path):
    loud_first = np.random.default_rng(0).normal(0, 0.2, 5 * RATE)
    loud_first[RATE:] = 0.0
    settings = {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    path = write(tmp_path / "a.mp3", loud_first, "MP3", "MPEG_LAYER_III", **settings)
    whole = path.read_bytes()
    assert read_sound(path).seconds == 5
    path.write_bytes(whole[whole.index(b"\xff\xf3", whole.index(b"Xing") + 100) :])
    assert soundfile.info(path).duration < 2
    assert reason(path).startswith("cut off: 1.35 s of 5.")
    path.write_bytes(whole + whole)  # libsndfile ends after the first
    assert reason(path).startswith("cut off: 5.00 s of 10.")


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3s_of_every_rate_are_whole(tmp_path, rate, mode):
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.stack([NOISE, NOISE], 1), rate, format="MP3", bitrate_mode=mode)
    assert read_sound(path).seconds == pytest.approx(len(NOISE) / rate, abs=0.01)


def test_an_mp3s_tag_with_a_picture_is_no_sound(tmp_path):
    path = write(tmp_path / "a.mp3", tone(), "MP3", "MPEG_LAYER_III")
    picture = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    tag = b"ID3\x04\0\0" + bytes([0, 64, 0, 0]) + picture  # 7 bits a byte: 2 ** 20
    assert read_sound(changed(path, tag + path.read_bytes())).seconds == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e25, 1e300])
def test_a_sample_that_is_no_sound_is_corrupt(tmp_path, number):
    samples = NOISE.astype(np.float64)
    samples[500] = number
    said = reason(write(tmp_path / "a.wav", samples, "WAV", "DOUBLE"))
    assert said.startswith("corrupt: a sample is ")


def test_sixteen_bit_numbers_written_as_floats_are_sound(tmp_path):
    path = write(tmp_path / "a.wav", 32_768 * tone(), "WAV", "FLOAT")
    assert np.isclose(read_sound(path).samples.max(), 0.3 * 32_768)


@pytest.mark.parametrize(("container", "kind"), [("WAV", "PCM_16"), ("WAV", "GSM610"), *EVERY[-6:]])
def test_a_part_is_what_lies_there_in_the_whole(tmp_path, container, kind):
    path = write(tmp_path / "talk.x", np.tile(NOISE, 2), container, kind)
    whole, part = read_sound(path), read_sound(path, start=1.5, seconds=0.75)
    assert part.seconds == 0.75
    wanted = whole.samples[24_000:36_000]
    if kind in ("PCM_16", "GSM610", "ALAC_16"):
        assert np.array_equal(part.samples, wanted)
    assert np.corrcoef(part.samples, wanted)[0, 1] > 0.99
    assert read_sound(path, start=3.0).seconds == pytest.approx(whole.seconds - 3)
    assert part.sha256 != read_sound(path, start=1.0, seconds=0.75).sha256


def test_a_part_beyond_the_end_is_cut_off(tmp_path):
    path = write(tmp_path / "a.wav")
    assert reason(path, start=1.5, seconds=1.0) == "cut off: 0.50 s of 1.00 s"
    assert reason(path, start=9.0, seconds=1.0) == "cut off: 0.00 s of 1.00 s"
    assert reason(path, start=0.0, seconds=3.0, longest=2.0) == "too long: 3.0 s of 2 s"


def test_a_part_is_short_though_its_recording_is_long(tmp_path):
    assert read_sound(write(tmp_path / "a.wav"), start=0.5, seconds=0.5, longest=1.0).seconds == 0.5


def test_a_promise_that_is_not_kept_is_a_cut(tmp_path):
    assert reason(write(tmp_path / "a.wav"), seconds=3.0) == "cut off: 2.00 s of 3.00 s"
    assert read_sound(tmp_path / "a.wav", seconds=0.1).seconds == 2


BAD = {
    "missing: no such file": lambda folder: folder / "nowhere.wav",
    "missing: embedded null byte": lambda folder: folder / "a\0b.wav",
    "empty: the file has no byte": lambda folder: changed(folder / "a.wav", b""),
    "empty: 10 ms, shorter": lambda folder: write(folder / "a.flac", tone(0.01), "FLAC"),
    "corrupt: ": lambda folder: changed(folder / "a.wav", b"RIFF this is no sound" * 100),
    "corrupt: Format not recognised.; ffmpeg converts m4a": (
        lambda folder: changed(folder / "a.m4a", b"\0\0\0\x20ftypM4A " * 100)
    ),
    "too long: 4.0 s of 3 s": lambda folder: write(folder / "a.flac", tone(4), "FLAC"),
    "unreadable: a folder": lambda folder: folder,
    "unreadable: Too many levels": lambda folder: linked(folder / "a.wav"),
    "unreadable: File name too long": lambda folder: folder / ("a" * 300),
}


def linked(path: Path) -> Path:
    path.symlink_to(path)
    return path


@pytest.mark.parametrize("said", BAD)
def test_a_bad_recording_says_what_is_wrong(tmp_path, said):
    assert reason(BAD[said](tmp_path), longest=3.0).startswith(said)


@pytest.mark.parametrize("rate", [0, 1, 4_000_000_000])
def test_a_rate_that_no_sound_has_is_corrupt(tmp_path, rate):
    content = bytearray(write(tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", rate)
    assert reason(changed(tmp_path / "a.wav", content)).startswith("corrupt: ")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin", "a pipe"])
def test_what_never_ends_is_not_read(tmp_path, device):
    path = Path(device)
    if device == "a pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    assert reason(path).startswith("unreadable: ")


def test_a_files_size_is_bounded_before_it_is_read(tmp_path):
    path = write(tmp_path / "a.wav")
    os.truncate(path, 2**36)  # sparse: no disk is used
    started = time.monotonic()
    assert reason(path, longest=20.0).startswith("too long: 68719476736 bytes of ")
    assert time.monotonic() - started < 5


def test_a_name_that_is_not_utf8_is_a_name(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.wav"))
    path.write_bytes(write(tmp_path / "a.wav").read_bytes())
    assert read_sound(path).seconds == 2


SHORTEN = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"


def test_compressed_sphere_goes_through_sph2pipe_and_its_lack_is_named(tmp_path, monkeypatch):
    path = changed(tmp_path / "-a.wv1", SHORTEN)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install sph2pipe or ffmpeg" in reason(path)
    write(tmp_path / "known.wav", tone())
    script = f'#!/bin/sh\n[ "$3" = "{path}" ] && exec /bin/cat "{tmp_path}/known.wav"\n'
    tool = changed(tmp_path / "sph2pipe", script.encode())
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.chdir(tmp_path)
    assert read_sound(Path(path.name)).seconds == 1
    tool.write_text("#!/bin/sh\necho no licence >&2; exit 1\n")
    assert reason(path) == "corrupt: sph2pipe says no licence"


def test_what_was_read_is_named_by_its_content(tmp_path):
    one, two = write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    assert read_sound(one).sha256 == read_sound(two).sha256
    louder = io.BytesIO()
    soundfile.write(louder, 2 * NOISE, RATE, format="WAV")
    assert read_sound(changed(two, louder.getvalue())).sha256 != read_sound(one).sha256


def test_any_damage_is_a_reason_or_leaves_sound(tmp_path):
    draw = np.random.default_rng(0)
    whole = [write(tmp_path / "whole", tone(), *one).read_bytes() for one in EVERY]
    for number in range(400):
        content = bytearray(whole[number % len(whole)])
        for _ in range(draw.integers(1, 6)):
            at = int(draw.integers(min(len(content), draw.choice((64, 256, len(content))))))
            content[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", draw.bytes(1)))
        path = changed(tmp_path / f"{number}.x", content)
        with suppress(BadAudioError):  # any other error is a fault
            sound = read_sound(path, longest=20.0)
            assert np.isfinite(sound.samples).all()
            assert 0.025 <= sound.seconds <= 20
