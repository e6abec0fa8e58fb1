"""FastSAE's models: folders `backbone/` and `final/`, each a JSON config, weights in `final/`.

W_enc (d, F), b_enc, W_dec (F, d), b_dec; latents = relu((x - b_dec) W_enc + b_enc). The names of the
files inside the folders are those of an unpublished package, so any one JSON and any one weights
file is taken, safetensors before pickles.
"""

import re
from pathlib import Path
from typing import Any

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.patchsae import SHAPES
from sae.interop.source import PICKLES, Hints, Source, field, take, tensors_of
from sae.storage import read_json

NAME = "fastsae"
TITLE = "FastSAE: folders backbone/ and final/"
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks)\.(\d+)$")


def detect(source: Source) -> bool:
    return (source.path / "backbone").is_dir() and (source.path / "final").is_dir()


def read(source: Source, _: Hints) -> Reading:
    folder = source.folder / "final"
    path, config = _json(folder, "activation_name", "d_sae_factor")
    activation = field(path, config, "activation_name", str, default="relu").lower()
    architecture = field(path, config, "architecture", str, default="vanilla")
    if activation != "relu" or architecture != "vanilla":
        raise ArtifactError(
            path,
            f"activation {activation}, architecture {architecture}",
            "relu and vanilla: PatchLens' latents are exact zeros or linear above a threshold",
            "Use another checkpoint.",
        )
    there = [p for p in sorted(folder.glob("*")) if not p.name.startswith("stats")]
    weights = [p for p in there if p.suffix == ".safetensors"]
    weights = weights or [p for p in there if p.name.endswith(PICKLES)]
    if len(weights) != 1:
        raise ArtifactError(folder, f"{len(weights)} weights files", "one")
    w = take(weights[0], tensors_of(source, weights[0]), SHAPES)
    if config.get("d_in") not in (None, w["W_enc"].shape[0]):
        raise ArtifactError(path, f"d_in = {config['d_in']!r}", f"{w['W_enc'].shape[0]}")
    factor = config.get("d_sae_factor")
    if factor is not None and factor * w["W_enc"].shape[0] != w["W_enc"].shape[1]:
        raise ArtifactError(path, f"d_sae_factor = {factor!r:.40}", "that of the weights")
    where, backbone = _json(source.folder / "backbone", "model_hf_name", "hook_target_name")
    hook = field(where, backbone, "hook_target_name", str)
    layer = _LAYER.search(hook)
    if layer is None:
        raise ArtifactError(where, f"hook {hook!r:.80}", "a layer's output, like …layers.10")
    return Reading(
        ForeignSAE("relu", w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"]),
        backbone=field(where, backbone, "model_hf_name", str),
        layer=int(layer[1]),
        tokens="all",
        hook=hook,
        weights=weights[0],
        found=[f"hook {hook}", f"weights {weights[0].name}"],
        assumed=["all tokens: FastSAE trains on every token of the hook's output"],
    )


def _json(folder: Path, *keys: str) -> tuple[Path, dict[str, Any]]:
    """The JSON of a folder that has one of these keys."""
    for path in sorted(folder.glob("*.json"))[:16]:
        if path.name.startswith("stats"):
            continue
        content = read_json(path)
        inner = content.get("config", content)
        if isinstance(inner, dict) and any(key in inner for key in keys):
            return path, inner
    raise ArtifactError(folder, "no JSON config", f"one with {' or '.join(keys)}")
