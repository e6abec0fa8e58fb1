"""overcomplete's TopK SAEs (Fel et al.), classic and archetypal, as state dicts or pickled modules.

encoder.final_block.0 is a Linear, .1 (if there) a BatchNorm, folded as in evaluation; codes are the
k largest of relu. x_hat = codes D with D = dictionary._weights exp(multiplier) (rows brought to unit
length, as the layer does before it fuses), or for archetypal dictionaries
D = (W C + Relax) exp(multiplier), W made row-stochastic and Relax kept within delta.
k and delta are attributes of the module; a bare state dict needs --k.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.pickles import Record, state_dict_of
from sae.interop.source import Hints, Source, take
from sae.storage import is_a

NAME = "overcomplete"
TITLE = "overcomplete: TopK SAE, classic or archetypal"
FILES = ("sae.pt", "model.pt", "sae.pth")
_LINEAR = {"encoder.final_block.0.weight": "Fd", "encoder.final_block.0.bias": "F"}
_NORM = {
    f"encoder.final_block.1.{n}": "F" for n in ("weight", "bias", "running_mean", "running_var")
}
_COUNTER = "encoder.final_block.1.num_batches_tracked"
_CLASSIC = {"dictionary._weights": "Fd", "dictionary.multiplier": ""}
_ARCHETYPAL = {
    "dictionary.W": "FP",
    "dictionary.C": "Pd",
    "dictionary.Relax": "Fd",
    "dictionary.multiplier": "",
}


def detect(source: Source) -> bool:
    path = source.weights(FILES)
    if path is None or path.suffix == ".safetensors" or source.has("config.json"):
        return False
    with path.open("rb") as file:
        if file.read(1) == b"{":
            return False
    return "encoder.final_block.0.weight" in state_dict_of(source.pickle(path))


def read(source: Source, hints: Hints) -> Reading:
    path = source.weights(FILES)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one .pt or .pth file")
    content = source.pickle(path)
    tensors = state_dict_of(content)
    module = content.values if isinstance(content, Record) else {}
    k = hints.k if hints.k is not None else module.get("top_k")
    if not is_a(k, int):
        raise ArtifactError(
            path, "a state dict that does not say k", "--k: how many latents are kept", "Give --k."
        )
    w = _taken(path, tensors)
    result = Reading(ForeignSAE("topk", *_encoder(w, module), *_decoder(w, module, path), k=k))
    result.sae.subtract = False
    result.found.append(f"k = {k}; {'archetypal' if 'dictionary.W' in w else 'classic'} dictionary")
    if not module:
        result.assumed.append("BatchNorm's eps 1e-5 and delta 1.0: a state dict does not say them")
    elif any(name.startswith("encoder.mlp_blocks") for name in tensors):
        raise ArtifactError(path, "an encoder of several layers", "one linear layer")
    return result


def _taken(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name, of either kind of dictionary and with or without BatchNorm."""
    shapes = {**_LINEAR, **(_ARCHETYPAL if "dictionary.W" in tensors else _CLASSIC)}
    if _COUNTER in tensors or any(name in tensors for name in _NORM):
        shapes |= _NORM
    fused = "dictionary._fused_dictionary"
    return take(path, tensors, shapes, ignored=(_COUNTER, fused))


def _encoder(w: dict[str, Tensor], module: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """W_enc (d, F) and b_enc (F), BatchNorm's running statistics folded in."""
    W, b = w["encoder.final_block.0.weight"].double(), w["encoder.final_block.0.bias"].double()
    if "encoder.final_block.1.weight" in w:
        norm = {n.rpartition(".")[2]: w[n].double() for n in _NORM}
        eps = _inner(module, "encoder", "final_block", "1").get("eps", 1e-5)
        grow = norm["weight"] / (norm["running_var"] + float(eps)).sqrt()
        W, b = W * grow[:, None], (b - norm["running_mean"]) * grow + norm["bias"]
    return W.t().float().contiguous(), b.float()


def _decoder(w: dict[str, Tensor], module: dict[str, Any], path: Path) -> tuple[Tensor, Tensor]:
    """The fused dictionary D (F, d), and no bias."""
    inner = _inner(module, "dictionary")
    if "dictionary.W" in w:
        W = w["dictionary.W"].relu().double()
        W = W / (W.sum(-1, keepdim=True) + 1e-8)
        relax = w["dictionary.Relax"].double()
        delta = float(inner.get("delta", 1.0))
        relax = relax * (delta / relax.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
        D = W @ w["dictionary.C"].double() + relax
    else:
        D = _normalised(w["dictionary._weights"].double(), inner, path)
    D = D * torch.exp(w["dictionary.multiplier"].double())
    return D.float(), torch.zeros(D.shape[1])


def _normalised(weights: Tensor, inner: dict[str, Any], path: Path) -> Tensor:
    """The rows as DictionaryLayer's normalisation leaves them; l2 unless the module says another."""
    named = inner.get("normalization")
    kind = getattr(named, "class_name", ".normalize_l2").rpartition(".")[2]
    if kind == "normalize_identity":
        return weights
    order = 1 if kind.endswith("l1") else 2
    norms = weights.norm(p=order, dim=1, keepdim=True)
    if kind in ("normalize_l2", "normalize_l1"):
        return weights / (norms + 1e-8)
    if kind in ("normalize_max_l2", "normalize_max_l1"):
        return weights / norms.amax()
    raise ArtifactError(path, f"normalization {kind!r:.60}", "one of overcomplete's own")


def _inner(module: dict[str, Any], *names: str) -> dict[str, Any]:
    """The attributes of a module inside a pickled module; empty for a state dict."""
    for name in names:
        child = (module.get("_modules") or {}).get(name)
        module = child.values if isinstance(child, Record) else {}
    return module
