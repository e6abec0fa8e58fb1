"""MSAE's checkpoints (Zaigrajew et al. 2025): SAEs of CLIP's image embedding, configured by their name.

    {n_latents}_{n_inputs}_{activation}[_k|_l1][_RW|_UW]_{tied}_{normalize}_{soft_cap}_….pth
    {"model": {encoder (d, F), decoder (F, d) unless tied, pre_bias (d), latent_bias (F)},
     "mean_center": (d), "scaling_factor", "target_norm"}

z = (x - mean_center) * scaling_factor; latents = act((z - pre_bias) encoder + latent_bias), and back.
TopK lets negative values through, TopKabs ranks by size, TopKReLU empties the negative; the nested sums
of a Matryoshka training are all within the largest k. A soft cap (tanh), a normalisation of each vector
and top-k of a batch are no linear encoding and are refused.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, take

NAME = "msae"
TITLE = "MSAE: .pth named by its settings, of CLIP's image embedding"
_FORM = re.compile(
    r"(?P<F>\d+)_(?P<d>\d+)_(?P<act>[A-Za-z]+)(?:_(?P<number>[\d.e-]+))?(?:_[RU]W)?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<cap>\d+\.?\d*)"
)
_NEGATIVE = {"TopKReLU": "zero", "TopK": "keep", "TopKabs": "rank"}
_CLIP = {"L~14": "openai/clip-vit-large-patch14", "B~16": "openai/clip-vit-base-patch16"}
_SHAPES = {"encoder": "dF", "pre_bias": "d", "latent_bias": "F"}


def detect(source: Source) -> bool:
    path = source.weights()
    if path is None or path.suffix not in (".pt", ".pth") or not _FORM.match(path.name):
        return False
    content = source.pickle(path)
    return isinstance(content, dict) and {"model", "mean_center", "scaling_factor"} <= set(content)


def read(source: Source, _: Hints) -> Reading:
    path = source.weights()
    if path is None:
        raise ArtifactError(source.path, "no weights", "one .pth file")
    content = source.pickle(path)
    named = _FORM.match(path.name)
    if named is None or not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ArtifactError(
            path, "another name or content", "MSAE's: its settings are in its name alone"
        )
    if named["normalize"] == "True" or float(named["cap"]) > 0:
        settings = f"normalize {named['normalize']}, soft cap {named['cap']}"
        raise ArtifactError(path, settings, "False and 0.0: a soft cap is no linear latent")
    shapes = dict(_SHAPES) if named["tied"] == "True" else {**_SHAPES, "decoder": "Fd"}
    sizes = {"d": int(named["d"]), "F": int(named["F"])}
    counter = ("latents_activation_frequency",)
    w = take(path, content["model"], shapes, ignored=counter, sizes=sizes)
    decoder = w["decoder"] if "decoder" in w else w["encoder"].t()
    made = ForeignSAE("relu", w["encoder"], w["latent_bias"], decoder, w["pre_bias"])
    act, number = named["act"], named["number"] or ""
    if act in _NEGATIVE and number.isdecimal():
        made.architecture, made.negative, made.k = "topk", _NEGATIVE[act], int(number)
    elif act != "ReLU":
        raise ArtifactError(
            path, f"activation {act} {number}".strip(), f"ReLU, or one of {', '.join(_NEGATIVE)}"
        )
    made.mean, made.scale = _mean(path, content["mean_center"], sizes["d"]), _scale(path, content)
    result = Reading(made, layer=-1, tokens="embedding", hook="image embedding", weights=path)
    result.found.append(f"{act} {number}, centred and scaled by {1 / made.scale:.6g}".strip())
    if clip := re.search(r"ViT-(L~14|B~16)", path.name):
        result.backbone = _CLIP[clip[1]]
        result.assumed.append(f"OpenAI's CLIP, by ViT-{clip[1]} in the file's name")
    return result


def _mean(path: Path, stored: object, d_in: int) -> Tensor:
    mean = torch.as_tensor(stored) if isinstance(stored, (Tensor, float, int)) else torch.empty(0)
    if mean.numel() not in (1, d_in) or not bool(mean.isfinite().all()):
        raise ArtifactError(path, f"mean_center of {mean.numel()} numbers", f"{d_in}")
    return mean.float().flatten().expand(d_in).clone()


def _scale(path: Path, content: dict) -> float:
    stored = content["scaling_factor"]
    content = {"scaling_factor": stored.item() if isinstance(stored, Tensor) else stored}
    factor = float(field(path, content, "scaling_factor", float, int))
    if not factor > 0:
        raise ArtifactError(path, f"scaling_factor {factor!r:.40}", "a positive number")
    return 1 / factor
