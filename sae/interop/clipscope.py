"""CLIP-Scope's checkpoints: one pickle {n_features, d_in, k, model_state_dict}.

pre_b (d), enc (d, F), dec (F, d); latents are the k largest of (x - pre_b) enc, negative ones among
them included; x_hat = latents dec + pre_b. The file's folder says the layer (`22_resid/…`).
"""

import re

import torch

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, take

NAME = "clipscope"
TITLE = "CLIP-Scope: pickle {k, d_in, n_features, model_state_dict}"
BACKBONE = "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
_SHAPES = {"pre_b": "d", "enc": "dF", "dec": "Fd"}


def detect(source: Source) -> bool:
    path = source.weights()
    if path is None or path.suffix == ".safetensors" or source.has("config.json"):
        return False
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return False
    content = source.pickle(path)
    return isinstance(content, dict) and "model_state_dict" in content and "n_features" in content


def read(source: Source, _: Hints) -> Reading:
    path = source.weights()
    if path is None:
        raise ArtifactError(source.path, "no weights", "one .pt file")
    content = source.pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        raise ArtifactError(path, "something else", "a pickle with model_state_dict")
    d_in, d_sae = field(path, content, "d_in", int), field(path, content, "n_features", int)
    w = take(path, content["model_state_dict"], _SHAPES, sizes={"d": d_in, "F": d_sae})
    k = field(path, content, "k", int)
    made = ForeignSAE(
        "topk", w["enc"], torch.zeros(d_sae), w["dec"], w["pre_b"], k=k, negative="keep"
    )
    result = Reading(made, tokens="all", found=[f"k = {k}"], weights=path)
    if m := re.fullmatch(r"(\d+)_resid", path.absolute().parent.name):
        result.layer, result.backbone = int(m[1]), BACKBONE
        result.assumed.append(f"backbone {BACKBONE}, the one CLIP-Scope was made for")
    return result
