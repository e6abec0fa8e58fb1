"""Half-done indexes on disk, so that a pass can be stopped, taken up again, or shared by processes.

Knows `Gathered` and files; knows nothing of models. A part is written whole or not at all, with a hash of
all that is in it. Parts say which images they hold: a part within another one (left over from a merge) is
passed over.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from sae.concepts.build.gathering import Gathered, Settings
from sae.errors import ArtifactError
from sae.storage import read_arrays, write_arrays

_SUFFIX = ".part.safetensors"
_NEXT = "Delete it, or run without --resume."


def save_part(
    folder: Path, name: str, gathered: Gathered, fingerprint: Mapping[str, object]
) -> Path:
    """Write what was gathered, with what another part must share to fit."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{_SUFFIX}"
    write_arrays(path, gathered.state(), {**fingerprint, **gathered.fingerprint()})
    return path


def parts_in(folder: Path) -> list[Path]:
    """All parts of a folder, by name."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def load_parts(
    folder: Path,
    settings: Settings,
    fingerprint: Mapping[str, object],
    *,
    damaged: Callable[[Path, ArtifactError], None] | None = None,
) -> Gathered | None:
    """All parts of a folder merged; None if there are none.

    ArtifactError for a part of another SAE, data set or setting. So is a damaged one, or, with `damaged`, it
    is told to that and left out.
    """
    parts = []
    for path in parts_in(folder):
        try:
            arrays, about = read_arrays(path, _NEXT)
        except ArtifactError as error:
            if damaged is None:
                raise
            damaged(path, error)
            continue
        _check_fits(path, about, settings, fingerprint)
        try:
            parts.append(Gathered.from_state(settings, arrays))
        except (KeyError, ValueError, IndexError) as error:
            raise ArtifactError(path, f"{error}", "part of an index", _NEXT) from error
    parts.sort(key=lambda part: -int(part.counts["seen"].sum()))
    if not parts:
        return None
    merged = parts[0]
    for part in parts[1:]:
        if not (part.counts["seen"] & ~merged.counts["seen"]).any():
            continue
        merged.merge(part)
    return merged


def remove_parts(folder: Path) -> None:
    """Delete all parts, and the folder if that leaves it empty."""
    for path in parts_in(folder):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _check_fits(
    path: Path, about: Mapping[str, object], settings: Settings, fingerprint: Mapping[str, object]
) -> None:
    wanted = {**fingerprint, **settings.__dict__}
    for key, value in wanted.items():
        if about.get(key) != value:
            raise ArtifactError(
                path,
                f"{key} {about.get(key)!r}",
                f"{value!r}, as asked for now",
                "Give the settings of the interrupted run, or run without --resume to start again.",
            )
