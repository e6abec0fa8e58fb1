"""Reading and writing a ConceptIndex's files, strictly. Knows formats; knows no statistics.

In the folder `concepts/` of an artifact, format 2:
    index.json                data set, numbers of images and tokens, patch grid, SAE's hash, settings
    statistics.safetensors    one number a latent and statistic, and histograms
    exemplars.safetensors     image numbers, activations and firing patches
    classes.safetensors       tokens by latent and class, with classes.json, the classes' names
    neighbours.safetensors    nearest latents by decoder and by co-activation
    embeddings.safetensors    where a latent's exemplars lie among the words of the text tower
    names.json                names, where they come from, scores and confidences
    images.safetensors        WebP thumbnails of the exemplar images, with captions.json
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sae.concepts.checks import AGAIN, check
from sae.concepts.content import IndexContent
from sae.storage import ArtifactError, read_json, replacing, typed_fields, write_json

FOLDER = "concepts"
FORMAT = 2
ARRAYS = ("statistics", "exemplars", "classes", "neighbours", "embeddings", "images")
TEXTS = ("names", "captions", "class_names")
FILES = ("index.json", *(f"{n}.safetensors" for n in ARRAYS), *(f"{n}.json" for n in TEXTS))
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
}
_TEXT_TOWER = {"id": (str,), "revision": (str, type(None))}
_NEURONS = {"mean": (int, float), "best": (int, float)}
_MAX_TEXT_BYTES = 64 << 20


def write(folder: Path, content: IndexContent) -> None:
    """Write every file of an index, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)  # comes last: an index without it is none
    for name in ARRAYS:
        with replacing(folder / f"{name}.safetensors") as temporary:
            arrays = {k: np.ascontiguousarray(v) for k, v in getattr(content, name).items()}
            save_file(arrays, temporary)
    for name in TEXTS:
        with replacing(folder / f"{name}.json") as temporary:
            text = json.dumps(getattr(content, name), ensure_ascii=False, allow_nan=False)
            temporary.write_text(text, encoding="utf-8")
    write_json(folder / "index.json", content.header)


def read(folder: Path) -> IndexContent:
    """Read an index; ArtifactError says which file is wrong and how."""
    header = _header(folder / "index.json")
    arrays = {name: _arrays(folder / f"{name}.safetensors") for name in ARRAYS}
    kinds = {"names": dict, "captions": list, "class_names": list}
    texts = {name: _text(folder / f"{name}.json", kind) for name, kind in kinds.items()}
    content = IndexContent(header=header, **arrays, **texts)
    check(folder, content)
    return content


def _header(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise ArtifactError(
            path, f"format {found.get('format')!r}", f"format {FORMAT}", f"{AGAIN[:-1]} (formats "
            "of other versions of PatchLens cannot be read)."
        )  # fmt: skip
    header = typed_fields(path, {"neuron_monosemanticity": None, **found}, _HEADER, "")
    grid = header["grid"]
    if len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid):
        raise ArtifactError(path, f"grid {grid!r}", "two whole numbers above 0")
    if header["text_tower"] is not None:
        typed_fields(path, header["text_tower"], _TEXT_TOWER, "text_tower.")
    if header["neuron_monosemanticity"] is not None:
        typed_fields(path, header["neuron_monosemanticity"], _NEURONS, "neuron_monosemanticity.")
    return header


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
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise ArtifactError(path, f"{path.stat().st_size} bytes", f"at most {_MAX_TEXT_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(path, f"{error}", "JSON") from error
    if not isinstance(content, kind):
        raise ArtifactError(path, f"a JSON {type(content).__name__}", kind.__name__)
    return content
