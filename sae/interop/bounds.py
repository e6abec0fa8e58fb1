"""What a pickle may cost: how many opcodes, which keys, and how little of a value an error shows.

A few bytes of pickle can describe a tuple of tuples of tuples whose hash or text takes hours, since
the same part may be meant twice at every level. So nothing is hashed here but plain keys, and no
value of a pickle is ever written out whole. Knows pickle's opcodes; knows no files and no formats.
"""

import pickletools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.archive import Stream

MAX_OPCODES = 50_000
MAX_COPIED = 1024
"""Most entries that one instruction may copy: what a pickle lists once it can ask for many times."""
NEXT = "Ask whoever made the file for safetensors."
_BANNED = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
_BANNED |= {"FROZENSET"}
_SHOWN = 60


def checked(data: Stream, path: Path, limit: int = MAX_OPCODES) -> int:
    """Walk at most `limit` opcodes without running them; returns where the pickle ends."""
    n, largest = 0, 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            n += 1
            if opcode.name in _BANNED:
                raise ArtifactError(path, f"pickle opcode {opcode.name}", "plain data", NEXT)
            if "PUT" in opcode.name:
                largest = max(largest, int(argument))
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


def few(items: Any) -> Iterable[Any]:
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
