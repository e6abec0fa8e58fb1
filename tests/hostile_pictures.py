"""Small files that keep decoders busy for minutes or fill the memory, made here byte by byte.

Knows file formats. Does not know who refuses them.
"""

import io
import struct
import zlib

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gif_of_comments(n: int) -> bytes:
    head = b"GIF89a\x01\x00\x01\x00\x80\x00\x00" + bytes(6)
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
    return head + b"!\xfe" + (b"\xff" + b"x" * 255) * n + b"\0" + frame


def png_of_text(n: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"a\0") * n + end


def jpeg_of_scans(n: int) -> bytes:
    plain = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    return plain[:-2] + last * n + b"\xff\xd9"


def jpeg_of_segments(n: int) -> bytes:
    plain = encoded(Image.new("RGB", (8, 8)), "JPEG")
    return plain[:2] + b"\xff\xfe\x00\x02" * n + plain[2:]


def bmp_of_runs(side: int = 8000) -> bytes:
    """Runs of one pixel, which Pillow expands one by one."""
    runs = (b"\x01\x05" * side + b"\0\0") * 1000
    head = struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024)
    head += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + head + bytes(1024) + runs


HOSTILE = {
    "comments.gif": gif_of_comments(80_000),
    "extensions.gif": gif_of_comments(0)[:19] + b"!\xfe\0" * 500_000 + gif_of_comments(0)[19:],
    "texts.png": png_of_text(1_000_000),
    "scans.jpg": jpeg_of_scans(3_010),
    "segments.jpg": jpeg_of_segments(2_000_000),
}
"""Of far more parts than a picture has."""
