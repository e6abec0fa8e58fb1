"""Pictures small enough to travel inside JSON: data URIs, display copies, concept icons.

Knows: PIL images and byte formats. Does not know: models, latents, HTML.
"""

import base64
import io

from PIL import Image

from sae.images import open_thumbnail

DISPLAY_MIN, DISPLAY_MAX = 576, 1024
"""Long side, in pixels, of the copy shown on screen."""
ICON_SIZE = 64
"""Side of the square crop that stands for a concept in lists, in pixels."""


def data_uri(data: bytes, kind: str) -> str:
    """Bytes of an image as a `data:image/<kind>` URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def display_copy(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """A JPEG data URI of the picture for the screen, and its (width, height) in pixels.

    Large pictures are made smaller; small ones are enlarged smoothly so that the browser does not
    have to, which would blur them more.
    """
    long_side = max(image.size)
    factor = min(max(long_side, DISPLAY_MIN), DISPLAY_MAX) / long_side
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    shown = image.convert("RGB")
    if size != image.size:
        shown = shown.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return data_uri(encode(shown, "jpeg", quality=90), "jpeg"), size


def encode(image: Image.Image, kind: str, quality: int = 80) -> bytes:
    """The image as bytes of the given format (jpeg, webp or png)."""
    buffer = io.BytesIO()
    options = {"jpeg": {"quality": quality, "subsampling": 0}, "webp": {"quality": quality}}
    image.save(buffer, kind, **options.get(kind, {}))
    return buffer.getvalue()


def concept_icon(
    thumbnail: bytes, patch: int | None = None, grid: tuple[int, int] = (1, 1)
) -> bytes:
    """A square WebP crop of an exemplar around its strongest patch: half the picture's width.

    `patch` is a row-major number in `grid` (rows, columns); without one, the middle of the whole.
    Raises ImageError where `thumbnail` is no small WebP.
    """
    rows, columns = grid
    image = open_thumbnail(thumbnail)
    side = max(8, min(image.size) // (1 if patch is None else 2))
    patch = 0 if patch is None else patch
    row, column = divmod(patch, columns)
    x = (column + 0.5) / columns * image.width - side / 2
    y = (row + 0.5) / rows * image.height - side / 2
    left = round(min(max(x, 0), image.width - side))
    top = round(min(max(y, 0), image.height - side))
    crop = image.crop((left, top, left + side, top + side))
    return encode(crop.resize((ICON_SIZE, ICON_SIZE), Image.Resampling.LANCZOS), "webp", 78)


def thumbnail(image: Image.Image, side: int = 144) -> bytes:
    """A centre-cropped square WebP, `side` pixels wide."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.convert("RGB").crop((left, top, left + short, top + short))
    return encode(square.resize((side, side), Image.Resampling.LANCZOS), "webp", 82)
