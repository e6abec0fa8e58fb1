"""Reading torch's pickled files without running them: tensors and plain values, nothing else.

Knows the containers: torch's zip archive, torch's older single stream, a plain pickle, gzip around
any of them. Knows nothing of SAEs, nor of the names in a pickle (`sae.interop.unpickler`). Config
objects and modules come back as a `Record` of their plain attributes. Sizes are checked against the
file before memory is given to them, and tensors of a zip archive stay on disk.
"""

import collections
import gzip
import mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.interop.archive import Archive, Stream
from sae.interop.unpickler import NEXT, Record, Storage, StorageOf, checked, run
from sae.storage import ArtifactError

_MAX_PACKING = 64
"""Most bytes that one gzipped byte may become; weights shrink to nine tenths."""
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
        return _loads(archive.pickle(), path, lambda pid: _zip_storage(archive, pid))
    return _stream(data, path)


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


def _stream(data: "bytes | bytearray | mmap.mmap", path: Path) -> Any:
    """A plain pickle, or torch's format from before the zip archive."""
    content, end = _load_at(data, 0, path, None)
    if content != _LEGACY_MAGIC:
        if end != len(data):
            raise ArtifactError(path, f"{len(data) - end} bytes after the pickle", "its end")
        return content
    _, end = _load_at(data, end, path, None)
    system, end = _load_at(data, end, path, None)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ArtifactError(path, "numbers of another byte order", "little-endian numbers", NEXT)
    waiting: dict[str, Tensor] = {}
    content, end = _load_at(data, end, path, lambda pid: _waiting_storage(waiting, pid, len(data)))
    keys, end = _load_at(data, end, path, None)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(waiting):
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


def _load_at(data: Any, start: int, path: Path, storage: StorageOf | None) -> tuple[Any, int]:
    """Unpickle what begins at `start`; returns it and where it ends."""
    end = checked(Stream(data, start), path)
    return run(bytes(data[start:end]), path, storage, parse), end


def _loads(data: bytes, path: Path, storage: StorageOf) -> Any:
    checked(Stream(data), path)
    return run(data, path, storage, parse)


def _pid(pid: Any) -> tuple[torch.dtype, str, int]:
    """Dtype, key and length of torch's reference ("storage", type, key, place, length, …)."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise ValueError(f"a reference {pid!r:.80} that is no storage")
    _, dtype, key, _, length = pid[:5]
    if not isinstance(dtype, torch.dtype) or not isinstance(length, int) or length < 0:
        raise ValueError(f"a storage of {dtype!r} and length {length!r}")
    return dtype, str(key), length


def _zip_storage(archive: Archive, pid: Any) -> Storage:
    dtype, key, length = _pid(pid)
    return Storage(archive.numbers(key, dtype, length))


def _waiting_storage(waiting: dict[str, Tensor], pid: Any, limit: int) -> Storage:
    dtype, key, length = _pid(pid)
    if len(pid) > 5 and pid[5] is not None:
        raise ValueError("a storage that is a view of another")
    if key not in waiting:
        used = sum(flat.numel() * flat.element_size() for flat in waiting.values())
        if used + length * dtype.itemsize > limit:
            raise ValueError(f"storages of more than the file's {limit} bytes")
        waiting[key] = torch.empty(length, dtype=dtype)
    return Storage(waiting[key])


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict or of a pickled module, by dotted name."""
    if isinstance(content, Record):
        return dict(_module_tensors(content, "", collections.deque()))
    if isinstance(content, dict):
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    return {}


def _module_tensors(module: Record, prefix: str, above: "collections.deque[int]") -> Any:
    if id(module) in above or len(above) > 16:
        return
    above.append(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.values.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in (module.values.get("_modules") or {}).items():
        if isinstance(child, Record):
            yield from _module_tensors(child, f"{prefix}{name}.", above)
    above.pop()
