"""Files that are written whole, say by a hash what is in them, and are read strictly.

Knows atomic replacement, JSON objects of known fields, arrays by name, and hashes. Knows nothing of what
the files mean. What is amiss with a file is an ArtifactError.

A *seal* is the sha256 of what a JSON object says, written into it under SEAL: whatever was altered since is
found when the object is read. Files of older versions have none; they open with a warning.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae.errors import AGAIN, ArtifactError

if TYPE_CHECKING:
    import numpy as np

SEAL = "content_sha256"
_ABOUT = "about"
_MAX_JSON_BYTES = 1 << 20
ROOM = 1 << 20
"""What any command needs to write, at least."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ArtifactError when it is missing, too large or not an object."""
    if not path.is_file():
        raise ArtifactError(path, "no such file", "an artifact's folder", "Check the path.")
    return read_json_value(path, dict, _MAX_JSON_BYTES)


def read_json_value(path: Path, kind: type, max_bytes: int) -> Any:
    """Read a JSON file whose content is a `kind`, and whose numbers are finite and fit into 64 bits."""
    if (size := path.stat().st_size) > max_bytes:
        raise ArtifactError(path, f"{size} bytes", f"at most {max_bytes}")
    name = "an object" if kind is dict else f"a {kind.__name__}"
    numbers: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite}
    numbers["parse_constant"] = _finite
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_no_twins, **numbers)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(path, f"{error}", f"a JSON {name.split()[-1]}") from error
    if not isinstance(content, kind):
        raise ArtifactError(path, f"a JSON {type(content).__name__}", name)
    return content


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, as editors save it: UTF-8, with or without a mark at its start.

    ValueError if it is in another encoding.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    return [line.strip() for line in text.splitlines()]


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the hash of what it says, for `check_seal` to compare when it is read again."""
    return {**content, SEAL: _content_sha256(content)}


def check_seal(path: Path, content: Mapping[str, Any], next_step: str = AGAIN) -> None:
    """ArtifactError if what was read from `path` is not what was sealed; a warning if nothing was."""
    if SEAL not in content:
        if damaged := [name for name in content if _is_almost(name, SEAL)]:
            raise ArtifactError(path, f"an entry {damaged[0]!r}", SEAL, next_step)
        warn_of_age(path)
        return
    digest = _content_sha256({key: value for key, value in content.items() if key != SEAL})
    if digest != content[SEAL]:
        raise ArtifactError(
            path,
            f"content with the sha256 {digest[:12]}…",
            f"{str(content[SEAL])[:12]}…, as it was written: something in it was altered",
            f"{next_step} If it was altered on purpose, delete its entry {SEAL}.",
        )


def read_sealed(path: Path, next_step: str = AGAIN) -> dict[str, Any]:
    """Read a JSON object that was written `sealed`, and compare; the seal itself is left out."""
    content = read_json(path)
    check_seal(path, content, next_step)
    return {key: value for key, value in content.items() if key != SEAL}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its seal, atomically, for `read_sealed`."""
    write_json(path, sealed(content))


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]", about: Mapping[str, Any]) -> None:
    """Write arrays by name and JSON `about` them as safetensors, atomically, with a hash of both."""
    import numpy as np
    from safetensors.numpy import save_file

    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(about, sort_keys=True)
    with replacing(path) as temporary:
        save_file(whole, temporary, metadata={_ABOUT: text, "sha256": _arrays_sha256(whole, text)})


def read_arrays(path: Path, next_step: str) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """What `write_arrays` wrote; ArtifactError if anything of it was altered."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata.get(_ABOUT, "{}")
        about = json.loads(text)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(path, f"{error}", "a whole safetensors file", next_step) from error
    if "sha256" not in metadata:
        warn_of_age(path)
    elif (digest := _arrays_sha256(arrays, text)) != metadata["sha256"]:
        raise ArtifactError(
            path, f"arrays with the sha256 {digest[:12]}…", metadata["sha256"][:12] + "…", next_step
        )
    return arrays, about


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path, room: int = ROOM, option: str = "--out") -> None:
    """Find out before any work whether `room` bytes can be written into `folder`, which need not be there.

    OSError with one sentence if not; nothing is left behind.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            left = room
            while left > 0:
                left -= file.write(bytes(min(left, ROOM)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(
            f"nothing can be written into {folder}: {error.strerror or error}. Give another {option}, or "
            f"make room ({-(-room // ROOM)} MiB) or leave to write there."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            for place in new:
                place.rmdir()


def typed_fields(
    path: Path, content: object, types: Mapping[str, tuple[type, ...]], prefix: str
) -> dict[str, Any]:
    """The known, complete and rightly typed fields of a JSON object, without its seal."""
    if not isinstance(content, dict):
        raise ArtifactError(path, f"{prefix or 'content'} {content!r}", "an object")
    content = {key: value for key, value in content.items() if prefix or key != SEAL}
    for key in content:
        if key not in types:
            known = ", ".join(sorted(types))
            raise ArtifactError(path, f"unknown key {prefix}{key!r}", f"only {known}")
    for key, allowed in types.items():
        if key not in content and type(None) not in allowed:
            raise ArtifactError(path, f"no key {prefix}{key!r}", "it to be there")
        if not is_a(content.get(key), *allowed):
            names = " or ".join(t.__name__ for t in allowed)
            raise ArtifactError(path, f"{prefix}{key} = {content.get(key)!r}", names)
    return dict(content)


def is_a(value: object, *types: type) -> bool:
    """isinstance, but JSON's true and false are not whole numbers."""
    return isinstance(value, types) and not isinstance(value, bool)


def _is_almost(name: str, other: str) -> bool:
    """Whether one letter differs: a bit that flipped in a seal's name takes nothing of the seal away."""
    return len(name) == len(other) and sum(map(str.__ne__, name, other)) == 1


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key that is written twice")
    return content


def _whole(text: str) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"the number {text[:20]}…, beyond 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]}, which is not finite")
    return number


def _content_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(plain_key(content).encode()).hexdigest()


def _arrays_sha256(arrays: "Mapping[str, np.ndarray]", about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def warn_of_age(path: Path) -> None:
    """Say that a file cannot be told from an altered one."""
    warnings.warn(
        f"{path} is of an older PatchLens and has no hash of its content, so it cannot be told "
        "whether it was altered. Save it again to give it one.",
        stacklevel=4,
    )


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_key(value: object) -> str:
    """A text that is equal for equal JSON values, to look results up by."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
