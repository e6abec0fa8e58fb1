"""The files that an SAE of another library came in, read safely and checked strictly.

Knows folders, JSON, safetensors and (through `sae.interop.pickles`) pickled tensors, and how to
insist on names, shapes and dtypes. Knows nothing of any one library's format.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae.config import TokenPolicy
from sae.errors import ArtifactError
from sae.interop.pickles import Record, read_pickle, state_dict_of
from sae.interop.unpickler import shown
from sae.storage import is_a, read_json

PICKLES = (".pt", ".pth", ".pkl", ".pkl.gz", ".bin")
MAX_TENSORS = 256
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16)


@dataclass(frozen=True)
class Hints:
    """What a person says about a source that its files may not."""

    format: str | None = None
    backbone: str | None = None
    layer: int | None = None
    tokens: TokenPolicy | None = None
    k: int | None = None
    norm: tuple[Float[Tensor, " d_in"], float] | None = None
    """Mean (d) and size by which activations were centred and divided before this SAE saw them."""


@dataclass(frozen=True)
class Source:
    """A folder, or one file of it that was named. All readers share one, so that each pickled file is
    read once."""

    path: Path
    _read: dict[Path, Any] = dataclasses.field(default_factory=dict, repr=False)

    def at(self, path: Path) -> "Source":
        """Another folder or file that belongs to this source."""
        return Source(path, self._read)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def weights(self, names: Sequence[str] = ()) -> Path | None:
        """The file that was named, else the first of `names`, else the only pickle of the folder."""
        if self.path.is_file():
            return self.path if self.path.name.endswith((*PICKLES, ".safetensors")) else None
        for name in names:
            if self.has(name):
                return self.folder / name
        pickled = sorted(p for p in self.folder.glob("*") if p.name.endswith(PICKLES))
        return pickled[0] if len(pickled) == 1 else None

    def newest(self, stem: str) -> Path | None:
        """Of the files `stem`N.pt, the one of the largest N."""
        names = re.compile(re.escape(stem) + r"([0-9]+)\.pt")
        numbered = [(int(m[1]), p) for p in self.folder.glob("*") if (m := names.fullmatch(p.name))]
        return max(numbered)[1] if numbered else None

    def pickle(self, path: Path) -> Any:
        """The content of a pickled file, read once however many formats ask."""
        if path not in self._read:
            self._read[path] = read_pickle(path)
        return self._read[path]

    def config(self, *names: str) -> tuple[Path, dict[str, Any]] | None:
        """The first JSON object of these names beside the weights, or None."""
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name, read_json(self.folder / name)
        return None

    def need(self, *names: str) -> tuple[Path, dict[str, Any]]:
        """As `config`; ArtifactError if there is none."""
        config = self.config(*names)
        if config is None:
            raise ArtifactError(
                self.folder / names[0], "no such file", "a config beside the weights"
            )
        return config


def tensors_of(source: Source, path: Path | None, *names: str) -> dict[str, Tensor]:
    """Every tensor of a safetensors or pickled file, nothing else of it."""
    if path is None or not path.is_file():
        raise ArtifactError(source.folder, "no weights", f"a file like {' or '.join(names)}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    content = source.pickle(path)
    tensors = state_dict_of(content)
    if not tensors:
        kind = content.class_name if isinstance(content, Record) else type(content).__name__
        raise ArtifactError(path, f"a {kind} without tensors", "a state dict")
    return tensors


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, mapped; the library compares shapes with the file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise ArtifactError(path, f"{len(names)} tensors", f"at most {MAX_TENSORS}")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(path, f"{error}", "a whole safetensors file") from error


def take(
    path: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, str],
    *,
    optional: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The tensors of `shapes` as float32, after insisting on names, shapes, dtypes and finiteness.

    A shape is a word of letters, one a dimension ("dF", "F", "" for a scalar); the same letter is
    the same length everywhere, and `sizes` may say which. Scalars and words in capitals "G" may be
    whole numbers; weights must share one floating dtype. Any other name than these, `optional` and
    `ignored` is an error.
    """
    if odd := [name for name, value in tensors.items() if not _is_tensor(name, value)]:
        raise ArtifactError(path, f"{shown(odd[0])} among the tensors", "named tensors only")
    known = {**shapes, **(optional or {})}
    if missing := [name for name in shapes if name not in tensors]:
        raise ArtifactError(path, f"no tensor {', '.join(missing)}", "it to be there")
    if extra := sorted(set(tensors) - set(known) - set(ignored)):
        raise ArtifactError(path, f"unknown tensor {', '.join(extra)[:200]}", f"only {list(known)}")
    lengths, dtypes, out = dict(sizes or {}), set(), {}
    for name, word in known.items():
        if name not in tensors:
            continue
        tensor = tensors[name]
        if len(tensor.shape) != len(word):
            raise ArtifactError(path, f"{name} of shape {tuple(tensor.shape)}", f"{len(word)} axes")
        for letter, length in zip(word, tensor.shape, strict=True):
            if lengths.setdefault(letter, length) != length or length < 1:
                expected = tuple(lengths[other] for other in word if other in lengths)
                raise ArtifactError(path, f"{name} of shape {tuple(tensor.shape)}", f"{expected}")
        whole = not word or word == "G"
        if tensor.dtype not in (_FLOATS + _WHOLE if whole else _FLOATS):
            raise ArtifactError(path, f"{name} of dtype {tensor.dtype}", "floating numbers")
        if not whole:
            dtypes.add(tensor.dtype)
        out[name] = tensor if whole else tensor.detach().to(torch.float32)
        if tensor.numel() and not all(bool(end.isfinite()) for end in tensor.detach().aminmax()):
            raise ArtifactError(path, f"NaN or infinity in {name}", "finite numbers")
    if len(dtypes) > 1:
        raise ArtifactError(path, f"dtypes {sorted(map(str, dtypes))}", "one dtype for all weights")
    return out


