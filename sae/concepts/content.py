"""All that an index holds, how its parts must fit together, and how it lies on disk.

Knows shapes, words and file formats; knows no models, and no meaning of a number. Errors are
ArtifactErrors that name the file. In the folder `concepts/` of an artifact, format 2:
    index.json                data set, numbers of images and tokens, patch grid, SAE's hash, settings;
                              the sha256 of every other file, and the seal of all this (`sae.storage`)
    statistics.safetensors    one number a latent and statistic, and histograms
    exemplars.safetensors     image numbers, activations and firing patches
    classes.safetensors       tokens by latent and class, with classes.json, the classes' names
    neighbours.safetensors    nearest latents by decoder and by co-activation
    embeddings.safetensors    where a latent's exemplars lie among the words of the text tower
    names.json                names, where they come from, scores and confidences; people's own, if any
    layout.safetensors        where the concepts lie on maps, and their groups there; left out by
                              older versions
    images.safetensors        WebP thumbnails of the exemplar images, with captions.json
An index is written beside the folder, and takes the place of an older one when it is whole.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sae.concepts.notes import checked as checked_notes
from sae.concepts.statistics import HISTOGRAM, required
from sae.errors import ArtifactError
from sae.storage import (
    check_seal,
    read_json,
    read_json_value,
    sealed,
    sha256,
    typed_fields,
    write_json,
)

AGAIN = "Build the index again: patchlens index --sae DIR --data DIR."
FOLDER = "concepts"
FORMAT = 2
ARRAYS = ("statistics", "exemplars", "classes", "neighbours", "embeddings", "images")
TEXTS = ("names", "captions", "class_names")
LAYOUT = "layout.safetensors"
NOTES = "notes"
"""What of names.json holds people's own names, notes and pins; see `sae.concepts.notes`."""
FILES = ("index.json", *(f"{n}.safetensors" for n in ARRAYS), *(f"{n}.json" for n in TEXTS))
"""What every index has; LAYOUT may be there too."""
_HEADER = {
    "format": (int,),
    "data": (str,),
    "n_images": (int,),
    "n_unreadable": (int,),
    "n_tokens": (int,),
    "n_patches": (int,),
    "grid": (list,),
    "d_sae": (int,),
    "sae_sha256": (str,),
    "tau": (int, float),
    "n_top": (int,),
    "text_tower": (dict, type(None)),
    "embedder": (str, type(None)),
    "neuron_monosemanticity": (dict, type(None)),
    "monosemanticity_beside": (dict, type(None)),
    "sha256": (dict, type(None)),
}
_TEXT_TOWER = {"id": (str,), "revision": (str, type(None))}
_LATER = ("neuron_monosemanticity", "monosemanticity_beside")
"""What an index of an older version does not have."""
_SCORE = {"mean": (int, float), "best": (int, float)}
_MAX_TEXT_BYTES = 64 << 20
NOWHERE = 65535
"""Both coordinates of a latent that has no place on a map."""
N_DECILES = 10


class IndexContent(NamedTuple):
    """All that an index holds, as it lies on disk."""

    header: dict[str, Any]
    statistics: dict[str, np.ndarray]
    """float32 (d_sae) each, those of `sae.concepts.statistics` and any others; "histogram": int32
    (d_sae, bins)."""
    exemplars: dict[str, np.ndarray]
    """"image_ids" int32 (d_sae, n_top + 10 m), -1 for none; "activations" float32 (same); "counts"
    uint8 (same): patches each; "patches" uint16 and "values" float16, end to end."""
    classes: dict[str, np.ndarray]
    """"starts" int64 (d_sae + 1), "ids" uint16, "tokens" int32; "images" int64 (n_classes)."""
    neighbours: dict[str, np.ndarray]
    """"decoder_ids", "cofiring_ids" int32 (d_sae, n), -1 for none; "decoder_cosines",
    "cofiring_scores" float16 (same)."""
    embeddings: dict[str, np.ndarray]
    """"latents" float16 (d_sae, d), zero rows for none; d is 0 without a text tower."""
    images: dict[str, np.ndarray]
    """"image_ids" int32 (n) rising, "labels" int32 (n), -1 for none, "offsets" int64 (n + 1), "webp"
    uint8: thumbnails end to end, empty for none."""
    names: dict[str, list]
    """"names", "sources": strings; "scores", "confidences": numbers; one each a latent. NOTES, if
    there: people's own, one a concept that they speak of."""
    captions: list[str]
    """One a thumbnail."""
    class_names: list[str]
    """One a class."""
    layout: dict[str, np.ndarray] = {}  # noqa: RUF012
    """By map (`sae.concepts.atlas`): "NAME_xy" uint16 (d_sae, 2), "NAME_groups" int16 (d_sae), -1 for
    none; {} where none was made."""


def write(folder: Path, content: IndexContent) -> None:
    """Write an index into `folder`; at every moment the old one or the new one is there, whole.

    What else lies in the folder stays in it.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
    try:
        fresh.mkdir()
        _write_files(fresh, content)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put back the old index of a process that was killed between the two renames of `write`."""
    before = _before(folder)
    with contextlib.suppress(OSError):  # where one may only read, there is nothing to put back
        if before.is_dir() and not folder.exists():
            before.rename(folder)


