"""What tells an image by what its file holds: its size, and hashes of its ends and of all of it.

    48211:5f0c…:9a2e…     size, blake2b of the first and last END bytes, blake2b of the whole
    48211:5f0c…           the same as older runs wrote it down, which did not read files whole

Knows bytes. Knows nothing of lists or names.
"""

import hashlib
import os
from pathlib import Path

END = 16 << 10
"""Bytes at either end of a file that older runs hashed."""
_PART = 1 << 20


def of_content(content: bytes) -> str:
    """What tells a file that holds `content`."""
    ends = content if len(content) <= 2 * END else content[:END] + content[-END:]
    return _told(len(content), ends, hashlib.blake2b(content, digest_size=16).hexdigest())


def of_file(path: Path) -> str:
    """The same of a file, read in parts; "" if it cannot be read."""
    whole = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            ends = file.read(min(size, END))
            whole.update(ends)
            while part := file.read(_PART):
                whole.update(part)
            file.seek(max(len(ends), size - END))
            return _told(size, ends + file.read(), whole.hexdigest())
    except OSError:
        return ""


def same(one: str, other: str) -> bool:
    """Whether two are of the same content, as far as both tell."""
    if one.count(":") == other.count(":"):
        return one == other
    return _old(one) == _old(other)


def is_in(one: str, known: frozenset[str]) -> bool:
    """Whether a content is among those that are known, of older runs too."""
    return bool(one) and (one in known or _old(one) in known)


def _old(one: str) -> str:
    return ":".join(one.split(":")[:2])


def _told(size: int, ends: bytes, whole: str) -> str:
    return f"{size}:{hashlib.blake2b(ends, digest_size=16).hexdigest()}:{whole}"
