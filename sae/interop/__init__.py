"""SAEs of other libraries, opened safely and turned into PatchLens' own.

    python -m sae.interop SOURCE --to DIR [--format NAME]     convert, with a report and a self-check
    python -m sae.interop --list                              the formats
    SparseAutoencoder.from_other(SOURCE, …)                   the same, in memory

Knows which formats there are and how one is told from another; each has its own file, and
`sae.interop.recipe` has the algebra. Knows nothing of the model class, the Hub or screens.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from sae.config import BackboneRef, SAEConfig
from sae.errors import ArtifactError
from sae.interop import (
    clipscope,
    dictionary_learning,
    fastsae,
    overcomplete,
    patchsae,
    prisma,
    sae_for_vlm,
    saelens,
    saev,
    sparsify,
    visaebench,
)
from sae.interop.recipe import Reading, fold
from sae.interop.source import Source

READERS: tuple[ModuleType, ...] = (
    saelens,
    sparsify,
    fastsae,
    sae_for_vlm,
    dictionary_learning,
    visaebench,
    saev,
    prisma,
    clipscope,
    overcomplete,
    patchsae,
)
"""In the order in which they are asked whether a source is theirs."""
FORMATS: dict[str, str] = {reader.NAME: reader.TITLE for reader in READERS}

NOT_READ: tuple[str, ...] = saelens.NOT_READ
"""What libraries of this list write and no PatchLens SAE can compute, with the reason."""


@dataclass(frozen=True)
class Hints:
    """What a person says about a source that its files may not."""

    format: str | None = None
    backbone: str | None = None
    layer: int | None = None
    tokens: str | None = None
    k: int | None = None


@dataclass(frozen=True)
class Conversion:
    """An SAE of another library in PatchLens' words, and how it came about."""

    format: str
    cfg: SAEConfig
    tensors: dict[str, Tensor]
    reading: Reading


def detect(source: str | Path) -> str:
    """The name of the format of a folder or file; ArtifactError if it is none of them."""
    found = Source(_existing(source))
    for reader in READERS:
        if reader.detect(found):
            return reader.NAME
    raise ArtifactError(
        found.path,
        "no format that is known",
        f"one of {', '.join(FORMATS)}",
        "Name it with --format if the files were renamed, or give the folder that holds them.",
    )


def read(source: str | Path, hints: Hints | None = None) -> Conversion:
    """Read a folder or file of any format, `hints.format` or the one detected.

    Raises ArtifactError for damaged or unknown files, and ValueError where neither the files nor
    `hints` say which backbone and layer the activations come from.
    """
    hints = hints or Hints()
    path = _existing(source)
    name = hints.format or detect(path)
    if name not in FORMATS:
        raise ValueError(f"format {name!r}: expected one of {', '.join(FORMATS)}.")
    reader = {reader.NAME: reader for reader in READERS}[name]
    reading = reader.read(Source(path), hints)
    cfg, tensors = _folded(path, reading, hints)
    return Conversion(name, cfg, tensors, reading)


def _folded(path: Path, reading: Reading, hints: Hints) -> tuple[SAEConfig, dict[str, Tensor]]:
    id_ = hints.backbone or reading.backbone
    layer = reading.layer if hints.layer is None else hints.layer
    if id_ is None or layer is None:
        raise ValueError(
            f"{path} does not say which {'backbone' if id_ is None else 'layer'} its activations "
            "come from; give --backbone ID and --layer N (backbone=…, layer=… in Python)."
        )
    for name in ("backbone", "layer", "tokens"):
        given, told = getattr(hints, name), getattr(reading, name)
        if given is not None and told not in (None, given):
            reading.assumed.append(f"{name} {given} as given, though the files say {told}")
    tokens = hints.tokens or reading.tokens
    if tokens is None:
        tokens = "all"
        reading.assumed.append("tokens: all, since the files do not say")
    try:
        cfg, tensors = fold(reading.recipe, BackboneRef(id_, layer, tokens))
    except ValueError as error:
        raise ArtifactError(path, f"{error}", "a consistent SAE") from error
    for name, tensor in tensors.items():
        if not all(bool(end.isfinite()) for end in tensor.aminmax()):
            raise ArtifactError(path, f"infinity in {name} after folding", "finite numbers")
    return cfg, tensors


def _existing(source: str | Path) -> Path:
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"No file or folder {path}. Give the folder that holds the weights, or the file."
        )
    return path
