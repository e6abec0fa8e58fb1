"""Odd, damaged and hostile pictures: the right pixels, or one sentence."""

import resource
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from pillow_heif import register_heif_opener

from sae.errors import ImageError
from sae.images import MAX_PIXELS, open_image, upright_rgb

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def encoded_of_a_phone(image: Image.Image, format: str, **options: object) -> bytes:
    register_heif_opener()
    return encoded(image, format, quality=90, **options)


def one_sentence(error: pytest.ExceptionInfo[ImageError]) -> bool:
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 200


@pytest.fixture
def half() -> Image.Image:
    """8 x 4: the left half red, the right half green."""
    image = Image.new("RGB", (8, 4), GREEN)
    image.paste(RED, (0, 0, 4, 4))
    return image


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_lossless_formats(half: Image.Image, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    image = open_image(encoded(half, format, **options))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(half))


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_pictures_of_phones(half: Image.Image, format: str, tmp_path: Path) -> None:
    """Lossy, so near the colours; turned as the camera was held; cut off is cut off, not unknown."""
    large = half.resize((64, 32))
    data = encoded_of_a_phone(large, format)
    image = open_image(data)
    assert (image.mode, image.size) == ("RGB", (64, 32))
    assert np.abs(np.asarray(image, float) - np.asarray(large, float)).mean() < 8
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(encoded_of_a_phone(large, format, exif=exif.tobytes()))
    assert open_image(path).size == (32, 64)
    for end in (40, len(data) // 2):
        with pytest.raises(ImageError, match="cut off or damaged") as error:
            open_image(data[:end])
        assert one_sentence(error)


@pytest.mark.parametrize(("format", "side"), [("HEIF", 30_000), ("HEIF", 7_000), ("AVIF", 30_000)])
def test_a_phones_picture_that_lies_of_its_size(format: str, side: int) -> None:
    data = bytearray(encoded_of_a_phone(Image.effect_noise((64, 64), 9).convert("RGB"), format))
    at = data.find(b"ispe")
    assert at > 0
    data[at + 8 : at + 16] = struct.pack(">II", side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="damaged|limit is 64") as error:
        open_image(bytes(data))
    assert one_sentence(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(("format", "called"), [("HEIF", "HEIC"), ("AVIF", "AVIF")])
def test_a_phones_picture_is_named_where_there_is_no_decoder(
    half: Image.Image, format: str, called: str, tmp_path: Path
) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(encoded_of_a_phone(half.resize((64, 32)), format))
    with path.open("rb") as file:
        for source in (path, path.read_bytes(), file):
            with pytest.raises(ImageError, match=f"is a {called} picture, .*save it as a JPEG"):
                open_image(source, formats=["JPEG", "PNG"])


def test_paths_and_files(half: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    half.save(path)
    with path.open("rb") as file:
        for source in (path, str(path), file):
            assert open_image(source).size == (8, 4)


def test_rgb_passes_unchanged(half: Image.Image) -> None:
    assert upright_rgb(half) is half


@pytest.mark.parametrize(
    "mode", ["1", "L", "CMYK", "YCbCr", "HSV", "P", "RGBX", "LA", "RGBA", "La"]
)
def test_modes_without_transparency(mode: str) -> None:
    grey = Image.new("L", (6, 6), 255)
    source = grey.convert("LA").convert("La") if mode == "La" else grey.convert("RGB").convert(mode)
    assert upright_rgb(source).mode == "RGB"
    assert np.abs(np.asarray(upright_rgb(source), int) - 255).max() <= 2


def test_alpha_is_laid_on_white(half: Image.Image) -> None:
    half.putalpha(Image.new("L", half.size, 0))
    half.paste((*RED, 128), (0, 0, 4, 4))
    image = open_image(encoded(half))
    assert image.getpixel((7, 0)) == WHITE
    assert image.getpixel((0, 0)) == (255, 127, 127)


def test_a_palette_with_alpha(half: Image.Image) -> None:
    palette = half.quantize(2)
    green = palette.getpixel((7, 0))
    for transparency in (green, bytes(255 * (n != green) for n in range(2))):
        image = open_image(encoded(palette, transparency=transparency))
        assert image.getpixel((7, 0)) == WHITE
        assert image.getpixel((0, 0)) == RED


def test_a_transparent_colour(half: Image.Image) -> None:
    image = open_image(encoded(half, transparency=GREEN))
    assert (image.getpixel((7, 0)), image.getpixel((0, 0))) == (WHITE, RED)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = open_image(encoded(Image.fromarray(deep)))
    assert np.abs(np.asarray(image)[..., 0].reshape(-1) - np.arange(256)).max() <= 1
    assert np.array_equal(np.asarray(image)[..., 0], np.asarray(image)[..., 2])
    big_endian = Image.fromarray(deep.astype(">u2"))
    assert np.array_equal(np.asarray(upright_rgb(big_endian)), np.asarray(image))
    integers = Image.fromarray(deep.astype(np.int32))
    assert np.array_equal(np.asarray(upright_rgb(integers)), np.asarray(image))


def test_floats_and_small_integers() -> None:
    unit = Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
    assert np.asarray(upright_rgb(unit)).max() == 255
    wide = Image.fromarray(np.array([[np.nan, -5, 12.4, 1e9]], dtype=np.float32))
    assert np.asarray(upright_rgb(wide))[0, :, 0].tolist() == [0, 0, 12, 255]
    integers = Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32))
    assert np.asarray(upright_rgb(integers))[0, :, 0].tolist() == [0, 7, 255]


def test_cmyk_jpeg() -> None:
    image = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = image.getpixel((8, 8))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_carried_out(half: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO(encoded(half, "JPEG", exif=exif, quality=95))
    image = open_image(file)
    assert image.size == ((8, 4) if orientation < 5 else (4, 8))
    # Upright, the stored left (red) half lies left, right, top or bottom.
    red = {1: (0, 0), 4: (0, 0), 5: (0, 0), 6: (0, 0), 2: (7, 0), 3: (7, 0), 7: (0, 7), 8: (0, 7)}
    assert image.getpixel(red[orientation])[0] > 200
    assert upright_rgb(image).size == image.size
    assert np.array_equal(np.asarray(upright_rgb(Image.open(file))), np.asarray(image))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_show_their_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert open_image(data).getpixel((4, 4)) == RED


def test_one_pixel_is_a_picture() -> None:
    assert open_image(encoded(Image.new("RGB", (1, 1), RED))).getpixel((0, 0)) == RED


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_cut_off_files(format: str) -> None:
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), format)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageError) as error:
            open_image(data[: int(len(data) * share)])
        assert one_sentence(error)


