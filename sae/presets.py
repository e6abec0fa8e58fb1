"""Published vision SAEs by short name.

Knows `presets.toml`: where each lies on the Hub, which files it is, what shapes it must have, its
backbone, layer, tokens, licence and citation. Downloading is `sae.hub`'s, reading `sae.interop`'s.
A preset whose files are not what the table says is refused, never adapted.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from torch import Tensor

from sae import artifact, hub, interop
from sae.config import SAEConfig
from sae.storage import ArtifactError

TABLE = Path(__file__).resolve().parent / "presets.toml"
PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    """One row of the table."""

    name: str
    title: str
    repo: str
    """A Hub id, or "bundled"."""
    format: str
    """A name of `sae.interop.FORMATS`, or "patchlens"."""
    files: tuple[str, ...]
    """Every file that is downloaded, by its path in the repository."""
    source: str
    """The folder or file among them that the reader is given."""
    backbone: str
    layer: int
    tokens: str
    d_in: int
    d_sae: int
    license: str
    citation: str


@cache
def table() -> dict[str, Preset]:
    """Every preset by name, in the table's order."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: Preset(name=name, **{**row, "files": tuple(row["files"])})
        for name, row in rows.items()
    }


def is_preset(id_or_dir: str | Path) -> bool:
    """Whether this means a preset: "preset:…", or a name of the table that is no folder here."""
    if not isinstance(id_or_dir, str):
        return False
    return id_or_dir.startswith(PREFIX) or (id_or_dir in table() and not Path(id_or_dir).exists())


def find(name: str) -> Preset:
    """The preset of "preset:NAME" or "NAME"; ValueError lists what there is."""
    short = name.removeprefix(PREFIX)
    if short not in table():
        raise ValueError(f"no preset {short!r}; there are: {', '.join(table())}.")
    return table()[short]


def load(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> tuple[SAEConfig, dict[str, Tensor]]:
    """Download (once) and read a preset: its config and weights.

    Raises HubError if it cannot be had, ArtifactError if its files are not what the table says.
    """
    preset = find(name)
    folder = hub.local_folder(
        preset.repo,
        files=preset.files,
        revision=revision,
        token=token,
        local_files_only=local_files_only,
    )
    path = folder / PurePosixPath(preset.source)
    if preset.format == "patchlens":
        cfg, tensors = artifact.read(path)
    else:
        hints = interop.Hints(preset.format, preset.backbone, preset.layer, preset.tokens)
        found = interop.read(path, hints)
        cfg, tensors = found.cfg, found.tensors
    if (cfg.d_in, cfg.d_sae) != (preset.d_in, preset.d_sae):
        raise ArtifactError(
            path,
            f"an SAE from {cfg.d_in} to {cfg.d_sae}",
            f"{preset.d_in} to {preset.d_sae} for preset {preset.name}",
            "The repository may have changed: give an earlier revision.",
        )
    return cfg, tensors
