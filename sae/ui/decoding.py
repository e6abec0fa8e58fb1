"""Strangers' pictures are decoded in processes of their own, which may be killed.

Knows: how long, how large and of how many parts a picture may be, and how two processes talk. Does
not know: models, Gradio, where pictures lie.

A few kilobytes can keep a decoder busy for minutes or fill the memory. So the file's parts are
counted first, in one pass; then a worker decodes it with a limit of processor time and of memory,
and hands back plain RGB. A worker that exceeds its limits dies, and the next picture gets a new one.
What a large picture took goes back to the machine with its worker.

A worker reads paths from its standard input, one in JSON a line, and answers each with a line of
JSON: `{"size": [width, height]}`, followed by width x height x 3 bytes, or `{"problem": sentence}`.
With `"last": true` it ends after this answer.
"""

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from sae.errors import ImageError
from sae.images import STRANGERS_FORMATS, open_image

WORKERS = 2
"""Pictures that are decoded at a time: while one takes long, another visitor's is opened."""
CPU_S = 10
"""Seconds of processor time for one picture; 64 megapixels of PNG or JPEG take 1 to 5."""
WALL_S = 60
"""Seconds for one picture on the clock, should its worker wait instead of compute."""
MEMORY_BYTES = 2 * 1024**3
"""Address space of a worker; 64 megapixels with transparency take about 1 GiB."""
KEPT_BYTES = 256 * 1024**2
"""A worker that ever took more memory than this is not used again."""
MAX_PARTS = 50_000
"""Chunks of a PNG or segments of a JPEG; such with the most and smallest have some thousands."""
MAX_SCANS = 100
"""Scans of a JPEG: progressive ones have about ten."""
MAX_EXTENSION_BYTES, MAX_EXTENSIONS = 1_000_000, 1_000
"""What stands before the first frame of a GIF: comments, loops, embedded metadata."""
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_ROWS = 256
_TOO_MUCH = "{} takes too long or too much memory to decode; save it again as a plain JPEG or PNG."


