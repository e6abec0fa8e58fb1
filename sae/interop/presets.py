"""Published vision SAEs by short name.

Knows `presets.toml`: where each lies on the Hub, which files it is, what shapes it must have, its
backbone, layer, hook point, tokens, licence and citation. Downloading is `sae.hub`'s, reading
`sae.interop`'s. A preset whose files are not what the table says is refused, never adapted.
"""

import tomllib
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from sae import artifact, hub, interop
from sae.config import TokenPolicy
from sae.errors import ArtifactError, ConfigError, HubFileNotFound
from sae.interop import Conversion, Hints
from sae.interop.foreign import Reading, own
from sae.interop.source import PICKLES

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
    """A name of `sae.interop.READERS`, or "patchlens"."""
    files: tuple[str, ...]
    """Every file that is downloaded, by its path in the repository; with "FOLDER/*", its JSON and its
    weights (safetensors before pickles), whatever they are called."""
    source: str
    """The folder or file among them that the reader is given."""
    backbone: str
    layer: int
    hook: str
    """The hook point in the words of whoever trained it."""
    tokens: TokenPolicy
    d_in: int
    d_sae: int
    license: str
    """Of the weights, as the Hub spells it; "unknown" where the repository does not state one."""
    code_license: str
    """Of the code that trained them."""
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
    """The preset of "preset:NAME[@REVISION]" or "NAME"; ValueError lists what there is."""
    short = name.removeprefix(PREFIX).partition("@")[0]
    if short not in table():
        raise ConfigError(f"no preset {short!r}; there are: {', '.join(table())}.")
    return table()[short]


def artifact_of(id_or_dir: str | Path) -> str | Path:
    """Where a preset of ours lies, for what lies beside its SAE; anything but a preset as it is.

    ArtifactError for a preset that another library wrote: it has an SAE and nothing else.
    """
    if not is_preset(id_or_dir):
        return id_or_dir
    preset = find(str(id_or_dir))
    if preset.format != "patchlens":
        raise ArtifactError(
            Path(preset.name),
            f"a published SAE ({preset.format})",
            "an artifact of ours; this one has no concept index",
            f"Convert it (patchlens convert preset:{preset.name} --to DIR) and build one: "
            "patchlens index --sae DIR --data IMAGES.",
        )
    return preset.repo


def load(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Conversion:
    """Download (once) and read a preset.

    Raises HubError if it cannot be had, ArtifactError if its files are not what the table says.
    """
    preset = find(name)
    access: dict[str, Any] = {
        "revision": revision or name.partition("@")[2] or None,
        "token": token,
        "local_files_only": local_files_only,
    }
    if any(name.endswith("/*") for name in preset.files):
        folder = hub.snapshot(preset.repo, partial(_chosen, preset), **access)
    else:
        folder = hub.local_folder(preset.repo, files=preset.files, **access)
    path = folder / PurePosixPath(preset.source)
    if preset.format == "patchlens":
        cfg, tensors = artifact.read(path)
        found = Conversion("patchlens", cfg, tensors, Reading(own(cfg, tensors)))
    else:
        found = interop.read(path, Hints(preset.format, preset.backbone))
    _check(preset, path, found)
    return found


def _check(preset: Preset, path: Path, found: Conversion) -> None:
    """Insist that the files say what the table says; layer and tokens come from them alone."""
    where, told = found.cfg.backbone, found.reading
    facts = (
        ("an SAE from {} to {}", (found.cfg.d_in, found.cfg.d_sae), (preset.d_in, preset.d_sae)),
        ("backbone {}", (_model(told.backbone or where.id),), (_model(preset.backbone),)),
        ("layer {}", (where.layer,), (preset.layer,)),
        ("hook point {}", (told.hook or preset.hook,), (preset.hook,)),
        ("tokens {}", (where.tokens,), (preset.tokens,)),
    )
    for words, got, expected in facts:
        if got != expected:
            raise ArtifactError(
                path,
                words.format(*got),
                f"{words.format(*expected)} for preset {preset.name}",
                "The repository may have changed: give an earlier revision.",
            )


def _model(id_: str) -> str:
    """A backbone's id without the prefix by which open_clip knows where it lies."""
    return id_.rpartition(":")[2].lower()


def _chosen(preset: Preset, names: list[str]) -> list[str]:
    """Of a repository's files, those of the table; of its "FOLDER/*" the JSON and the weights."""
    wanted = [name for name in preset.files if not name.endswith("/*")]
    folders = [PurePosixPath(name).parent for name in preset.files if name.endswith("/*")]
    for folder in folders:
        inside = [n for n in names if PurePosixPath(n).parent == folder]
        inside = [n for n in inside if not PurePosixPath(n).name.startswith("stats")]
        safe = [n for n in inside if n.endswith(".safetensors")]
        wanted += [n for n in inside if n.endswith(".json")]
        wanted += safe or [n for n in inside if n.endswith(PICKLES)]
    if not wanted:
        raise HubFileNotFound(
            f"{preset.repo}: no files in {', '.join(map(str, folders))}. The repository may have "
            "changed: give an earlier revision."
        )
    return wanted
