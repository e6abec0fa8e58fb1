"""Visitors' pictures on disk: which files are theirs, how they are opened, and when they go.

Knows: Gradio's upload folder and the decoder. Does not know: what a picture is for.

A browser names its upload by the path that the server gave it, so a path is a claim by a stranger:
only regular files inside the upload folder are honoured, after every link is resolved. Everything in
that folder is a visitor's, also after a restart: what has not been used for KEPT_S goes, and the
oldest go where there are too many or they take too much. When a visit ends, its pictures go soon.
"""

import hashlib
import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gradio.utils import get_upload_folder
from PIL import Image

from sae.errors import ImageError
from sae.ui.decoding import Decoder

KEPT_S = 3600
"""A picture is deleted once it has not been used for so long."""
AFTER_VISIT_S = 120
"""The same, once its visit has ended: a page that lost its connection for a moment still has it."""
SWEEP_S = 30
"""The folder is looked through as often, and after every upload."""
MAX_FILES, MAX_BYTES = 400, 1024**3
"""Of the whole folder; the ones unused for longest go first."""
MAX_VISITS, MAX_OF_A_VISIT = 1000, 50
"""Visits whose pictures are known, and pictures of a visit; of others the age alone decides."""
MAX_REFUSED = 500
"""Contents that are known to be no good picture, by hash, so that a repeated one costs nothing."""
GONE = "The picture did not arrive. Try to send it again."


class Uploads:
    """Visitors' pictures: opened, and of which visit they are; safe to share between threads."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, set[Path]] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()

    def open(self, claimed: object) -> Image.Image:
        """An uploaded picture, upright and RGB; ImageError if it is gone or no good picture."""
        path, content = self.identify(claimed)
        with self._lock:
            refusal = self._refused.get(content)
        if refusal is not None:
            raise ImageError(refusal)
        try:
            return self.decoder.open(path)
        except ImageError as error:
            with self._lock:
                self._refused[content] = str(error)
                while len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            raise

    def identify(self, claimed: object) -> tuple[Path, str]:
        """The file that `claimed` names, now as if just used, and its hash; ImageError if it is gone."""
        path = uploaded_file(claimed)
        if path is None:
            raise ImageError(GONE)
        try:
            os.utime(path)
            return path, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ImageError(GONE) from error

    def remember(self, visit: str, claimed: object) -> None:
        """The picture is one of this visit's, which takes it along when it ends."""
        path = uploaded_file(claimed)
        if path is None or not visit:
            return
        with self._lock:
            pictures = self._visits.setdefault(visit, set())
            if len(pictures) < MAX_OF_A_VISIT:
                pictures.add(path)
            self._visits.move_to_end(visit)
            while len(self._visits) > MAX_VISITS:
                self._visits.popitem(last=False)

    def end(self, visit: str) -> None:
        """The visit has ended: its pictures go at the first sweep in AFTER_VISIT_S."""
        with self._lock:
            pictures = self._visits.pop(visit, set())
        last_used = time.time() - KEPT_S + AFTER_VISIT_S
        for path in pictures:
            with suppress(OSError):
                os.utime(path, (last_used, last_used))


def keep(name: str, content: BinaryIO) -> str:
    """Write an upload into the folder; its path, which nobody can guess."""
    folder = Path(get_upload_folder()) / secrets.token_hex(16)
    folder.mkdir(parents=True, mode=0o700)
    path = folder / plain_name(name)
    try:
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sweep()
    return str(path)


def sweep() -> None:
    """Delete what is too old, too many or too much, and empty folders."""
    folder, now = Path(get_upload_folder()), time.time()
    files: list[tuple[float, int, Path]] = []
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                about = path.lstat()
                files.append((about.st_mtime, about.st_size, path))
        if not folders and not names and Path(place) != folder:
            _remove_if_old(Path(place), now)
    total = 0
    for number, (used, size, path) in enumerate(sorted(files, reverse=True)):
        total += size
        if now - used > KEPT_S or number >= MAX_FILES or total > MAX_BYTES:
            with suppress(OSError):
                path.unlink()
                path.parent.rmdir()


def uploaded_file(claimed: object) -> Path | None:
    """The uploaded file that `claimed` names, or None for anything else."""
    if not isinstance(claimed, str) or not claimed or len(claimed) > 4096 or "\0" in claimed:
        return None
    folder = Path(get_upload_folder()).resolve()
    path = Path(claimed)
    if not path.is_absolute():
        return None
    path = path.resolve()
    return path if path.is_relative_to(folder) and path.is_file() else None


def plain_name(name: str) -> str:
    """A file's name in letters that every system takes, for messages and for its type."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in last)
    stem, dot, suffix = kept.strip(" .").rpartition(".")
    return f"{stem[:80]}{dot}{suffix[:12]}" or "picture"


def _remove_if_old(folder: Path, now: float) -> None:
    """An empty folder goes, unless an upload is about to be written into it."""
    with suppress(OSError):
        if now - folder.stat().st_mtime > SWEEP_S:
            folder.rmdir()
