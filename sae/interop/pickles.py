"""Reading torch's pickled files without running them: tensors and plain values, nothing else.

Knows the containers: torch's zip archive (torch.save since 1.6), torch's older single stream, a plain
pickle, gzip around any of them. Knows nothing of SAEs, nor of the names in a pickle
(`sae.interop.unpickler`). Config objects and modules come back as a `Record` of their plain attributes.
Nothing is extracted: sizes are checked against the file before memory is given to them, and a tensor of
a zip archive is a view of the mapped file.
"""

import gzip
import io
import mmap
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.unpickler import (
    MAX_OPCODES,
    NEXT,
    Parse,
    Record,
    Storage,
    StorageOf,
    checked,
    run,
    shown,
)

MAX_RECORDS = 10_000
MAX_PICKLE_BYTES = 64 << 20
MAX_LINE = 1 << 16
_MAX_PACKING = 64
"""Most bytes that one gzipped byte may become; weights shrink to nine tenths."""
_MAX_NESTED_OPCODES = 500
"""Enough for one storage, which is all that a pickle may hold inside itself."""
_MAX_STORAGES = 2048
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Archive:
    """torch's zip archive, open over `data`, which must stay alive while its tensors do.

    Knows zip's records as far as torch writes them: stored, not compressed, one folder deep.
    """

    def __init__(self, data: "bytes | bytearray | mmap.mmap", path: Path) -> None:
        self._data, self._path = data, path
        try:
            with zipfile.ZipFile(FileView(data)) as file:
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

    def numbers(self, key: str, dtype: torch.dtype, length: int) -> Shaped[Tensor, " {length}"]:
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

    def _amiss(self, actual: str, expected: str) -> ArtifactError:
        return ArtifactError(self._path, actual, expected)


class FileView(io.RawIOBase):
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


def read_pickle(path: Path) -> Any:
    """The content of a .pt, .pth, .pkl or .pkl.gz file: dicts, lists, numbers, text, tensors, Records.

    Raises ArtifactError for anything that is not whole or asks for more than data.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start[:2] == b"\x1f\x8b":
                return parse(_unzipped(path), path)
            return parse(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), path)
    except (OSError, ValueError) as error:
        if isinstance(error, ArtifactError) or not isinstance(error, ValueError):
            raise
        raise ArtifactError(path, f"{error}", "a pickled file of tensors", NEXT) from error


def parse(data: "bytes | bytearray | mmap.mmap", path: Path) -> Any:
    """The content of a pickled file in memory (or mapped into it)."""
    if data[:4] == b"PK\x03\x04":
        archive = Archive(data, path)
        content = archive.pickle()
        checked(FileView(content), path)
        return run(content, path, lambda pid: _zip_storage(archive, pid), _nested())
    return _stream(data, path, _nested())


def _nested() -> Parse:
    """A reader of the storages inside one pickle: few, small and without any of their own."""
    seen: dict[bytes, Any] = {}

    def read(data: bytes, path: Path) -> Any:
        if data not in seen:
            if len(seen) >= _MAX_STORAGES:
                raise ArtifactError(path, "very many storages", f"at most {_MAX_STORAGES}", NEXT)
            seen[data] = _stream(data, path, None)
        return seen[data]

    return read


def _unzipped(path: Path) -> bytearray:
    limit = path.stat().st_size * _MAX_PACKING + (1 << 16)
    out = bytearray()
    try:
        with gzip.open(path) as file:
            while piece := file.read(1 << 20):
                out += piece
                if len(out) > limit:
                    raise ArtifactError(path, "a gzip file that swells", f"at most {limit} bytes")
    except (EOFError, zlib.error, OSError) as error:
        raise ArtifactError(path, f"{error}", "a whole gzip file") from error
    return out


def _stream(data: "bytes | bytearray | mmap.mmap", path: Path, nested: Parse | None) -> Any:
    """A plain pickle, or torch's format from before the zip archive."""
    content, end = _load_at(data, 0, path, None, nested)
    if type(content) is not int or content != _LEGACY_MAGIC:
        if end != len(data):
            raise ArtifactError(path, f"{len(data) - end} bytes after the pickle", "its end")
        return content
    _, end = _load_at(data, end, path, None, nested)
    system, end = _load_at(data, end, path, None, nested)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ArtifactError(path, "numbers of another byte order", "little-endian numbers", NEXT)
    waiting: dict[str, Tensor] = {}
    find = lambda pid: _waiting_storage(waiting, pid, len(data))  # noqa: E731
    content, end = _load_at(data, end, path, find, nested)
    keys, end = _load_at(data, end, path, None, nested)
    plain = isinstance(keys, list) and all(isinstance(name, (str, int)) for name in keys)
    if not plain or sorted(map(str, keys)) != sorted(waiting):
        raise ArtifactError(path, "storages that do not fit the tensors", "one each")
    for key in map(str, keys):
        flat = waiting[key]
        n_bytes = flat.numel() * flat.element_size()
        if int.from_bytes(data[end : end + 8], "little") != flat.numel():
            raise ArtifactError(path, f"storage {key} of another length", f"{flat.numel()} numbers")
        raw = bytearray(data[end + 8 : end + 8 + n_bytes])
        if len(raw) != n_bytes:
            raise ArtifactError(path, f"{len(raw)} bytes in storage {key}", f"{n_bytes}")
        if n_bytes:
            flat.copy_(torch.frombuffer(raw, dtype=flat.dtype))
        end += 8 + n_bytes
    return content


