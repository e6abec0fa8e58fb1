"""Files that are written whole and read strictly.

Knows atomic replacement, JSON objects of known fields, and hashes. Knows nothing of what the files
mean. What is amiss with a file is an ArtifactError.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sae.errors import ArtifactError

_MAX_JSON_BYTES = 1 << 20


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ArtifactError when it is missing, too large or not an object."""
    if not path.is_file():
        raise ArtifactError(path, "no such file", "an artifact's folder", "Check the path.")
    if (size := path.stat().st_size) > _MAX_JSON_BYTES:
        raise ArtifactError(path, f"{size} bytes", f"at most {_MAX_JSON_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(path, f"{error}", "a JSON object") from error
    if not isinstance(content, dict):
        raise ArtifactError(path, f"a JSON {type(content).__name__}", "an object")
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


def typed_fields(
    path: Path, content: object, types: Mapping[str, tuple[type, ...]], prefix: str
) -> dict[str, Any]:
    """The known, complete and rightly typed fields of a JSON object."""
    if not isinstance(content, dict):
        raise ArtifactError(path, f"{prefix or 'content'} {content!r}", "an object")
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


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key that is written twice")
    return content


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain_key(value: object) -> str:
    """A text that is equal for equal JSON values, to look results up by."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
