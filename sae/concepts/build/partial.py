"""Half-done indexes on disk, so that a pass can be stopped, taken up again, or shared by processes.

Knows `Gathered` and files; knows nothing of models. A part is written whole or not at all. Parts say which
images they hold: a part within another one (left over from a merge) is passed over.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sae.concepts.build.gathering import Gathered, Settings
from sae.errors import ArtifactError
from sae.storage import replacing

_SUFFIX = ".part.safetensors"


def save_part(
    folder: Path, name: str, gathered: Gathered, fingerprint: Mapping[str, object]
) -> Path:
    """Write what was gathered, with what another part must share to fit."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{_SUFFIX}"
    about = {**fingerprint, **gathered.fingerprint()}
    arrays = {key: np.ascontiguousarray(array) for key, array in gathered.state().items()}
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"about": json.dumps(about, sort_keys=True)})
    return path


def parts_in(folder: Path) -> list[Path]:
    """All parts of a folder, by name."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def load_part(path: Path, settings: Settings, fingerprint: Mapping[str, object]) -> Gathered:
    """Read a part; ArtifactError if it is damaged, or of another SAE, data set or setting."""
    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            _check_fits(path, about, settings, fingerprint)
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return Gathered.from_state(settings, arrays)
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtifactError(
            path, f"{error}", "part of an index", "Delete it, or run without --resume."
        ) from error


def load_parts(
    folder: Path, settings: Settings, fingerprint: Mapping[str, object]
) -> Gathered | None:
    """All parts of a folder merged; None if there are none."""
    parts = [load_part(path, settings, fingerprint) for path in parts_in(folder)]
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
