"""Whose SAE this is, said where ours was expected, with the call that opens it.

Knows the file names that libraries leave behind, in a folder or in the listing of a Hub repository, and
which of them hold SAEs of language models. Opens no weights of a repository; of a folder, what the
formats' own `detect` and `read` open.
"""

import itertools
import re
from pathlib import Path, PurePosixPath
from typing import Any

from sae import hub, interop
from sae.errors import ArtifactError, PatchLensError
from sae.interop.foreign import language_model
from sae.interop.source import PICKLES, Hints, Source

_TEXT = {
    r"(?:.*/)?params\.npz": "Gemma Scope's (text): params.npz, of a Gemma language model",
    r"(?:.*/)?hyperparams\.json": "Llama Scope's (text): hyperparams.json, of a Llama language model",
}
_LAYOUTS = {
    r"(?P<at>.*/|)sae_weights\.safetensors": "saelens",
    r"(?P<at>.*/|)sae\.safetensors": "sparsify",
    r"(?P<at>.*/|)(?:backbone|final)/[^/]+": "fastsae",
    r"(?P<at>.*_(?:train|val)_activations_.*?/trainer_\d+/).*ae(?:_\d+)?\.pt": "sae_for_vlm",
    r"(?P<at>.*/|)(?:checkpoints/)?ae(?:_\d+)?\.pt": "dictionary_learning",
    r"(?P<at>.*/|)n_images_\d+\.pt": "prisma",
    r"(?P<at>.*\d+_resid/)\d+\.pt": "clipscope",
    r"(?P<at>.*layer_\d+/[^/]+/)sae\.pt": "saev",
}
_MOST_FILES = 2000
_WEIGHTS = (*PICKLES, ".npz", ".safetensors")


def advice(id_or_dir: str | Path, subfolder: str | None = None, **access: Any) -> str:
    """One or two sentences on what `id_or_dir` is, if it is no artifact of ours; "" if it may be one."""
    folder = Path(id_or_dir, subfolder or "")
    if folder.exists():
        return "" if _is_ours(folder) else _of_folder(folder)
    try:
        repo, _, pinned = str(id_or_dir).partition("@")
        revision = access.get("revision") or pinned or None
        names = hub.list_files(repo, revision=revision, token=access.get("token"))
    except (PatchLensError, ValueError):
        return ""
    inside = PurePosixPath(subfolder or "")
    names = [name for name in names if PurePosixPath(name).is_relative_to(inside)]
    ours = str(inside / "sae_weights.safetensors")
    return "" if {ours, str(inside / "config.json")} <= set(names) else _of_listing(repo, names)


def _is_ours(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "sae_weights.safetensors").is_file()


def _of_folder(folder: Path) -> str:
    """Of a folder or file here; what lies in folders below is told by its names alone."""
    home = folder if folder.is_dir() else folder.parent
    here = [p for p in home.glob("*") if p.is_file()] if folder.is_dir() else [folder]
    names = sorted(p.relative_to(home).as_posix() for p in here)
    if text := _text(names):
        return text
    source = Source(folder)
    try:
        name = interop.detect(folder)
        reading = interop.READERS[name].read(source, Hints(format=name))
    except (PatchLensError, OSError, ValueError) as error:
        name = _detected(folder)
        if not name:
            below = itertools.islice((p for p in home.rglob("*") if p.is_file()), _MOST_FILES)
            names = sorted(p.relative_to(home).as_posix() for p in below)
            return _of_listing(str(home), names) if folder.is_dir() else _unknown([folder.name])
        return f"It looks like {interop.READERS[name].TITLE}, but: {error}"
    if language_model(reading.backbone):
        return (
            f"It is an SAE of {reading.backbone}, a language model: PatchLens reads vision models."
        )
    missing = (("backbone", reading.backbone, "'ID'"), ("layer", reading.layer, "N"))
    words = [f"{key}={value}" for key, told, value in missing if told is None]
    given = ", ".join([repr(str(folder)), *words])
    return (
        f"It looks like {interop.READERS[name].TITLE}. Open it with "
        f"SparseAutoencoder.from_other({given}), or convert it once: "
        f"patchlens convert {folder} --to DIR."
    )


def _detected(folder: Path) -> str:
    try:
        return interop.detect(folder)
    except (ArtifactError, OSError):
        return ""


def _of_listing(repo: str, names: list[str]) -> str:
    if text := _text(names):
        return text
    if language_model(repo):
        return f"By its name {repo} has SAEs of a language model: PatchLens reads vision models."
    from sae.interop import presets

    if short := [p.name for p in presets.table().values() if p.repo == repo]:
        more = f" (and {len(short) - 1} more)" if len(short) > 1 else ""
        return f"It is published here by short name: from_pretrained('preset:{short[0]}'){more}."
    for pattern, name in _LAYOUTS.items():
        matches = [m for n in names if (m := re.fullmatch(pattern, n))]
        if not matches:
            continue
        at = sorted({m["at"].rstrip("/") for m in matches})
        place = f" --subfolder {at[0]}" if at[0] else ""
        if Path(repo).is_dir():
            repo, place = str(Path(repo, at[0])), ""
        more = f" (or another of {len(at)} folders)" if len(at) > 1 else ""
        title = interop.READERS[name].TITLE
        return (
            f"It looks like {title}. Open it with patchlens convert {repo}{place} --to DIR{more}."
        )
    return _unknown(names)


def _text(names: list[str]) -> str:
    for pattern, title in _TEXT.items():
        if any(re.fullmatch(pattern, name) for name in names):
            return f"It looks like {title}: PatchLens reads SAEs of vision models."
    return ""


def _unknown(names: list[str]) -> str:
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if not weights:
        return ""
    return (
        f"It holds {', '.join(weights[:3])}, in no format that is told by its files: convert it with "
        "patchlens convert --format NAME (patchlens convert --list names them)."
    )
