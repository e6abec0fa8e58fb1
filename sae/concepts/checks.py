"""Whether the parts of an index fit together. Knows `IndexContent`; reads no files.

Errors are ArtifactErrors that name the file each part lies in.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sae.concepts.content import N_DECILES, STATISTICS, IndexContent
from sae.storage import ArtifactError

AGAIN = "Build the index again: python training/index.py --sae DIR --data DIR."


def check(folder: Path, content: IndexContent) -> None:
    """Raise ArtifactError where shapes, types, numbers or references do not fit together."""
    d_sae = content.header["d_sae"]
    _check_statistics(folder / "statistics.safetensors", content.statistics, d_sae)
    _check_exemplars(folder / "exemplars.safetensors", content)
    _check_images(folder / "images.safetensors", content)
    _check_classes(folder / "classes.safetensors", content)
    file = folder / "neighbours.safetensors"
    for ids, scores in (("decoder_ids", "decoder_cosines"), ("cofiring_ids", "cofiring_scores")):
        array = _shape(file, content.neighbours, ids, np.int32, (d_sae, None))
        _within(file, ids, array, -1, d_sae)
        _finite(file, scores, _shape(file, content.neighbours, scores, np.float16, array.shape))
    file = folder / "embeddings.safetensors"
    _finite(file, "latents", _shape(file, content.embeddings, "latents", np.float16, (d_sae, None)))
    _check_texts(folder, content)


def _check_statistics(file: Path, arrays: Mapping[str, np.ndarray], d_sae: int) -> None:
    for name in STATISTICS:
        _finite(file, name, _shape(file, arrays, name, np.float32, (d_sae,)))
    for name in set(arrays) - {*STATISTICS, "histogram"}:
        extra = _shape(file, arrays, name, np.float32, (d_sae,))
        if np.isinf(extra).any():
            raise ArtifactError(file, f"infinity in {name}", "finite numbers, or NaN for unknown")
    _shape(file, arrays, "histogram", np.int32, (d_sae, None))


def _check_exemplars(file: Path, content: IndexContent) -> None:
    table, d_sae = content.exemplars, content.header["d_sae"]
    ids = _shape(file, table, "image_ids", np.int32, (d_sae, None))
    slots, n_top = ids.shape[1], content.header["n_top"]
    if not 0 <= n_top <= slots or (slots - n_top) % N_DECILES:
        raise ArtifactError(file, f"{slots} exemplars", f"n_top={n_top} and {N_DECILES} × m more")
    _finite(file, "activations", _shape(file, table, "activations", np.float32, ids.shape))
    n = int(_shape(file, table, "counts", np.uint8, ids.shape).sum())
    patches = _shape(file, table, "patches", np.uint16, (n,))
    rows, columns = content.header["grid"]
    _within(file, "patches", patches.astype(np.int64), 0, rows * columns)
    _finite(file, "values", _shape(file, table, "values", np.float16, (n,)))


def _check_images(file: Path, content: IndexContent) -> None:
    images = content.images
    ids = _shape(file, images, "image_ids", np.int32, (None,))
    if (np.diff(ids) <= 0).any():
        raise ArtifactError(file, "image numbers out of order", "rising image numbers")
    labels = _shape(file, images, "labels", np.int32, ids.shape)
    _within(file, "labels", labels, -1, len(content.class_names))
    offsets = _shape(file, images, "offsets", np.int64, (len(ids) + 1,))
    webp = _shape(file, images, "webp", np.uint8, (None,))
    if offsets[0] != 0 or offsets[-1] != len(webp) or (np.diff(offsets) < 0).any():
        raise ArtifactError(file, "offsets that do not cover the thumbnails", "rising offsets")
    used = np.unique(content.exemplars["image_ids"])
    if not np.isin(used[used >= 0], ids).all():
        raise ArtifactError(file, "no row for an exemplar's image", "one for every exemplar")


def _check_classes(file: Path, content: IndexContent) -> None:
    table, d_sae = content.classes, content.header["d_sae"]
    n = len(content.class_names)
    _shape(file, table, "images", np.int64, (n,))
    starts = _shape(file, table, "starts", np.int64, (d_sae + 1,))
    ids = _shape(file, table, "ids", np.uint16, (None,))
    _within(file, "ids", ids.astype(np.int64), 0, n)
    _shape(file, table, "tokens", np.int32, ids.shape)
    if starts[0] != 0 or starts[-1] != len(ids) or (np.diff(starts) < 0).any():
        raise ArtifactError(file, "starts that do not cover the entries", "rising starts")


def _check_texts(folder: Path, content: IndexContent) -> None:
    d_sae = content.header["d_sae"]
    number = (int, float)
    kinds = {"names": str, "sources": str, "scores": number, "confidences": number}
    for key, kind in kinds.items():
        row = content.names.get(key)
        right = isinstance(row, list) and len(row) == d_sae
        if not right or not all(isinstance(v, kind) for v in row):
            raise ArtifactError(
                folder / "names.json", f"bad {key!r}", f"{d_sae} entries, one a latent"
            )
    n_images = len(content.images["image_ids"])
    for name, n in (("captions", n_images), ("class_names", len(content.classes["images"]))):
        texts = getattr(content, name)
        if len(texts) != n or not all(isinstance(text, str) for text in texts):
            raise ArtifactError(folder / f"{name}.json", f"{len(texts)} entries", f"{n} texts")


def _shape(
    file: Path,
    arrays: Mapping[str, np.ndarray],
    name: str,
    dtype: type,
    shape: tuple[int | None, ...],
) -> np.ndarray:
    if name not in arrays:
        raise ArtifactError(file, f"no array {name!r}", "it to be there", AGAIN)
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        expected = f"{np.dtype(dtype).name} {tuple('any' if s is None else s for s in shape)}"
        raise ArtifactError(file, f"{name} {array.dtype} {array.shape}", expected, AGAIN)
    return array


def _finite(file: Path, name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise ArtifactError(file, f"NaN or infinity in {name}", "finite numbers", AGAIN)


def _within(file: Path, name: str, array: np.ndarray, low: int, high: int) -> None:
    if array.size and (array.min() < low or array.max() >= high):
        raise ArtifactError(file, f"{name} outside its range", f"{low} to {high - 1}", AGAIN)