class Decoder:
    """Opens strangers' pictures; safe to share between threads, which wait for a free worker."""

    def __init__(self, cpu_s: int = CPU_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self._limits = [str(cpu_s), str(memory_bytes)]
        self._idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        for _ in range(WORKERS):
            self._idle.put(None)
        self._running: set[subprocess.Popen[bytes]] = set()
        self.close = weakref.finalize(self, _end_all, self._running)

    def open(self, path: Path) -> Image.Image:
        """The picture as `sae.images.open_image` gives it, or its ImageError.

        Also raises ImageError for what takes more processor time or memory than a picture may.
        """
        worker = self._idle.get()
        usable = False
        try:
            if worker is None or worker.poll() is not None:
                worker = self._start()
            answer = _ask(worker, path)
            usable = answer is not None and not answer[1]
        finally:
            if worker is not None and not usable:
                self._running.discard(worker)
                _end(worker)
            self._idle.put(worker if usable else None)
        if answer is None:
            raise ImageError(_TOO_MUCH.format(path.name))
        image, _, problem = answer
        if image is None:
            raise ImageError(problem)
        return image

    def _start(self) -> "subprocess.Popen[bytes]":
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        worker = subprocess.Popen(
            [sys.executable, "-m", "sae.ui.decoding", *self._limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._running.add(worker)
        return worker


def _ask(
    worker: "subprocess.Popen[bytes]", path: Path
) -> tuple[Image.Image | None, bool, str] | None:
    """The picture, whether the worker ends with it, and the problem; None if the worker died over it."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    alarm = threading.Timer(WALL_S, worker.kill)
    alarm.daemon = True
    alarm.start()
    try:
        worker.stdin.write(json.dumps(str(path)).encode() + b"\n")
        worker.stdin.flush()
        told = worker.stdout.readline()
        if not told.endswith(b"\n"):
            return None
        answer = json.loads(told)
        last = bool(answer.get("last"))
        if "problem" in answer:
            return None, last, str(answer["problem"])
        width, height = answer["size"]
        pixels = worker.stdout.read(width * height * 3)
        if len(pixels) < width * height * 3:
            return None
        return Image.frombytes("RGB", (width, height), pixels), last, ""
    except BrokenPipeError:
        return None
    finally:
        alarm.cancel()


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    with contextlib.suppress(OSError):  # what was written to a worker that is gone
        worker.communicate()


def _end_all(workers: "set[subprocess.Popen[bytes]]") -> None:
    while workers:
        _end(workers.pop())


def check_parts(data: bytes, name: str) -> None:
    """Raise ImageError for a file of more parts than any picture has; one pass over `data`."""
    sound = True
    if data.startswith(b"\xff\xd8"):
        sound = _sound_jpeg(data)
    elif data.startswith(b"\x89PNG"):
        sound = _sound_png(data)
    elif data.startswith(b"GIF8"):
        sound = _sound_gif(data)
    if not sound:
        raise ImageError(
            f"{name} is made of far more parts than a picture has; save it again as a plain JPEG "
            "or PNG."
        )


def _sound_jpeg(data: bytes) -> bool:
    parts = scans = 0
    at = 2
    while (marker := _JPEG_MARKER.search(data, at)) and marker[1] != b"\xd9":
        parts += 1
        scans += marker[1] == b"\xda"
        if parts > MAX_PARTS or scans > MAX_SCANS:
            return False
        at = marker.end()
        if marker[1] not in b"\x01\xd8":
            at += int.from_bytes(data[at : at + 2])
    return True


def _sound_png(data: bytes) -> bool:
    at, parts = 8, 0
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4])
        parts += 1
        if parts > MAX_PARTS:
            return False
    return True


def _sound_gif(data: bytes) -> bool:
    """Whether few extensions stand before the first frame; nothing after it is read."""
    flags = data[10] if len(data) > 10 else 0
    first = at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    extensions = 0
    while data[at : at + 1] == b"!":
        at += 2
        extensions += 1
        while at < len(data) and data[at]:
            at += data[at] + 1
            if at - first > MAX_EXTENSION_BYTES:
                return False
        at += 1
        if extensions > MAX_EXTENSIONS:
            return False
    return True


def main(asked: BinaryIO, answers: BinaryIO, cpu_s: int, memory_bytes: int) -> None:
    """Answer for one picture after another, until there are no more or too much memory was taken."""
    _limit("RLIMIT_AS", memory_bytes)
    last = False
    for line in asked:
        _limit("RLIMIT_CPU", int(sum(os.times()[:2])) + 1 + cpu_s)
        path = Path(json.loads(line))
        image = None
        answer: dict[str, object]
        try:
            if path.is_file():
                check_parts(path.read_bytes(), path.name)
            image = open_image(path, formats=STRANGERS_FORMATS)
            answer = {"size": image.size}
        except ImageError as error:
            greedy = isinstance(error.__cause__, MemoryError)
            answer = {"problem": _TOO_MUCH.format(path.name) if greedy else str(error)}
        last = _most_taken() > KEPT_BYTES
        answers.write(json.dumps({**answer, "last": last}).encode() + b"\n")
        if image is not None:
            for top in range(0, image.height, _ROWS):
                rows = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
                answers.write(rows.tobytes())
        answers.flush()
        if last:
            return


def _limit(name: str, value: int) -> None:
    """Set a soft limit of this process; where the system has no such limit, WALL_S remains."""
    try:
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    except (ImportError, AttributeError, ValueError, OSError):
        return


def _most_taken() -> int:
    """The most memory that this process ever took, in bytes; 0 where the system does not tell.

    Linux counts its parent's memory in `ru_maxrss`, so that would end every worker of a large server.
    """
    try:
        told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        told = None
    return 1024 * int(told[1]) if told else 0


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer, *map(int, sys.argv[1:]))
