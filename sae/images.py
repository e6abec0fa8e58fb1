"""From files and odd pixel formats to upright RGB pictures. Knows Pillow and numpy only.

Everything that enters PatchLens as a picture passes through here: files through `open_image`, the
pictures of an index through `open_thumbnail`, pictures that are already open through `upright_rgb`.
Knows nothing of models or patches.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from sae.errors import ImageError

MAX_PIXELS = 64_000_000
"""Largest width x height that is decoded (a decoded picture takes up to 4 bytes a pixel)."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "PPM", "JPEG2000", "ICO")
"""Formats that are tried. Others (EPS, PDF, …) would start other programs or are no pictures."""
STRANGERS_FORMATS = FORMATS[:-2]
"""Formats that are tried where strangers send pictures: without JPEG 2000, of which a few kilobytes
take many seconds and gigabytes to decode, and without icons."""
MAX_THUMBNAIL_PIXELS = 1_000_000
"""Largest width x height of an index's thumbnail."""

MAX_UNREADABLE = 0.05
"""Share of images of a data set that may be unreadable where nobody says another one."""
ALWAYS_UNREADABLE = 10
"""As many may be, however few there are."""

_ORIENTATION = 0x0112
_OF_PHONES = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF"
)
"""The brands in a file's first twelve bytes of formats whose decoders not every installation has."""
_NAMES = {"HEIF": "HEIC"}
"""Formats that people call otherwise than Pillow does."""
_DECODE_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    KeyError,
)
_DECODE_ERRORS += (OverflowError, MemoryError, struct.error, zlib.error)


def open_image(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    enough: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
    formats: Sequence[str] = FORMATS,
) -> Image.Image:
    """Open a picture as upright RGB; of an animation, the first frame.

    `source` is a path, the bytes of a file, or an open binary file. Transparency is laid on white,
    16-bit grey is scaled to 8 bits, CMYK is converted and an EXIF rotation is carried out.
    Sizes are checked from the header, before any pixel is decoded. `enough`, if given, tells for a
    (width, height) which size will do: a JPEG is then decoded at 1/2, 1/4 or 1/8 where that is at
    least as large, which takes a fraction of the time. Only `formats` are tried.

    Raises ImageError (one sentence) for files that are missing, empty, no picture, cut off,
    damaged, larger than MAX_PIXELS, or of a format that this installation has no decoder for.
    """
    name = _name(source)
    stream = BytesIO(source) if isinstance(source, bytes) else source
    try:
        known = _known(formats)
        with Image.open(stream, formats=known) as image:
            _check_size(image, name)
            if enough is not None and image.format == "JPEG":
                image.draft(None, enough(image.size))
            image.load()
            return upright_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {name}.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{name} cannot be read as a file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, _megapixels_of(error))) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(_unidentified(name, _brand(stream), known)) from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} is cut off or damaged and could not be decoded.") from error


def too_many_unreadable(n_bad: int, n_read: int, share: float = MAX_UNREADABLE) -> bool:
    """Whether more of `n_read` images could not be opened than a data set may have."""
    return n_bad > max(ALWAYS_UNREADABLE, share * n_read)


def open_thumbnail(data: bytes) -> Image.Image:
    """A picture of a concept index as RGB: WebP of at most MAX_THUMBNAIL_PIXELS, nothing else.

    An index is downloaded, so its pictures are a stranger's: no other decoder is started for them.
    Raises ImageError (one sentence) for anything else.
    """
    try:
        with Image.open(BytesIO(data), formats=["WEBP"]) as image:
            if image.width * image.height > MAX_THUMBNAIL_PIXELS:
                raise ImageError(
                    f"A picture of the concept index has {image.width} x {image.height} pixels, and "
                    f"{MAX_THUMBNAIL_PIXELS:,} are the limit; build the index again."
                )
            return image.convert("RGB")
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *_DECODE_ERRORS) as error:
        raise ImageError(
            "A picture of the concept index is no WebP, or is damaged; build the index again."
        ) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB with its EXIF rotation carried out. RGB upright pictures pass unchanged.

    Works on any Pillow mode: 1, L, LA, P, PA, RGB with a transparent colour, RGBA, CMYK, YCbCr,
    16- and 32-bit grey, floats. The result of applying it twice is the result of applying it once.

    Raises ImageError if the picture is too large, damaged, or in a mode without RGB meaning.
    """
    _check_size(image, "The picture")
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "RGB" and "transparency" not in image.info:
            return image
        if image.mode.startswith(("I", "F")):
            return Image.fromarray(_grey_bytes(image)).convert("RGB")
        if image.has_transparency_data:
            return _on_white(image)
        return image.convert("RGB")
    except _DECODE_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"The picture (mode {image.mode}) is damaged or has no RGB form: {error}."
        ) from error


def _on_white(image: Image.Image) -> Image.Image:
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    canvas = Image.new("RGB", layer.size, (255, 255, 255))
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _grey_bytes(image: Image.Image) -> np.ndarray:
    """Deep grey as uint8: 16-bit keeps its high byte, floats within [0, 1] are stretched."""
    grey = np.asarray(image)
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey.astype(np.float32), posinf=255.0, neginf=0.0)
        scale = 255.0 if grey.size and grey.max() <= 1.0 else 1.0
        return np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    if grey.dtype.itemsize == 2:
        return (grey >> 8).astype(np.uint8)
    grey = np.clip(grey, 0, 65535)
    return (grey >> 8 if grey.size and grey.max() > 255 else grey).astype(np.uint8)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is empty ({width} x {height} pixels).")
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name, f"{width} x {height} = {width * height / 1e6:.0f}"))


def _too_large(name: str, amount: str) -> str:
    limit = MAX_PIXELS // 1_000_000
    return f"{name} has {amount} megapixels, and the limit is {limit}; make it smaller first."


def _megapixels_of(bomb: Exception) -> str:
    """How many, from Pillow's "Image size (… pixels) exceeds limit …"."""
    told = re.search(r"\((\d+) pixels\)", str(bomb))
    return f"{int(told[1]) / 1e6:.0f}" if told else f"more than {MAX_PIXELS // 1_000_000}"


def _name(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return Path(source).name or str(source)
    return "The picture"


def _brand(source: str | os.PathLike[str] | BinaryIO) -> str:
    """The format of a phone's picture by its first bytes, or "" for any other file."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            first = file.read(12)
    else:
        source.seek(0)
        first = source.read(12)
    return _OF_PHONES.get(first[8:12], "") if first[4:8] == b"ftyp" else ""


def _unidentified(name: str, brand: str, known: Sequence[str]) -> str:
    if brand in known:
        return f"{name} is cut off or damaged and could not be decoded."
    if brand:
        kind = _NAMES.get(brand, brand)
        return f"{name} is a {kind} picture, which cannot be opened here; save it as a JPEG first."
    return (
        f"{name} is not a picture that can be read; use JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP or "
        "TIFF."
    )


def _known(formats: Sequence[str]) -> list[str]:
    Image.init()
    if "HEIF" in formats and "HEIF" not in Image.OPEN:
        with suppress(ImportError):  # then such a picture is named and refused
            from pillow_heif import register_heif_opener

            register_heif_opener()
    return [name for name in formats if name in Image.OPEN]
