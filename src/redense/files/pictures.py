"""The door to pictures: every recipe sees the same pixels, and every error names the file."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Source = str | Path | IO[bytes] | Image.Image
"""A file, or an open one, or what Pillow has opened."""

_KINDS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "JXL", "JPEG2000", "MPO"),
    *("TIFF", "BMP", "DIB", "GIF", "PPM", "QOI", "TGA"),
)
"""What is opened. Not all that Pillow would: of PostScript it runs the program."""


def read_picture(
    source: Source,
    mode: str = "RGB",
    *,
    name: str | None = None,
    upright: bool = True,
) -> Image.Image:
    """A picture as its viewer sees it: upright, on white where transparent, 8 bits a channel.

    ``read_picture(Path("scan.png"))`` of 16-bit grey levels 0, 32768 and 65535 gives 0, 128 and
    255 in each of RGB.

    Args:
        mode: ``RGB``, or ``L`` for grey.
        name: what errors call it; default ``source``.
        upright: turned as its EXIF data say the camera was held; False leaves it as it is stored,
            as torchvision does.

    Raises:
        FileNotFoundError: no such file.
        PermissionError: the system does not let it be read.
        ValueError: a damaged picture, one too large, or levels without a known range.
    """
    called = name or ("the picture" if isinstance(source, Image.Image) else source)
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise FileNotFoundError(f"{source}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            image = _opened(source)
            seen = _eight_bits(_upright(image) if upright else image)
            return seen if seen.mode == mode else seen.convert(mode)
    except Exception as error:  # decoders raise whatever they stumble over
        if isinstance(error, PermissionError):
            raise  # the file may be whole
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"none of {', '.join(_openable())}" if unknown else error
        raise ValueError(
            f"{called} is not a whole image ({reason}); repair or remove it"
        ) from error


def middle(picture: Image.Image, most: int = 16) -> Image.Image:
    """The middle of a strip: 10,000 x 100 pixels become 1,600 x 100.

    A picture no longer than ``most`` times its shorter side stays as it is. Resized by the shorter
    side, a longer one would take gigabytes of which a crop shows nothing.
    """
    width, height = picture.size
    longest = most * min(width, height)
    left, top = max(width - longest, 0) // 2, max(height - longest, 0) // 2
    if not left and not top:
        return picture
    return picture.crop((left, top, left + min(width, longest), top + min(height, longest)))


@cache
def endings() -> frozenset[str]:
    """Of file names, in small letters: ``.jpg``, ``.png`` and what else `read_picture` opens."""
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in _KINDS)


@cache
def _openable() -> list[str]:
    Image.init()
    return [kind for kind in _KINDS if kind in Image.OPEN]


def _opened(source: Source) -> Image.Image:
    """All its pixels; of one that others have opened a copy, as it will be turned."""
    if isinstance(source, Image.Image):
        return source.copy()
    with Image.open(source, formats=_openable()) as image:
        image.load()
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF data, which no viewer minds either
        return image
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(np.asarray(image), 1 if image.mode == "F" else 65535)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _scaled(levels: np.ndarray[Any, Any], most: int) -> Image.Image:
    lowest, highest = levels.min(), levels.max()
    if not (lowest >= 0 and highest <= most):
        raise ValueError(f"its levels are {lowest} to {highest}, not 0 to {most}; scale them")
    return Image.fromarray((levels * np.float32(255 / most)).round().astype(np.uint8))