def _load_at(
    data: Any, start: int, path: Path, storage: StorageOf | None, nested: Parse | None
) -> tuple[Any, int]:
    """Unpickle what begins at `start`; returns it and where it ends."""
    limit = _MAX_NESTED_OPCODES if nested is None else MAX_OPCODES
    end = checked(FileView(data, start), path, limit)
    return run(bytes(data[start:end]), path, storage, nested), end


def _pid(pid: Any) -> tuple[torch.dtype, str, int]:
    """Dtype, key and length of torch's reference ("storage", type, key, place, length, …)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise ValueError(f"a reference to {shown(pid)} that is no storage")
    _, dtype, key, _, length = pid[:5]
    whole = isinstance(length, int) and 0 <= length < 1 << 62
    if not isinstance(dtype, torch.dtype) or not isinstance(key, (str, int)) or not whole:
        raise ValueError(f"storage {shown(key)} of {shown(dtype)}, length {shown(length)}")
    return dtype, str(key), length


def _zip_storage(archive: Archive, pid: Any) -> Storage:
    dtype, key, length = _pid(pid)
    return Storage(archive.numbers(key, dtype, length))


def _waiting_storage(waiting: dict[str, Tensor], pid: Any, limit: int) -> Storage:
    dtype, key, length = _pid(pid)
    if len(pid) > 5 and pid[5] is not None:
        raise ValueError("a storage that is a view of another")
    if key not in waiting:
        if len(waiting) >= _MAX_STORAGES:
            raise ValueError(f"more than {_MAX_STORAGES} storages")
        used = sum(flat.numel() * flat.element_size() for flat in waiting.values())
        if used + length * dtype.itemsize > limit:
            raise ValueError(f"storages of more than the file's {limit} bytes")
        waiting[key] = torch.empty(length, dtype=dtype)
    return Storage(waiting[key])


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict or of a pickled module, by dotted name."""
    if isinstance(content, Record):
        return dict(_module_tensors(content, "", set(), 0))
    if isinstance(content, dict):
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return {}


def _module_tensors(module: Record, prefix: str, seen: set[int], depth: int) -> Any:
    """Each module once: a pickle may mean the same one in a million places."""
    if id(module) in seen or depth > 16:
        return
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(module, kind):
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in _entries(module, "_modules"):
        if isinstance(child, Record):
            yield from _module_tensors(child, f"{prefix}{name}.", seen, depth + 1)


def _entries(module: Record, kind: str) -> Any:
    entries = module.values.get(kind)
    return entries.items() if isinstance(entries, dict) else ()
