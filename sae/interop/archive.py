"""torch's zip archive (torch.save since 1.6), read in place.

Knows zip's records as far as torch writes them: stored, not compressed, one folder deep. Knows
nothing of pickles. Nothing is extracted; a tensor's numbers are a view of the mapped file, whose
length has been compared with what the archive claims.
"""

import io
import mmap
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from sae.errors import ArtifactError

MAX_RECORDS = 10_000
MAX_PICKLE_BYTES = 64 << 20
MAX_LINE = 1 << 16


class Archive:
    """An open archive over `data`, which must stay alive while its tensors do."""

    def __init__(self, data: "bytes | bytearray | mmap.mmap", path: Path) -> None:
        self._data, self._path = data, path
        try:
            with zipfile.ZipFile(Stream(data)) as file:
                infos = file.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise self._amiss(f"{error}", "a whole archive of torch.save") from error
        if len(infos) > MAX_RECORDS:
            raise self._amiss(f"{len(infos)} records", f"at most {MAX_RECORDS}")
        self._records: dict[str, zipfile.ZipInfo] = {}
        self._numbers: dict[tuple[str, torch.dtype], Tensor] = {}
        self._read = 0
        for info in infos:
            self._records[self._inner_name(info)] = info
        if len(self._records) != len(infos):
            raise self._amiss("a record that is there twice", "each record once")
        if "byteorder" in self._records and self._bytes("byteorder", 16) != b"little":
            raise self._amiss("numbers of another byte order", "little-endian numbers")

    def pickle(self) -> bytes:
        """The pickle that says what the archive holds."""
        return self._bytes("data.pkl", MAX_PICKLE_BYTES)

    def numbers(self, key: str, dtype: torch.dtype, length: int) -> Tensor:
        """The `length` numbers of storage `key`, a view of the file."""
        name = f"data/{key}"
        if (name, dtype) in self._numbers:
            return self._numbers[name, dtype]
        start, size = self._place(name)
        if size != length * dtype.itemsize:
            raise self._amiss(f"{size} bytes in {name}", f"{length} numbers of {dtype}")
        if not length:
            return torch.empty(0, dtype=dtype)
        self._read += size
        if self._read > 2 * len(self._data):
            raise self._amiss("records that overlap", "numbers of their own for each tensor")
        view = memoryview(self._data)[start : start + size]
        crc = self._records[name].CRC
        if crc and zlib.crc32(view) != crc:
            raise self._amiss(f"changed bytes in {name}", f"checksum {crc:08x}")
        if start % dtype.itemsize or isinstance(self._data, bytes):
            flat = torch.frombuffer(bytearray(view), dtype=dtype)
        else:
            flat = torch.frombuffer(self._data, dtype=dtype, count=length, offset=start)
        self._numbers[name, dtype] = flat
        return flat

    def _inner_name(self, info: zipfile.ZipInfo) -> str:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename or len(path.parts) < 2:
            raise self._amiss(f"a record named {info.filename!r:.80}", "a name inside its folder")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self._amiss(f"a compressed record {info.filename!r:.80}", "stored records")
        return "/".join(path.parts[1:])

    def _place(self, name: str) -> tuple[int, int]:
        """Where a record's bytes begin, and how many there are; all of them inside the file."""
        info = self._records.get(name)
        if info is None:
            raise self._amiss(f"no record {name!r:.80}", "it to be there")
        at = info.header_offset
        header = self._data[at : at + 30]
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise self._amiss(f"no header for {name!r:.80}", "a whole archive")
        extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = at + 30 + extra
        if start + info.file_size > len(self._data):
            raise self._amiss(f"{info.file_size} bytes claimed for {name!r:.80}", "a whole archive")
        return start, info.file_size

    def _bytes(self, name: str, limit: int) -> bytes:
        start, size = self._place(name)
        if size > limit:
            raise self._amiss(f"{size} bytes in {name}", f"at most {limit}")
        content = bytes(self._data[start : start + size])
        crc = self._records[name].CRC
        if crc and zlib.crc32(content) != crc:
            raise self._amiss(f"changed bytes in {name}", f"checksum {crc:08x}")
        return content

    def _amiss(self, found: str, expected: str) -> ArtifactError:
        return ArtifactError(self._path, found, expected)


class Stream(io.RawIOBase):
    """Bytes or a mapped file as a seekable stream of its own position, without a copy."""

    def __init__(self, data: "bytes | bytearray | mmap.mmap", start: int = 0) -> None:
        super().__init__()
        self._data, self._at = data, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, len(self._data))[whence]
        if base + offset < 0:
            raise ValueError("a place before the file's start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readline(self, size: int | None = -1) -> bytes:
        """To the next line's end, or MAX_LINE bytes if that is not so far."""
        limit = MAX_LINE if size is None or size < 0 else min(size, MAX_LINE)
        end = self._data.find(b"\n", self._at, self._at + limit)
        return self.read(limit if end < 0 else end + 1 - self._at)

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        piece = bytes(self._data[self._at : end])
        self._at += len(piece)
        return piece
