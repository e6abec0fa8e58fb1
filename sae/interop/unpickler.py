"""An unpickler that runs nothing: a handful of names, rebuilt here, and no code of theirs.

Knows which names a checkpoint may mention, how torch describes a tensor, and what a pickle may cost: how
many opcodes, which keys, and how little of a value an error shows. A few bytes of pickle can describe a
tuple of tuples of tuples whose hash or text takes hours, since the same part may be meant twice at every
level; so nothing is hashed here but plain keys, and no value of a pickle is ever written out whole.
Any name that is not known is refused: what a file asks for is never imported or called. Knows no
containers and no files; `sae.interop.pickles` opens those.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from sae.errors import ArtifactError

MAX_OPCODES = 50_000
MAX_COPIED = 1024
"""Most entries that one instruction may copy: what a pickle lists once it can ask for many times."""
NEXT = "Ask whoever made the file for safetensors."
_BANNED = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
_BANNED |= {"FROZENSET"}
_SHOWN = 60
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


def checked(data: Any, path: Path, limit: int = MAX_OPCODES) -> int:
    """Walk at most `limit` opcodes without running them; returns where the pickle ends."""
    n, largest = 0, 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            n += 1
            if opcode.name in _BANNED:
                raise ArtifactError(path, f"pickle opcode {opcode.name}", "plain data", NEXT)
            if "PUT" in opcode.name:
                largest = max(largest, int(argument or 0))
            if n > limit or largest > limit:
                raise ArtifactError(path, "a pickle beyond all bounds", "a checkpoint", NEXT)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(path, f"{error}", "a whole pickle") from error
    return data.tell()


def key(value: Any) -> Any:
    """`value` if it is plain enough to be hashed at once; ValueError otherwise.

    Whole numbers stay below the prime by which Python reduces them: others can be made to collide.
    """
    small = not isinstance(value, int) or value.bit_length() <= 60
    if small and (value is None or isinstance(value, (str, bytes, int, float, Tensor))):
        return value
    raise ValueError(f"{shown(value)} as a key")


def few(items: Any) -> Any:
    """`items` if it is a list, tuple or dict of no more than MAX_COPIED; ValueError otherwise."""
    if not isinstance(items, (list, tuple, dict)) or len(items) > MAX_COPIED:
        raise ValueError(f"{shown(items)} to copy")
    return items


def shown(value: Any) -> str:
    """Short text for an error: plain values as they are, anything else by its kind and length."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of very many digits"
    if isinstance(value, (str, bytes)):
        return repr(value[:_SHOWN])
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    n = f" of {len(value)}" if isinstance(value, (list, tuple, dict, set)) else ""
    return f"a {type(value).__name__}{n}"


class _Entries(dict):
    """The entries of a dict or OrderedDict."""

    def __init__(self, pairs: Any = ()) -> None:
        pairs = few(pairs)
        given = pairs.items() if isinstance(pairs, dict) else pairs
        super().__init__((key(name), value) for name, value in given)


class _Default(dict):
    """A defaultdict's entries; what it would make of missing ones is dropped."""

    def __init__(self, *_: object) -> None:
        super().__init__()


def _set(items: Any = ()) -> set:
    return {key(item) for item in few(items)}


def _size(items: Any = ()) -> tuple:
    return tuple(few(items))


_CONTAINERS = {
    ("collections", "defaultdict"): _Default,
    ("builtins", "dict"): _Entries,
    ("__builtin__", "dict"): _Entries,
    ("collections", "OrderedDict"): _Entries,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("torch", "Size"): _size,
}


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
        dicts = [part for part in parts[:2] if isinstance(part, dict) and part]
        if len(dicts) == 1 and not self.values:
            self.values = dicts[0]  # not copied: a pickle may mean the same dict many times
            return
        for part in dicts:
            self.values = {**few(self.values), **few(part)}


class Storage(NamedTuple):
    """Where a tensor's numbers lie: a flat tensor of one dtype, perhaps not filled yet."""

    flat: Shaped[Tensor, " n"]


_MAX_AXES = 8
StorageOf = Callable[[Any], Storage]
Parse = Callable[[bytes, Path], Any]


class _Reader(pickle._Unpickler):
    """An unpickler that knows a handful of names and none of their code.

    It is pickle's own in Python, since the one in C cannot be asked what it hashes.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self, data: bytes, path: Path, storage: StorageOf | None, nested: Parse | None
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._storage, self._parse = path, storage, nested

    def persistent_load(self, pid: Any) -> Storage:
        if self._storage is None:
            raise ArtifactError(self._path, f"a reference to {shown(pid)}", "data", NEXT)
        return self._storage(pid)

    def _fill(self, pairs: list) -> None:
        """Enter key, value, key, value … into the dict on top of the stack."""
        if not isinstance(self.stack[-1], dict):
            raise ValueError(f"{shown(self.stack[-1])} that is written to")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.stack[-1][key(name)] = value

    def _setitem(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self._fill([name, value])

    def _setitems(self) -> None:
        self._fill(self.pop_mark())

    def _dict(self) -> None:
        pairs = self.pop_mark()
        self.append({})
        self._fill(pairs)

    def _additems(self) -> None:
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise ValueError(f"{shown(self.stack[-1])} that is added to")
        self.stack[-1].update(key(item) for item in items)

    def _build(self) -> None:
        """Give a Record its attributes; those of dicts and tensors are dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.__setstate__(state)
        elif not isinstance(target, (dict, Tensor)):
            raise ValueError(f"attributes of {shown(target)}")

    dispatch[pickle.SETITEM[0]] = _setitem
    dispatch[pickle.SETITEMS[0]] = _setitems
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.ADDITEMS[0]] = _additems
    dispatch[pickle.BUILD[0]] = _build

    def _nested(self, raw: Any) -> Storage:
        """A storage that a plain pickle holds as bytes of torch's older format."""
        storage = None
        if isinstance(raw, bytes) and self._parse is not None:
            storage = self._parse(raw, self._path)
        if not isinstance(storage, Storage):
            raise ArtifactError(self._path, "bytes that are no storage", "a tensor's numbers", NEXT)
        return storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch._utils" and name in _REBUILD:
            return _REBUILD[name]
        if module == "torch.storage" and name == "_load_from_bytes":
            return lambda raw: self._nested(raw)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _storage_type(name, self._path)
        if (module, name) == ("torch", "device"):
            return lambda *words: ":".join(str(key(word)) for word in words[:2])
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return f"torch.{name}"
        config = module == "__main__" or f"{module}.".startswith(_CONFIG_MODULES)
        part = f"{module}.".startswith(_MODULE_PACKAGES)
        if name.isidentifier() and (part or (config and name[0].isupper())):
            return type(name, (Record,), {"class_name": f"{module}.{name}"})
        raise ArtifactError(
            self._path, f"a request for {module}.{name}", "tensors and plain values only", NEXT
        )


def run(data: bytes, path: Path, storage: StorageOf | None, nested: Parse | None) -> Any:
    """Unpickle `data`, which `checked` has walked. `storage` finds the numbers that it refers
    to, `nested` reads the bytes in which a plain pickle holds a tensor's."""
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


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """What torch._utils._rebuild_tensor_v2 stands for; never larger than its storage."""
    if not isinstance(storage, Storage) or not len(size) == len(stride) <= _MAX_AXES:
        raise ValueError("a tensor without a storage, or of very many axes")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in (offset, *size, *stride)):
        raise ValueError("a tensor whose shape and stride are no sizes")
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
