"""SAEs of other libraries, opened safely and turned into PatchLens' own.

    patchlens convert SOURCE --to DIR [--format NAME]         convert, with a report and a self-check
    patchlens convert --list                                  the formats
    SparseAutoencoder.from_other(SOURCE, …)                   the same, in memory

Knows which formats there are and how one is told from another; each has its own file, and
`sae.interop.foreign` has the algebra. A reader of your own joins them with `register_reader`
(docs/extending.md). Knows nothing of the model class, the Hub or screens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from sae.config import BackboneRef, SAEConfig
from sae.errors import ArtifactError, ConfigError
from sae.interop import (
    check,
    clip_topk,
    clipscope,
    dictionary_learning,
    equations,
    fastsae,
    msae,
    overcomplete,
    patchsae,
    prisma,
    sae_for_vlm,
    saelens,
    saev,
    sparsify,
    visaebench,
)
from sae.interop.check import Check
from sae.interop.foreign import Reading, fold, language_model
from sae.interop.source import Hints, Source


class Reader(Protocol):
    """What a format needs: a module of this package is one, and so is any object with these four."""

    NAME: str
    """The word for it in `--format` and `Hints.format`."""
    TITLE: str
    """One line for people: the library, and which files."""

    def detect(self, source: Source) -> bool:
        """Whether the source is in this format; cheap, and False rather than an error."""
        ...

    def read(self, source: Source, hints: Hints) -> Reading:
        """The SAE of the files, and what they say; ArtifactError where they are not as they should be."""
        ...


_OURS: tuple[Reader, ...] = (
    saelens,
    sparsify,
    fastsae,
    sae_for_vlm,
    dictionary_learning,
    visaebench,
    clip_topk,
    msae,
    saev,
    prisma,
    clipscope,
    overcomplete,
    patchsae,
)
READERS: dict[str, Reader] = {reader.NAME: reader for reader in _OURS}
"""By the name of the format, in the order in which they are asked whether a source is theirs."""

NOT_READ: tuple[str, ...] = saelens.NOT_READ
"""What libraries of this list write and no PatchLens SAE can compute, with the reason."""


@dataclass(frozen=True)
class Conversion:
    """An SAE of another library in PatchLens' words, and how it came about."""

    format: str
    cfg: SAEConfig
    tensors: dict[str, Tensor]
    reading: Reading
    check: Check | None = None
    """The self-check; None where nothing could be compared."""


def register_reader(reader: Reader) -> None:
    """Add a format; it is asked before all others. ConfigError if its name is taken."""
    if reader.NAME in READERS:
        raise ConfigError(f"there is a format {reader.NAME!r} already; give another name.")
    others = dict(READERS)
    READERS.clear()
    READERS.update({reader.NAME: reader, **others})


def detect(source: str | Path) -> str:
    """The name of the format of a folder or file; ArtifactError if it is none of them."""
    return _detect(Source(_existing(source)))


def read(source: str | Path, hints: Hints | None = None) -> Conversion:
    """Read a folder or file of any format, `hints.format` or the one detected.

    What was read is run beside the format's own equations, which are written apart from the reader.
    Raises ArtifactError for damaged or unknown files and for a reading that computes something else than
    its library, and ValueError where neither the files nor `hints` say which backbone and layer the
    activations come from.
    """
    hints = hints or Hints()
    files = Source(_existing(source))
    name = hints.format or _detect(files)
    if name not in READERS:
        raise ConfigError(f"format {name!r}: expected one of {', '.join(READERS)}.")
    try:
        reading = READERS[name].read(files, hints)
        if reading.reference is None:
            reading.reference = equations.run_of(name, files, reading.weights, hints)
        cfg, tensors = _folded(files.path, reading, hints)
        check = _checked(files.path, cfg, tensors, reading)
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        # a value of another kind than its place in the format: no reader insists on those it does not need
        raise ArtifactError(
            files.path, f"a value of the wrong kind ({error})", f"files as {name} writes them"
        ) from error
    return Conversion(name, cfg, tensors, reading, check)


def _checked(
    path: Path, cfg: SAEConfig, tensors: dict[str, Tensor], reading: Reading
) -> Check | None:
    """The self-check, passed; ArtifactError if it fails, and a word to the person if there is none."""
    if reading.reference is None:
        reading.assumed.append("the reader is right: it gives no equations to check it with")
        return None
    outcome = check.compare(check.folded(cfg, tensors), reading.reference, tensors)
    if not outcome.told:
        reading.assumed.append("the reading is right: no latent fired, so it could not be checked")
        return None
    if not outcome.passed:
        raise ArtifactError(
            path,
            f"self-check FAILED {outcome}",
            f"differences below {check.TOLERANCE:g}",
            "The files are not in the format they were taken for, or it has changed.",
        )
    return outcome


def _detect(source: Source) -> str:
    for name, reader in READERS.items():
        if reader.detect(source):
            return name
    raise ArtifactError(
        source.path,
        f"no format that is known{_loose(source.path)}",
        f"one of {', '.join(READERS)}",
        "Name it with --format if the files were renamed, or give the folder that holds them.",
    )


def _loose(path: Path) -> str:
    """What lies there that might be weights, without a file that says whose."""
    if path.suffix == ".npz":
        return ", but a NumPy archive (Gemma Scope, of language models, publishes such)"
    if path.suffix == ".safetensors":
        return ", but a safetensors file without the config that its library writes beside it"
    names = sorted(p.name for p in path.glob("*") if p.suffix in (".npz", ".safetensors"))
    return f", but {', '.join(names[:3])}" if path.is_dir() and names else ""


def _folded(path: Path, reading: Reading, hints: Hints) -> tuple[SAEConfig, dict[str, Tensor]]:
    id_ = hints.backbone or reading.backbone
    layer = reading.layer if hints.layer is None else hints.layer
    if id_ is None or layer is None:
        raise ConfigError(
            f"{path} does not say which {'backbone' if id_ is None else 'layer'} its activations "
            "come from; give --backbone ID and --layer N (backbone=…, layer=… in Python)."
        )
    if hints.backbone is None and language_model(id_):
        raise ArtifactError(
            path,
            f"an SAE of {id_}, a language model",
            "one of a vision model",
            "If it is of a model that sees, name that: --backbone ID.",
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
        cfg, tensors = fold(reading.sae, BackboneRef(id_, layer, tokens))
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
