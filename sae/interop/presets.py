"""Published vision SAEs by short name.

Knows `presets.toml`, patterns from which the table is made: where each lies on the Hub, which files it
is, what shapes it must have, its backbone, layer, hook point, tokens, licence and citation. Downloading
is `sae.hub`'s, reading `sae.interop`'s. A preset whose files are not what the table says is refused,
never adapted.
"""

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from jaxtyping import Float
from torch import Tensor

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
    """Every file that is downloaded if it is there, by its path in the repository; * stands for one
    name, and "FOLDER/*" for its configs and its weights (safetensors before pickles)."""
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
    take: str = ""
    """"last": of several sources, that of the largest number; else NAME/RUN has to say which."""
    given: tuple[str, ...] = ()
    """Of "layer" and "tokens", what the files do not say and this row does."""


@cache
def table() -> dict[str, Preset]:
    """Every preset by name, in the table's order."""
    families = tomllib.loads(TABLE.read_text(encoding="utf-8"))["family"]
    return {preset.name: preset for family in families for preset in _members(family)}


def _members(family: dict[str, Any]) -> Iterator[Preset]:
    """Every combination of the lists of `each`, filled into the family's texts."""
    words, fields = family.get("words", {}), set(Preset.__dataclass_fields__)
    for lists in family.get("each", [{}]):
        for values in itertools.product(*lists.values()):
            row = {**family, **dict(zip(lists, values, strict=True))}
            for value in values:
                row |= words.get(str(value), {})
            row.setdefault("d_sae", row["d_in"] * row.get("x", 1))
            for name, text in row.items():  # a text may use those before it that use others
                row[name] = _filled(text, row)
            yield Preset(**{name: value for name, value in row.items() if name in fields})


def _filled(value: Any, row: dict[str, Any]) -> Any:
    """`value` with its {…} replaced by the row's entries, and theirs by others."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(_filled(text, row) for text in value)
    while isinstance(value, str) and "{" in value:
        value = value.format_map(row)
    return value


def is_preset(id_or_dir: str | Path) -> bool:
    """Whether this means a preset: "preset:…", or a name of the table that is no folder here."""
    if not isinstance(id_or_dir, str):
        return False
    return id_or_dir.startswith(PREFIX) or (id_or_dir in table() and not Path(id_or_dir).exists())


def find(name: str) -> Preset:
    """The preset of "preset:NAME[/RUN][@REVISION]" or "NAME"; ValueError lists what there is."""
    short = name.removeprefix(PREFIX).partition("@")[0].partition("/")[0]
    if short not in table():
        near = difflib.get_close_matches(short, table(), 8, 0.4) or list(table())[:8]
        raise ConfigError(
            f"no preset {short!r}; there are {len(table())}, among them {', '.join(near)}. "
            "`patchlens convert --list` shows them all."
        )
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
    norm: tuple[Float[Tensor, " d_in"], float] | None = None,
) -> Conversion:
    """Download (once) and read a preset; `norm` as in `Hints.norm`.

    Raises HubError if it cannot be had, ArtifactError if its files are not what the table says.
    """
    preset = find(name)
    access: dict[str, Any] = {
        "revision": revision or name.partition("@")[2] or None,
        "token": token,
        "local_files_only": local_files_only,
    }
    if preset.repo == "bundled":
        path = hub.local_folder(preset.repo, files=preset.files)
    else:
        chosen: list[str] = []
        choose = partial(_chosen, preset, name.partition("@")[0].partition("/")[2], chosen)
        folder = hub.snapshot(preset.repo, choose, **access)
        fit = [n for n in chosen if re.fullmatch(_pattern(preset.source), n)]
        path = folder / PurePosixPath(fit[0] if fit else preset.source)
    if preset.format == "patchlens":
        cfg, tensors = artifact.read(path)
        conversion = Conversion("patchlens", cfg, tensors, Reading(own(cfg, tensors)))
    else:
        told = {key: getattr(preset, key) for key in preset.given}
        conversion = interop.read(path, Hints(preset.format, preset.backbone, **told, norm=norm))
    _check(preset, path, conversion)
    return conversion


def _check(preset: Preset, path: Path, conversion: Conversion) -> None:
    """Insist that the files say what the table says, but for what is `given`: there they say nothing."""
    where, told = conversion.cfg.backbone, conversion.reading
    facts = (
        (
            "an SAE from {} to {}",
            (conversion.cfg.d_in, conversion.cfg.d_sae),
            (preset.d_in, preset.d_sae),
        ),
        ("backbone {}", (_model(told.backbone or where.id),), (_model(preset.backbone),)),
        ("layer {}", (where.layer if told.layer is None else told.layer,), (preset.layer,)),
        ("hook point {}", (told.hook or preset.hook,), (preset.hook,)),
        ("tokens {}", (told.tokens or where.tokens,), (preset.tokens,)),
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


def _chosen(preset: Preset, run: str, chosen: list[str], names: list[str]) -> list[str]:
    """Of a repository's files, those of the table; of several sources one. Kept in `chosen` too."""
    wanted: list[str] = []
    for pattern in preset.files:
        folder, _, last = pattern.rpartition("/")
        inside = [n for n in names if re.fullmatch(_pattern(pattern), n)]
        if last == "*":
            inside = [n for n in inside if not PurePosixPath(n).name.startswith("stats")]
            safe = [n for n in inside if n.endswith(".safetensors")]
            configs = [n for n in inside if n.endswith((".json", ".yaml", ".yml"))]
            inside = configs + (safe or [n for n in inside if n.endswith(PICKLES)])
        wanted += inside
    if "*" in preset.source:
        source = _one(preset, run, [n for n in wanted if re.fullmatch(_pattern(preset.source), n)])
        beside = PurePosixPath(source).parent
        wanted = [n for n in wanted if n == source or _is_config_in(beside, n)]
    elif not any(PurePosixPath(n).is_relative_to(preset.source) for n in wanted):
        wanted = []
    if not wanted:
        raise _missing(preset)
    chosen[:] = wanted
    return wanted


def _one(preset: Preset, run: str, sources: list[str]) -> str:
    """The source that `run` names, the only one, or the last."""
    runs = {PurePosixPath(n).parent.name: n for n in sources}
    if run and run not in runs:
        raise ConfigError(f"preset {preset.name} has no run {run!r}; there are: {', '.join(runs)}.")
    if run or len(sources) == 1:
        return runs[run] if run else sources[0]
    if not sources:
        raise _missing(preset)
    if preset.take == "last":
        return max(sources, key=lambda n: [int(d) for d in re.findall(r"\d+", n)])
    raise ConfigError(
        f"preset {preset.name} is one of {len(sources)} SAEs; say which: "
        f"preset:{preset.name}/RUN with RUN one of {', '.join(runs)}."
    )


def _is_config_in(folder: PurePosixPath, name: str) -> bool:
    return PurePosixPath(name).parent == folder and name.endswith(".json")


def _missing(preset: Preset) -> HubFileNotFound:
    folders = ", ".join(str(PurePosixPath(name).parent) for name in preset.files)
    what = f"cannot get {preset.source}" if preset.source != "." else f"no files in {folders}"
    return HubFileNotFound(
        f"{preset.repo}: {what}. The repository may have changed: give an earlier revision."
    )


def _pattern(path: str) -> str:
    return re.escape(path).replace(r"\*", "[^/]+")
