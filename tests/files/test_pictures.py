"""The door to pictures: what is seen is what a viewer shows; what cannot be read is named."""

import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image, PngImagePlugin
from trained_runs import FLAGS, write_captions

from redense import load
from redense.files.pictures import endings, middle, read_picture
from redense.recipes.captions.features import read_image
from redense.recipes.captions.options import CaptionOptions
from redense.recipes.captions.task import CaptionTask
from redense.recipes.images import readers
from redense.recipes.images.data import Batches
from redense.recipes.images.folders import Files, StreamedData
from redense.recipes.images.options import ImageOptions
from redense.recipes.images.streams import StreamedBatches
from redense.recipes.images.task import ImageTask
from redense.recipes.images.use import seen_by

SIDE = 32


def streamed(file):
    """What a network sees of a streamed picture, undone to (3, SIDE, SIDE) of 0 to 255."""
    files, none = Files(((str(file), 0),)), Files(())
    how = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    data = StreamedData("x", ("a", "b"), files, none, none, SIDE, SIDE, **how)
    ((images, _),) = StreamedBatches(data, files, 1, workers=0)
    return images[0].round()


def in_memory(file):
    return readers._decode([file], [0], SIDE, "folder").images[0].float()


def for_captions(file):
    return read_image(file, SIDE).float()


def opened(file):
    """As `for_captions`, of what its owner has opened."""
    with Image.open(file) as picture:
        before = picture.copy()
        seen = read_image(picture, SIDE).float()
        assert picture.tobytes() == before.tobytes()  # it stays as it was
    return seen


every_way = pytest.mark.parametrize("see", [in_memory, streamed, for_captions, opened])
from_a_file = pytest.mark.parametrize("see", [in_memory, streamed, for_captions])


@every_way
@pytest.mark.parametrize(
    ("kind", "most", "ending"),
    [
        (np.uint16, 65535, "png"),
        (np.uint16, 65535, "tif"),
        (np.int32, 65535, "tif"),
        (np.float32, 1, "tif"),
    ],
)
def test_deep_grey_keeps_its_ramp(tmp_path, kind, most, ending, see):
    ramp = np.linspace(0, most, SIDE * SIDE).reshape(SIDE, SIDE).astype(kind)
    Image.fromarray(ramp).save(tmp_path / f"a.{ending}")
    seen = see(tmp_path / f"a.{ending}")[0].flatten()
    assert (seen - torch.linspace(0, 255, SIDE * SIDE)).abs().max() <= 1


@pytest.mark.parametrize(("level", "said"), [(7.5, "7.5"), (-1, "-1"), (np.nan, "nan")])
def test_levels_without_a_range_are_refused_by_name(tmp_path, level, said):
    Image.fromarray(np.full((4, 4), level, np.float32)).save(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match=rf"depth\.tif .*levels are {said}.*scale them"):
        read_picture(tmp_path / "depth.tif")


