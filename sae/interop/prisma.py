"""ViT-Prisma's SAEs: `config.json` with `weights.pt` or `n_images_*.pt`, or a pickle of both.

Names as in SAELens of that time; `normalize_activations` is "layer_norm" unless it says otherwise:
every token (x - mean) / (std + 1e-5), undone after decoding. Hook points count layers from 0.
A gated SAE with top-k chooses by magnitude before the gate closes some of them, which no PatchLens SAE
does.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.pickles import Record
from sae.interop.source import PICKLES, Hints, Source, field, take
from sae.interop.unpickler import shown

NAME = "prisma"
TITLE = "ViT-Prisma: config.json and n_images_*.pt"
_SHAPES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}
_GATED = {**_SHAPES, "b_gate": "F", "r_mag": "F", "b_mag": "F"}
_NORMS = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_(\w+)$")


def detect(source: Source) -> bool:
    config = source.config("config.json")
    if config is not None:
        return "activation_fn_str" in config[1] or "hook_point_layer" in config[1]
    path = _weights(source)
    if path is None:
        return False
    content = source.pickle(path)
    return isinstance(content, dict) and _is_prisma(content.get("cfg"))


def read(source: Source, hints: Hints) -> Reading:
    path = _weights(source)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one weights.pt or n_images_….pt")
    content = source.pickle(path)
    both = isinstance(content, dict) and "state_dict" in content
    tensors = content["state_dict"] if both else content
    beside = source.config("config.json")
    if beside is not None:
        where, config = beside
    elif both and isinstance(content.get("cfg"), Record):
        where, config = path, content["cfg"].values
    else:
        raise ArtifactError(path, "no config.json", "one beside the weights")
    if not isinstance(tensors, dict):
        raise ArtifactError(path, f"a {type(tensors).__name__}", "a state dict")
    result = Reading(
        _described(path, tensors, where, config), found=[f"weights {path.name}"], weights=path
    )
    _place(where, config, result, hints)
    return result


def _described(path: Path, tensors: dict[str, Tensor], where: Path, config: dict) -> ForeignSAE:
    if config.get("is_transcoder"):
        raise ArtifactError(where, "a transcoder", "an SAE, which rebuilds its own input")
    norm = field(where, config, "normalize_activations", str, default="layer_norm")
    if norm not in _NORMS:
        raise ArtifactError(where, f"normalize_activations {norm!r:.40}", f"one of {list(_NORMS)}")
    activation = field(where, config, "activation_fn_str", str, default="relu")
    if "r_mag" in tensors and activation != "relu":
        raise ArtifactError(
            where,
            f"a gated SAE with activation {activation!r:.40}",
            "relu: with top-k, the k are chosen by magnitude and the gate then closes some of them",
            "Use another SAE.",
        )
    if "r_mag" in tensors:
        w = take(path, tensors, _GATED)
        zero = torch.zeros_like(w["r_mag"])
        made = ForeignSAE("jumprelu", w["W_enc"], zero, w["W_dec"], w["b_dec"])
        made.gate = (w["b_gate"], w["r_mag"], w["b_mag"])
    elif activation in ("relu", "topk"):
        w = take(path, tensors, _SHAPES)
        made = ForeignSAE(activation, w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
        if activation == "topk":
            words = field(where, config, "activation_fn_kwargs", dict)
            made.k = field(where, words, "k", int)
    else:
        raise ArtifactError(
            where,
            f"activation {activation!r:.40}",
            "relu or topk: PatchLens' latents are linear above a threshold",
            "Use another SAE.",
        )
    made.input_norm = _NORMS[norm]
    for key, length in zip(("d_in", "d_sae"), made.W_enc.shape, strict=True):
        if isinstance(config.get(key), int) and config[key] != length:
            raise ArtifactError(
                where, f"{key} = {shown(config[key])}", f"{length} as in the weights"
            )
    return made


def _place(where: Path, config: dict[str, Any], result: Reading, hints: Hints) -> None:
    """Backbone, layer and tokens; only the residual stream after a layer can be read here."""
    layer, kind = config.get("hook_point_layer"), config.get("layer_subtype", "hook_resid_post")
    if isinstance(config.get("hook_point"), str) and (m := _HOOK.search(config["hook_point"])):
        layer, kind = int(m[1]), f"hook_{m[2]}"
    if isinstance(layer, list) and len(layer) == 1:
        layer = layer[0]
    kind = kind if isinstance(kind, str) else shown(kind)
    if kind != "hook_resid_post" and hints.layer is None:
        raise ArtifactError(
            where,
            f"hook point {shown(kind)}",
            "hook_resid_post: PatchLens reads the residual stream after a layer",
            "Use an SAE of resid_post, or give --layer if you know that yours is one.",
        )
    name = config.get("model_name")
    if isinstance(name, str):
        result.backbone = name.replace("open-clip:", "hf-hub:")
    result.layer = layer if isinstance(layer, int) and not isinstance(layer, bool) else None
    result.tokens = "cls" if config.get("cls_token_only") else "all"
    if config.get("use_patches_only"):
        result.tokens = "patches"
    result.hook = f"blocks.{result.layer}.{kind}"
    result.found.append(f"hook {result.hook}, input {result.sae.input_norm}")
    result.assumed.append("activations are the backbone's own: Prisma may centre weights it writes")


def _is_prisma(config: Any) -> bool:
    return isinstance(config, Record) and "vit_prisma" in config.class_name


def _weights(source: Source) -> Path | None:
    if source.path.is_file():
        return source.path if source.path.name.endswith(PICKLES) else None
    path = source.weights(("weights.pt",))
    if path is None:
        path = source.newest("n_images_")
    return path if path is not None and path.name.endswith(PICKLES) else None
