"""PatchSAE's checkpoints (Lim et al. 2025; also HugoFry's ViT SAEs, which it grew from).

One pickle {"cfg" or "config": ViTSAERunnerConfig or dict, "state_dict": W_enc (d, F), b_enc,
W_dec (F, d), b_dec}, as .pt, .pkl or .pkl.gz. latents = relu((x - b_dec) W_enc + b_enc).
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.pickles import Record
from sae.interop.source import PICKLES, Hints, Source, take
from sae.interop.unpickler import shown
from sae.storage import is_a

NAME = "patchsae"
TITLE = "PatchSAE and HugoFry: pickle {cfg, state_dict}"
FILES = ("sae.pt", "final_sparse_autoencoder.pt", "model.pt")
SHAPES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}


def detect(source: Source) -> bool:
    path = source.weights(FILES)
    if path is None or not path.name.endswith(PICKLES) or source.has("config.json"):
        return False
    content = source.pickle(path)
    return isinstance(content, dict) and "state_dict" in content and _config(content) is not None


def read(source: Source, _: Hints) -> Reading:
    path = source.weights(FILES)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one .pt, .pkl or .pkl.gz file")
    content = source.pickle(path)
    config = _config(content) if isinstance(content, dict) else None
    if config is None or not isinstance(content.get("state_dict"), dict):
        raise ArtifactError(path, "something else", "a pickle of cfg and state_dict")
    return reading(path, config, content["state_dict"])


def reading(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Reading:
    """The SAE of a config and state dict in these words."""
    if config.get("gated_sae") or config.get("is_gated_sae") or "r_mag" in tensors:
        raise ArtifactError(
            path,
            "a gated SAE",
            "a standard one: PatchSAE has no forward pass for gated ones, so none can be matched",
            "Use another checkpoint.",
        )
    w = take(path, tensors, SHAPES)
    for key, axis in (("d_in", 0), ("d_sae", 1)):
        if isinstance(config.get(key), int) and config[key] != w["W_enc"].shape[axis]:
            raise ArtifactError(path, f"{key} = {shown(config[key])}", f"{w['W_enc'].shape[axis]}")
    name, layer = config.get("model_name"), config.get("block_layer")
    name = name.removeprefix("openai/openai/") if isinstance(name, str) else None
    model = f"model {name}"
    if name is not None and name.startswith("clip-vit-"):
        name = f"openai/{name}"  # its code cuts the owner off
    elif name is not None and "/" not in name:
        model, name = f"model {name!r}, whose owner is not said", None
    module = config.get("module_name", "resid")
    if module != "resid":
        raise ArtifactError(path, f"module_name = {shown(module)}", "'resid', the residual stream")
    result = Reading(
        ForeignSAE("relu", w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"]),
        backbone=name,
        layer=layer if is_a(layer, int) else None,
        tokens="cls" if config.get("class_token") else "all",
        weights=path,
    )
    result.found.append(f"config of {len(config)} entries, layer {shown(layer)}, {model}")
    if config.get("class_token"):
        result.assumed.append("class_token: taken as CLS; the training code read image 0 instead")
    return result


def _config(content: dict[str, Any]) -> dict[str, Any] | None:
    config = content.get("cfg", content.get("config"))
    return (
        config.values
        if isinstance(config, Record)
        else config
        if isinstance(config, dict)
        else None
    )