def _is_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def field(
    path: Path, content: Mapping[str, Any], key: str, *types: type, default: Any = ...
) -> Any:
    """One entry of a foreign config, of one of these types; `default` where it is missing."""
    if key not in content and default is not ...:
        return default
    if key not in content:
        raise ArtifactError(path, f"no key {key!r}", "it to be there")
    value = content[key]
    if not (isinstance(value, bool) if types == (bool,) else is_a(value, *types)):
        names = " or ".join(t.__name__ for t in types)
        raise ArtifactError(path, f"{key} = {shown(value)}", names)
    return value


def same(path: Path, content: Mapping[str, Any], key: str, length: int) -> None:
    """Insist that a config's size, where it gives one, is the weights' own."""
    if key in content and content[key] != length:
        raise ArtifactError(path, f"{key} = {shown(content[key])}", f"{length} as in the weights")


def norm_of(path: Path, content: Any) -> tuple[Float[Tensor, " d_in"], float]:
    """Mean (d) and size of `content`: {"mean", "std"}, as tensors or numbers."""
    told = content if isinstance(content, dict) else {}
    mean, std = told.get("mean"), told.get("std")
    if isinstance(mean, list) and all(is_a(value, int, float) for value in mean):
        mean = torch.tensor(mean)
    if isinstance(std, Tensor) and std.numel() == 1:
        std = std.item()
    if not isinstance(mean, Tensor) or mean.dim() != 1 or not isinstance(std, (int, float)):
        raise ArtifactError(path, "no mean and std", "mean, a vector, and std, one number")
    if not bool(mean.float().isfinite().all()) or not 0 < std < math.inf:
        raise ArtifactError(path, "mean or std that is not finite", "a finite mean, std above 0")
    return mean.float(), float(std)


def read_norm(path: str | Path) -> tuple[Float[Tensor, " d_in"], float]:
    """Mean and size of a safetensors, JSON or pickled file that has both."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return norm_of(path, read_safetensors(path))
    return norm_of(path, read_json(path) if path.suffix == ".json" else read_pickle(path))


def flat_yaml(path: Path) -> dict[str, Any]:
    """The entries `name: value` of a flat YAML file: numbers, true, false, null and text."""
    entries: dict[str, Any] = {}
    if path.stat().st_size > 1 << 16:
        raise ArtifactError(path, f"{path.stat().st_size} bytes", "a short YAML file")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.split(" #", 1)[0].rstrip()
        if not text or text.lstrip().startswith(("#", "---", "...")):
            continue
        entry = _ENTRY.fullmatch(text)
        if entry is None or entry[1] in entries:
            raise ArtifactError(path, f"the line {text[:60]!r}", "lines `name: value`, each once")
        entries[entry[1]] = _scalar((entry[2] or "").strip())
    return entries


_ENTRY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*))?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def _scalar(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
