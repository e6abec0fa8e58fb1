"""Reading torch's pickled files without running them: tensors and plain values, nothing else.

Knows the containers: torch's zip archive, torch's older single stream, a plain pickle, gzip around
any of them. Knows nothing of SAEs, nor of the names in a pickle (`sae.interop.unpickler`). Config
objects and modules come back as a `Record` of their plain attributes. Sizes are checked against the
file before memory is given to them, and tensors of a zip archive stay on disk.
"""

import gzip
import mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.archive import Archive, Stream
from sae.interop.bounds import MAX_OPCODES, NEXT, checked, shown
from sae.interop.unpickler import Parse, Record, Storage, StorageOf, run

_MAX_PACKING = 64
"""Most bytes that one gzipped byte may become; weights shrink to nine tenths."""
_MAX_NESTED_OPCODES = 500
"""Enough for one storage, which is all that a pickle may hold inside itself."""
_MAX_STORAGES = 2048
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


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
        checked(Stream(content), path)
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
    except (EOFError, gzip.BadGzipFile, OSError) as error:
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
    end = checked(Stream(data, start), path, limit)
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
    found = module.values.get(kind)
    return found.items() if isinstance(found, dict) else ()
