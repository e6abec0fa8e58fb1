"""Reading and writing a ConceptIndex's files, strictly. Knows formats; knows no statistics."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sae.storage import ArtifactError, read_json, replacing, typed_fields, write_json

FOLDER = "concepts"
FORMAT = 1
FILES = (
    "index.json",
    "statistics.safetensors",
    "exemplars.safetensors",
    "names.json",
    "images.safetensors",
    "captions.json",
)
_HEADER = {
    "format": (int,),
    "data": (str,),
    "n_images": (int,),
    "n_tokens": (int,),
    "grid": (list,),
    "d_sae": (int,),
    "sae_sha256": (str,),
}
_MAX_TEXT_BYTES = 64 << 20
STATISTICS = ("frequency", "token_frequency", "mean_activation", "max_activation", "entropy")


class IndexContent(NamedTuple):
    """All that an index holds, as it lies on disk."""

    header: dict[str, Any]
    statistics: dict[str, np.ndarray]
    """STATISTICS: float32 (d_sae); "histogram": int32 (d_sae, bins)."""
    exemplars: dict[str, np.ndarray]
    """"image_ids" int32 (d_sae, levels, n), -1 for none; "activations" float32 (same);
    "patches" uint16 and "values" float16 (d_sae, levels, n, patches)."""
    names: dict[str, list]
    """"names", "sources": strings; "scores": numbers; one each a latent."""
    images: dict[str, np.ndarray]
    """"image_ids" int32 (n), "offsets" int64 (n + 1), "webp" uint8: thumbnails end to end."""
    captions: list[str]
    """One a thumbnail."""


def write(folder: Path, content: IndexContent) -> None:
    """Write every file of an index, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("statistics", "exemplars", "images"):
        with replacing(folder / f"{name}.safetensors") as temporary:
            arrays = {k: np.ascontiguousarray(v) for k, v in getattr(content, name).items()}
            save_file(arrays, temporary)
    for name in ("names", "captions"):
        with replacing(folder / f"{name}.json") as temporary:
            text = json.dumps(getattr(content, name), ensure_ascii=False, allow_nan=False)
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / "index.json", content.header)


def read(folder: Path) -> IndexContent:
    """Read an index; ArtifactError says which file is wrong and how."""
    path = folder / "index.json"
    header = typed_fields(path, read_json(path), _HEADER, "")
    if header["format"] != FORMAT:
        raise ArtifactError(
            path,
            f"format {header['format']}",
            f"format {FORMAT}",
            "Install a newer PatchLens, or build the index again.",
        )
    grid = header["grid"]
    if len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid):
        raise ArtifactError(path, f"grid {grid!r}", "two whole numbers above 0")
    content = IndexContent(
        header=header,
        statistics=_arrays(folder / "statistics.safetensors"),
        exemplars=_arrays(folder / "exemplars.safetensors"),
        names=_text(folder / "names.json", dict),
        images=_arrays(folder / "images.safetensors"),
        captions=_text(folder / "captions.json", list),
    )
    _check(folder, content)
    return content


def _check(folder: Path, content: IndexContent) -> None:
    """Raise ArtifactError where shapes, types, numbers or references do not fit together."""
    d_sae = content.header["d_sae"]
    statistics, table, images = content.statistics, content.exemplars, content.images
    file = folder / "statistics.safetensors"
    for name in STATISTICS:
        _shape(file, statistics, name, np.float32, (d_sae,))
        if not np.isfinite(statistics[name]).all():
            raise ArtifactError(file, f"NaN or infinity in {name}", "finite numbers")
    _shape(file, statistics, "histogram", np.int32, (d_sae, None))
    file = folder / "exemplars.safetensors"
    _shape(file, table, "image_ids", np.int32, (d_sae, 3, None))
    shape = table["image_ids"].shape
    _shape(file, table, "activations", np.float32, shape)
    _shape(file, table, "patches", np.uint16, (*shape, None))
    _shape(file, table, "values", np.float16, table["patches"].shape)
    rows, columns = content.header["grid"]
    if table["patches"].size and int(table["patches"].max()) >= rows * columns:
        raise ArtifactError(file, "a patch outside the grid", f"patches below {rows * columns}")
    file = folder / "images.safetensors"
    _shape(file, images, "image_ids", np.int32, (None,))
    n = len(images["image_ids"])
    _shape(file, images, "offsets", np.int64, (n + 1,))
    _shape(file, images, "webp", np.uint8, (None,))
    offsets = images["offsets"]
    if offsets[0] != 0 or offsets[-1] != len(images["webp"]) or (np.diff(offsets) < 0).any():
        raise ArtifactError(file, "offsets that do not cover the thumbnails", "rising offsets")
    used = np.unique(table["image_ids"])
    if not np.isin(used[used >= 0], images["image_ids"]).all():
        raise ArtifactError(file, "no thumbnail for an exemplar", "one for every exemplar")
    _check_texts(folder, content, n)


def _check_texts(folder: Path, content: IndexContent, n_images: int) -> None:
    d_sae = content.header["d_sae"]
    names = content.names
    kinds = {"names": str, "sources": str, "scores": (int, float)}
    for key, kind in kinds.items():
        row = names.get(key)
        if (
            not isinstance(row, list)
            or len(row) != d_sae
            or not all(isinstance(v, kind) for v in row)
        ):
            raise ArtifactError(
                folder / "names.json", f"bad {key!r}", f"{d_sae} entries, one a latent"
            )
    captions = content.captions
    if len(captions) != n_images or not all(isinstance(text, str) for text in captions):
        raise ArtifactError(
            folder / "captions.json", f"{len(captions)} entries", f"{n_images} texts"
        )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ArtifactError(path, "no such file", "a file of the concept index")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(path, f"{error}", "a safetensors file") from error


def _text(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise ArtifactError(path, "no such file", "a file of the concept index")
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise ArtifactError(path, f"{path.stat().st_size} bytes", f"at most {_MAX_TEXT_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(path, f"{error}", "JSON") from error
    if not isinstance(content, kind):
        raise ArtifactError(path, f"a JSON {type(content).__name__}", kind.__name__)
    return content


def _shape(
    file: Path, arrays: dict[str, np.ndarray], name: str, dtype: type, shape: tuple[int | None, ...]
) -> None:
    if name not in arrays:
        raise ArtifactError(file, f"no array {name!r}", "it to be there")
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        expected = f"{np.dtype(dtype).name} {tuple('any' if s is None else s for s in shape)}"
        raise ArtifactError(file, f"{name} {array.dtype} {array.shape}", expected)