def _before(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before")


def _write_files(folder: Path, content: IndexContent) -> None:
    for name in (*ARRAYS, "layout") if content.layout else ARRAYS:
        arrays = {k: np.ascontiguousarray(v) for k, v in getattr(content, name).items()}
        save_file(arrays, folder / f"{name}.safetensors")
    for name in TEXTS:
        text = json.dumps(getattr(content, name), ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    files = (*FILES[1:], LAYOUT) if content.layout else FILES[1:]
    hashes = {name: sha256(folder / name) for name in files}
    write_json(folder / FILES[0], sealed({**content.header, "sha256": hashes}))


def _swap(fresh: Path, folder: Path) -> None:
    """Let `fresh` take the place of `folder`, whose other files come along."""
    before = _before(folder)
    shutil.rmtree(before, ignore_errors=True)
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name in (*FILES, LAYOUT):
                continue
            copy: Any = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, fresh / path.name)
        folder.rename(before)
    fresh.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def read(folder: Path) -> IndexContent:
    """Read an index; ArtifactError says which file is wrong and how."""
    recover(folder)
    header, hashes = _header(folder / FILES[0])
    arrays: dict[str, Any] = {name: _arrays(folder / f"{name}.safetensors") for name in ARRAYS}
    kinds = {"names": dict, "captions": list, "class_names": list}
    texts: dict[str, Any] = {
        name: _text(folder / f"{name}.json", kind) for name, kind in kinds.items()
    }
    layout = _arrays(folder / LAYOUT) if LAYOUT in hashes else {}
    content = IndexContent(header=header, **arrays, **texts, layout=layout)
    check(folder, content)
    for name, digest in hashes.items():
        if (actual_digest := sha256(folder / name)) != digest:
            raise ArtifactError(
                folder / name,
                f"sha256 {actual_digest[:12]}…",
                f"{digest[:12]}… as in {FILES[0]}",
                AGAIN,
            )
    return content


def _header(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What index.json says, and the hashes of the other files; {} in an index of an older version."""
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise ArtifactError(
            path, f"format {content.get('format')!r}", f"format {FORMAT}", f"{AGAIN[:-1]} (formats "
            "of other versions of PatchLens cannot be read)."
        )  # fmt: skip
    header = typed_fields(path, {**dict.fromkeys(_LATER), **content}, _HEADER, "")
    hashes = header.pop("sha256", None)
    if hashes is not None:
        files = dict.fromkeys([*FILES[1:], *{LAYOUT}.intersection(hashes)], (str,))
        typed_fields(path, hashes, files, "sha256.")
    grid = header["grid"]
    if len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid):
        raise ArtifactError(path, f"grid {grid!r}", "two whole numbers above 0")
    if header["text_tower"] is not None:
        typed_fields(path, header["text_tower"], _TEXT_TOWER, "text_tower.")
    if header["neuron_monosemanticity"] is not None:
        typed_fields(path, header["neuron_monosemanticity"], _SCORE, "neuron_monosemanticity.")
    beside = header["monosemanticity_beside"] or {}
    typed_fields(path, beside, dict.fromkeys(beside, (dict,)), "monosemanticity_beside.")
    for name, row in beside.items():
        typed_fields(path, row, _SCORE, f"monosemanticity_beside.{name}.")
    check_seal(path, content, AGAIN)
    return header, hashes or {}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ArtifactError(path, "no such file", "a file of the concept index", AGAIN)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(path, f"{error}", "a safetensors file", AGAIN) from error


def _text(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise ArtifactError(path, "no such file", "a file of the concept index", AGAIN)
    return read_json_value(path, kind, _MAX_TEXT_BYTES)


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
    _check_layout(folder / LAYOUT, content.layout, d_sae)
    _check_texts(folder, content)


def _check_layout(file: Path, layout: Mapping[str, np.ndarray], d_sae: int) -> None:
    for name in {name.removesuffix("_xy").removesuffix("_groups") for name in layout}:
        xy = _shape(file, layout, f"{name}_xy", np.uint16, (d_sae, 2))
        if ((xy == NOWHERE).any(axis=1) != (xy == NOWHERE).all(axis=1)).any():
            raise ArtifactError(file, f"half a place in {name}_xy", "both numbers or none", AGAIN)
        groups = _shape(file, layout, f"{name}_groups", np.int16, (d_sae,))
        _within(file, f"{name}_groups", groups, -1, d_sae)
        used = np.unique(groups[groups >= 0])
        if len(used) and used[-1] >= len(used):
            raise ArtifactError(file, f"gaps in {name}_groups", "0, 1, 2 …", AGAIN)


def _check_statistics(file: Path, arrays: Mapping[str, np.ndarray], d_sae: int) -> None:
    for name in required():
        _finite(file, name, _shape(file, arrays, name, np.float32, (d_sae,)))
    for name in set(arrays) - {*required(), HISTOGRAM}:
        extra = _shape(file, arrays, name, np.float32, (d_sae,))
        if np.isinf(extra).any():
            raise ArtifactError(file, f"infinity in {name}", "finite numbers, or NaN for unknown")
    _shape(file, arrays, HISTOGRAM, np.int32, (d_sae, None))


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
    kinds: dict[str, Any] = {"names": str, "sources": str, "scores": number, "confidences": number}
    for key, kind in kinds.items():
        row = content.names.get(key)
        right = isinstance(row, list) and len(row) == d_sae
        if not right or not all(isinstance(v, kind) for v in row or ()):
            raise ArtifactError(
                folder / "names.json", f"bad {key!r}", f"{d_sae} entries, one a latent"
            )
    own = content.names.get(NOTES, [])
    if not isinstance(own, list):
        raise ArtifactError(folder / "names.json", f"bad {NOTES!r}", "a list of entries", AGAIN)
    checked_notes(folder / "names.json", own, d_sae)
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