def test_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("Only words.")
    missing, empty = tmp_path / "missing.png", tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for source in (text, missing, empty, tmp_path, b"", b"\x89PNG\r\n\x1a\n", postscript):
        with pytest.raises(ImageError) as error:
            open_image(source)
        assert one_sentence(error)


def test_damaged_pixels_are_said() -> None:
    data = bytearray(encoded(Image.new("RGB", (64, 64), RED)))
    data[60:80] = bytes(20)
    with pytest.raises(ImageError) as error:
        open_image(bytes(data))
    assert one_sentence(error)


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (12_000, 10_000)])
def test_bombs_are_refused_from_their_header(size: tuple[int, int]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = size[0] * size[1] // 1_000_000
    with pytest.raises(ImageError, match=f"{many} megapixels, and the limit is 64") as error:
        open_image(huge_png(*size))
    assert one_sentence(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_open_pictures_are_bounded_too() -> None:
    with pytest.raises(ImageError, match="megapixels"):
        upright_rgb(Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)))


def test_open_pictures_may_be_cut_off_too() -> None:
    data = encoded(Image.effect_noise((64, 64), 50))
    with pytest.raises(ImageError, match="damaged"):
        upright_rgb(Image.open(BytesIO(data[: len(data) // 2])))


def test_deep_tiff() -> None:
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    assert open_image(encoded(deep, "TIFF", tiffinfo=info)).getpixel((0, 0)) == (156, 156, 156)


def test_a_large_jpeg_is_decoded_only_as_far_as_needed(tmp_path: Path) -> None:
    """1/2, 1/4 or 1/8, never below what is enough; other formats are decoded whole."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8))
    whole = smooth.resize((1600, 1200), Image.Resampling.BICUBIC)
    whole.save(tmp_path / "a.jpg", quality=95)
    whole.save(tmp_path / "a.png")
    for wanted, size in (
        ((800, 600), (800, 600)),
        ((500, 300), (800, 600)),
        ((99, 99), (200, 150)),
    ):
        found = open_image(tmp_path / "a.jpg", lambda _, wanted=wanted: wanted)
        assert found.size == size
        same = whole.resize(size, Image.Resampling.BOX)
        assert np.abs(np.asarray(found, float) - np.asarray(same, float)).mean() < 1.5
    assert open_image(tmp_path / "a.jpg", lambda size: size).size == (1600, 1200)
    assert open_image(tmp_path / "a.png", lambda _: (9, 9)).size == (1600, 1200)


def test_wherever_a_picture_is_opened_its_formats_are_named() -> None:
    root = Path(__file__).resolve().parents[1]
    for path in [*root.glob("sae/**/*.py"), *root.glob("training/**/*.py"), root / "app.py"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "Image.open(" not in line or "formats=" in line, f"{path}: {line.strip()}"
