"""An unpickler that runs nothing: a handful of names, rebuilt here, and no code of theirs.

Knows pickle's opcodes, which names a checkpoint may mention and how torch describes a tensor. Knows
no containers and no files; `sae.interop.pickles` opens those. Any name but these is refused: what a
file asks for is never imported or called.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.interop.archive import Stream
from sae.storage import ArtifactError

MAX_OPCODES = 50_000
NEXT = "Ask whoever made the file for safetensors."

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_CONFIG_MODULES = ("src.", "sae_training.", "vit_prisma.", "sae_lens.", "tasks.", "config.")
"""Where the config objects of published checkpoints come from."""
_MODULE_PACKAGES = ("overcomplete.", "torch.nn.modules.", "torch.optim.")
"""Where the parts of a pickled overcomplete module come from, its named functions included, and the
optimisers and schedules that CoOp's and MaPLe's checkpoints carry along."""


class _Ordered(dict):
    """An OrderedDict's entries; the attributes that state dicts carry are dropped."""

    def __setstate__(self, _: object) -> None:
        return


class _Default(dict):
    """A defaultdict's entries; what it would make of missing ones is dropped."""

    def __init__(self, *_: object) -> None:
        super().__init__()


_CONTAINERS = {
    ("collections", "defaultdict"): _Default,
    ("builtins", "dict"): dict,
    ("__builtin__", "dict"): dict,
    ("collections", "OrderedDict"): _Ordered,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
_BANNED = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}


class Record:
    """A config object or module of a pickle: the name of its class and its plain attributes.

    It stands in for the class: making or calling one runs nothing of the original.
    """

    class_name = "object"
    values: dict[str, Any]

    def __new__(cls, *_: object, **__: object) -> "Record":
        made = super().__new__(cls)
        made.values = {}
        return made

    def __init__(self, *_: object, **__: object) -> None:
        """Whatever arguments the file gives are dropped."""

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.values.update({k: v for k, v in part.items() if isinstance(k, str)})


class Storage(NamedTuple):
    """Where a tensor's numbers lie: a flat tensor of one dtype, perhaps not filled yet."""

    flat: Tensor


StorageOf = Callable[[Any], Storage]
Parse = Callable[[bytes, Path], Any]


def checked(data: Stream, path: Path) -> int:
    """Walk the opcodes without running them; returns where the pickle ends."""
    n, largest = 0, 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            n += 1
            if opcode.name in _BANNED:
                raise ArtifactError(path, f"pickle opcode {opcode.name}", "plain data", NEXT)
            if "PUT" in opcode.name:
                largest = max(largest, int(argument))
            if n > MAX_OPCODES or largest > MAX_OPCODES:
                raise ArtifactError(path, "a pickle beyond all bounds", "a checkpoint", NEXT)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(path, f"{error}", "a whole pickle") from error
    return data.tell()


class _Reader(pickle.Unpickler):
    """An unpickler that knows a handful of names and none of their code."""

    def __init__(self, data: bytes, path: Path, storage: StorageOf | None, nested: Parse) -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._storage, self._parse = path, storage, nested

    def persistent_load(self, pid: Any) -> Storage:
        if self._storage is None:
            raise ArtifactError(self._path, f"a reference {pid!r:.60}", "data", NEXT)
        return self._storage(pid)

    def _nested(self, raw: Any) -> Storage:
        """A storage that a plain pickle holds as bytes of torch's older format."""
        found = self._parse(raw, self._path) if isinstance(raw, bytes) else None
        if not isinstance(found, Storage):
            raise ArtifactError(self._path, "bytes that are no storage", "a tensor's numbers", NEXT)
        return found

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch._utils" and name in _REBUILD:
            return _REBUILD[name]
        if module == "torch.storage" and name == "_load_from_bytes":
            return lambda raw: self._nested(raw)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _storage_type(name, self._path)
        if module == "torch" and (name in ("device", "Size") or hasattr(torch, name)):
            return _plain_torch(name, self._path)
        config = module == "__main__" or f"{module}.".startswith(_CONFIG_MODULES)
        part = f"{module}.".startswith(_MODULE_PACKAGES)
        if name.isidentifier() and (part or (config and name[0].isupper())):
            return type(name, (Record,), {"class_name": f"{module}.{name}"})
        raise ArtifactError(
            self._path, f"a request for {module}.{name}", "tensors and plain values only", NEXT
        )


def run(data: bytes, path: Path, storage: StorageOf | None, nested: Parse) -> Any:
    """Unpickle `data`, which `checked` has walked. `storage` finds the numbers that it refers to,
    `nested` reads the bytes in which a plain pickle holds a tensor's."""
    try:
        return _Reader(data, path, storage, nested).load()
    except ArtifactError:
        raise
    except (Exception, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArtifactError(path, reason, "a pickle of tensors and plain values", NEXT) from error


def _storage_type(name: str, path: Path) -> torch.dtype:
    kind = name.removesuffix("Storage")
    if kind == "Untyped":
        return torch.uint8
    if kind not in DTYPES:
        raise ArtifactError(path, f"a storage of type {name}", f"one of {', '.join(DTYPES)}")
    return DTYPES[kind]


def _plain_torch(name: str, path: Path) -> Any:
    if name == "device":
        return lambda *words: ":".join(str(word) for word in words)
    if name == "Size":
        return tuple
    if isinstance(getattr(torch, name), torch.dtype):
        return f"torch.{name}"
    raise ArtifactError(path, f"a request for torch.{name}", "tensors and plain values only", NEXT)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """What torch._utils._rebuild_tensor_v2 stands for; never larger than its storage."""
    whole = (offset, *size, *stride)
    if not isinstance(storage, Storage) or len(size) != len(stride):
        raise ValueError("a tensor without a storage")
    if not all(type(number) is int and number >= 0 for number in whole):
        raise ValueError(f"a tensor of shape {size!r:.60} and stride {stride!r:.60}")
    n, reach = 1, offset
    for length, step in zip(size, stride, strict=True):
        n *= length
        reach += step * max(length - 1, 0)
    room = storage.flat.numel()
    if n > room or (n and reach >= room):
        raise ValueError(f"a tensor of shape {tuple(size)} in a storage of {room} numbers")
    return torch.as_strided(storage.flat, size, stride, offset)


_REBUILD: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor": _tensor,
    "_rebuild_parameter": lambda tensor, *_: tensor,
    "_rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