@every_way
@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 0, 255)])
@pytest.mark.parametrize("kind", ["rgba.png", "la.png", "palette.png", "a.webp", "a.gif"])
def test_transparency_lies_on_white(tmp_path, hidden, kind, see):
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    pixels[..., :3] = hidden
    pixels[: SIDE // 2] = (0, 0, 0, 255)
    image = Image.fromarray(pixels)
    if kind == "la.png":
        image = image.convert("LA")
    if kind == "palette.png":
        image = image.quantize(8)
    image.save(tmp_path / kind, lossless=True, exact=True)
    seen = see(tmp_path / kind)
    assert (seen[:, : SIDE // 2] == 0).all()
    assert (seen[:, SIDE // 2 :] == 255).all()


@every_way
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("tag", "turns"), [(6, 1), (3, 2), (8, 3)])
def test_a_phones_photograph_stands_upright(tmp_path, kind, tag, turns, see):
    sky = np.zeros((SIDE, SIDE, 3), np.uint8)
    sky[: SIDE // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(np.rot90(sky, turns).copy()).save(tmp_path / f"a.{kind}", exif=exif)
    seen = see(tmp_path / f"a.{kind}")
    assert seen[:, : SIDE // 2 - 2].min() > 240
    assert seen[:, SIDE // 2 + 2 :].max() < 15


def test_as_torchvision_reads_them_pictures_lie_as_they_are_stored(tmp_path):
    stored = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png", upright=False), stored)
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.rot90(stored, 3))


@pytest.mark.parametrize("augment", ["none", "resize-crop"], ids=["in memory", "streamed"])
@pytest.mark.parametrize("upright", ["true", "false"])
def test_training_eval_classify_and_export_turn_pictures_alike(upright, augment, tmp_path, redense):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: as stored, left is what is seen above
    sky = np.zeros((8, 8, 3), np.uint8)
    sky[:, :4] = 255
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(sky).save(folder / f"{number}.png", exif=exif)
    data = ("--data", tmp_path / "data", "--augment", augment, *TINY, "--upright", upright)
    phases = ("--dense", "1", "--sparse", "0", "--redense", "0")
    answer = redense("train", "images", *data, *phases, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert redense("export", tmp_path / "run", tmp_path / "hub").code == 0
    trained = seen_after(tmp_path / "run", tmp_path / "data/val")
    assert len(trained) == 3
    for seen in trained:
        left, above = seen[:, :, :4].mean(), seen[:, :4].mean()
        assert (above > left) == (upright == "true")
    assert redense("eval", tmp_path / "hub", "--data", tmp_path / "data").code == 0


def seen_after(run, folder):
    """One picture as a run was trained on it, as eval sees it and as classify does from an
    export."""
    options = ImageOptions(**json.loads((run / "config.json").read_text())["options"])
    data = ImageTask(options, 0).data
    if isinstance(data, StreamedData):
        trained, _ = next(iter(StreamedBatches(data, data.valid, 1, workers=0)))
    else:
        trained, _ = next(iter(Batches(data, data.valid, 1)))
    config = json.loads((run / "network.json").read_text())
    files = Files(((str(folder / "a/0.png"), 0),))
    evaluated, _ = next(iter(StreamedBatches(seen_by(config), files, 1, workers=0)))
    classified = load(run.parent / "hub").preprocess(folder / "a/0.png")
    return trained[0], evaluated[0], classified[0]


@pytest.mark.parametrize(
    ("upright", "cnn"), [("true", "words"), ("false", "words"), ("false", "resnet18")]
)
def test_training_caption_eval_and_export_turn_captioned_pictures_alike(
    upright, cnn, tmp_path, redense, monkeypatch
):
    monkeypatch.setenv("REDENSE_DATA", str(tmp_path / "cache"))
    data = write_captions(tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    for file in (data / "images").iterdir():
        pixels = np.asarray(Image.open(file)).copy()
        pixels[:, 10:] = 255
        Image.fromarray(pixels).save(file, exif=exif)
    sample = data / "images" / "val0.png"
    Image.fromarray(np.asarray(Image.open(sample))).save(tmp_path / "stored.png")
    flags = (*FLAGS["captions"], "--cnn", cnn, "--cnn-weights", "random", "--cnn-size", 32)
    told = ("--data", data, "--upright", upright, "--out", tmp_path / "run")
    assert redense("train", "captions", *told, *flags).code == 0
    assert redense("export", tmp_path / "run", tmp_path / "hub").code == 0
    options = CaptionOptions(**json.loads((tmp_path / "run/config.json").read_text())["options"])
    trained = CaptionTask(options, 0).data.splits["valid"].features[0]
    asked, stored = load(tmp_path / "hub").preprocess([sample, tmp_path / "stored.png"])
    torch.testing.assert_close(asked, trained, rtol=0, atol=1e-5)
    assert torch.allclose(asked, stored, rtol=0, atol=1e-5) == (upright == "false")
    assert redense("eval", tmp_path / "hub", "--data", data).code == 0
    shown = {"true": True, "false": False}[upright]
    assert json.loads((tmp_path / "run/captions.json").read_text())["upright"] == shown


def test_damaged_exif_data_do_not_matter(tmp_path):
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "a.jpg").size == (8, 4)


def cut_header(file):
    body = b"IHDR" + struct.pack(">I", 16)
    checksum = struct.pack(">I", zlib.crc32(body))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 4) + body + checksum)


def long_text(file):
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "x" * 2_000_000, zip=True)
    Image.new("RGB", (16, 16)).save(file, "png", pnginfo=text)


def huge(file):
    """A header that promises 40,000 x 40,000 pixels."""
    header = b"IHDR" + struct.pack(">2I5B", 40_000, 40_000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum)


def program(file):
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


DAMAGED = {
    "cut header": cut_header,
    "long text": long_text,
    "odd size": lambda file: file.write_bytes(b"P6\n16 1\xff6\n255\n" + bytes(768)),
    "huge": huge,
    "PostScript": program,
    "empty": lambda file: file.write_bytes(b""),
}


@from_a_file
@pytest.mark.parametrize("damage", DAMAGED)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, damage, see):
    DAMAGED[damage](tmp_path / "number 7.png")
    with pytest.raises(ValueError, match=r"number 7\.png is not a whole image \(.*repair"):
        see(tmp_path / "number 7.png")


@pytest.mark.parametrize("mode", ["HSV", "CMYK", "RGBa", "LA", "P"])
def test_what_is_opened_may_be_of_any_mode(mode):
    red = Image.new("RGBA", (4, 4), "red")
    way = red if mode == "RGBa" else red.convert("LA" if mode == "LA" else "RGB")
    seen = read_picture(way.convert(mode))
    assert seen.convert("RGB").getpixel((0, 0))[0] > 50


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "locked.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "locked.png"))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied.*locked\.png"):
        read_picture(tmp_path / "locked.png")


def test_a_device_is_no_picture():
    with pytest.raises(FileNotFoundError, match="/dev/zero: no such file"):
        read_picture(Path("/dev/zero"))


@pytest.mark.parametrize(("size", "seen"), [((1000, 2), (32, 2)), ((3, 999), (3, 48))])
def test_of_a_strip_the_middle_is_taken(size, seen):
    strip = Image.new("L", size)
    strip.paste(255, (size[0] // 2, size[1] // 2, size[0] // 2 + 1, size[1] // 2 + 1))
    assert middle(strip).size == seen
    assert middle(strip).getbbox() is not None
    ordinary = Image.new("L", (32, 2))
    assert middle(ordinary) is ordinary


@pytest.mark.parametrize(("see", "owner"), [(in_memory, readers.T), (streamed, Image.Image)])
def test_a_strips_cost_is_bounded_by_what_is_shown(tmp_path, see, owner, monkeypatch):
    resize, resized = owner.resize, []

    def remember(*how, **more):
        resized.append(resize(*how, **more))
        return resized[-1]

    monkeypatch.setattr(owner, "resize", remember)
    Image.new("RGB", (10_000, 1), (9, 9, 9)).save(tmp_path / "strip.png")
    assert see(tmp_path / "strip.png").shape == (3, SIDE, SIDE)
    (pixels,) = resized
    assert SIDE * SIDE < np.asarray(pixels).size <= 3 * 16 * SIDE * SIDE


def test_usual_endings_are_pictures_and_documents_are_not():
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".jp2", ".tif"} <= endings()
    assert not {".eps", ".pdf", ".txt", ".h5", ""} & endings()
