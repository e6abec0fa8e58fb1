"""overcomplete's SAEs (Fel et al.), classic and archetypal, as state dicts or pickled modules.

encoder.final_block.0 is a Linear, .1 (if there) a BatchNorm, folded as in evaluation; or (0.3) the
encoder is one matrix `encoder.weight`, or none at all and tied to the dictionary. The module's class
says what becomes of codes = relu(…): SAE keeps them, TopKSAE the k largest of each token, BatchTopKSAE
those not below running_threshold (its top_k counts a batch), JumpSAE those not below exp(thresholds).
x_hat = codes D with D = dictionary._weights exp(multiplier) (normalised as the layer does before it
fuses), or for archetypal dictionaries D = (W C + Relax) exp(multiplier), W made row-stochastic and
Relax kept within delta. Of a module in evaluation, D is what it has fused.
A bare state dict does not say its class: --k makes it a TopKSAE.
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
TITLE = "overcomplete: SAE, TopK, BatchTopK and Jump SAEs, classic or archetypal"
FILES = ("sae.pt", "model.pt", "sae.pth")
_LINEAR = {"encoder.final_block.0.weight": "Fd", "encoder.final_block.0.bias": "F"}
_NORM = {
    f"encoder.final_block.1.{n}": "F" for n in ("weight", "bias", "running_mean", "running_var")
}
_MATRIX = {"encoder.weight": "Fd"}
_CLASSES = ("SAE", "TopKSAE", "RATopKSAE", "BatchTopKSAE", "JumpSAE", "RAJumpSAE")
_NEAR = 0.05
"""How far from 1 the last step of an optimiser takes a normalised row."""
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
    return bool(_tensors(source.pickle(path)).keys() & {"dictionary._weights", "dictionary.W"})


def read(source: Source, hints: Hints) -> Reading:
    path = source.weights(FILES)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one .pt or .pth file")
    content = source.pickle(path)
    tensors = _tensors(content)
    module = content.values if isinstance(content, Record) else {}
    kind = content.class_name.rpartition(".")[2] if isinstance(content, Record) else "TopKSAE"
    kind = "JumpSAE" if "thresholds" in tensors else kind
    _expressible(path, kind, module, tensors)
    tied = any(name.startswith("encoder.tied_to.") for name in state_dict_of(content))
    w = _taken(path, tensors, tied)
    D, how = _decoder(w, module, path)
    W_enc, b_enc = _encoder(w, module, D)
    made = ForeignSAE("relu", W_enc, b_enc, D, torch.zeros(D.shape[1]), subtract=False)
    result = Reading(made, weights=path)
    _activation(path, kind, module, w, hints, result)
    result.found.append(
        f"{kind}, {'archetypal' if 'dictionary.W' in w else 'classic'} dictionary, {how}"
    )
    if not module:
        result.assumed.append(
            "a class that a state dict does not say: "
            + ("JumpSAE, since it has thresholds" if kind == "JumpSAE" else "TopKSAE")
        )
        if "encoder.final_block.1.weight" in w or "dictionary.W" in w:
            result.assumed.append(
                "BatchNorm's eps 1e-5 and delta 1.0, which it does not say either"
            )
    return result


def _tensors(content: Any) -> dict[str, Tensor]:
    """By name, the dictionary under its own where a tied encoder has it as well, or alone."""
    tensors = state_dict_of(content)
    tied = {n: t for n, t in tensors.items() if n.startswith("encoder.tied_to.")}
    rest = {n: t for n, t in tensors.items() if n not in tied}
    return {n.replace("encoder.tied_to.", "dictionary."): t for n, t in tied.items()} | rest


def _activation(
    path: Path,
    kind: str,
    module: dict[str, Any],
    w: dict[str, Tensor],
    hints: Hints,
    result: Reading,
) -> None:
    """What the class does with its codes."""
    made = result.sae
    if kind in ("TopKSAE", "RATopKSAE"):
        k = hints.k if hints.k is not None else module.get("top_k")
        if not is_a(k, int):
            raise ArtifactError(
                path, "a state dict that does not say k", "--k: how many are kept", "Give --k."
            )
        made.architecture, made.k = "topk", k
        result.found.append(f"k = {k}")
    elif kind == "BatchTopKSAE":
        threshold = module.get("running_threshold")
        if not isinstance(threshold, Tensor) or threshold.dim() or not bool(threshold.isfinite()):
            raise ArtifactError(
                path,
                "a BatchTopKSAE without a running_threshold",
                "one that has been trained: without it there is no evaluation",
            )
        made.architecture, made.inclusive = "jumprelu", True
        made.threshold = torch.full_like(made.b_enc, float(threshold))
        result.found.append(f"running_threshold {float(threshold):.6g}, for every latent")
    elif kind != "SAE":
        made.architecture, made.inclusive = "jumprelu", True
        made.threshold = w["thresholds"].exp()
        result.found.append("thresholds: exp of those stored, which fire too")


def _expressible(path: Path, kind: str, module: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    if kind not in _CLASSES:
        raise ArtifactError(
            path,
            f"an overcomplete {kind!r:.40}",
            f"one of {', '.join(_CLASSES)}, each one linear encoding and a threshold or k",
            "Use another SAE.",
        )
    if any(name.startswith("encoder.mlp_blocks") for name in tensors):
        raise ArtifactError(path, "an encoder of several layers", "one linear layer")
    last = _inner(module, "encoder").get("_modules", {}).get("final_activation")
    if isinstance(last, Record) and not last.class_name.endswith((".ReLU", ".Identity")):
        raise ArtifactError(path, f"codes by {last.class_name.rpartition('.')[2]!r:.40}", "ReLU")
    if isinstance(last, Record) and last.class_name.endswith(".Identity") and "Jump" not in kind:
        raise ArtifactError(path, "codes without ReLU", "ReLU")


def _taken(path: Path, tensors: dict[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The tensors by name, of any kind of encoder and dictionary; a `tied` encoder has no weights."""
    shapes = dict(_ARCHETYPAL if "dictionary.W" in tensors else _CLASSIC)
    optional = {"thresholds": "F", "encoder.bias": "F"}
    if "encoder.weight" in tensors:
        shapes |= _MATRIX
    elif not tied:
        shapes |= _LINEAR
        optional = {"thresholds": "F"}
    if _COUNTER in tensors or any(name in tensors for name in _NORM):
        shapes |= _NORM
    fused = "dictionary._fused_dictionary"
    ignored = (_COUNTER, fused, "bandwidth")
    return take(path, tensors, shapes, optional=optional, ignored=ignored)


def _encoder(w: dict[str, Tensor], module: dict[str, Any], D: Tensor) -> tuple[Tensor, Tensor]:
    """W_enc (d, F) and b_enc (F), BatchNorm's running statistics folded in; D is what it is tied to."""
    if "encoder.final_block.0.weight" not in w:
        b = w.get("encoder.bias", torch.zeros(len(D)))
        return w.get("encoder.weight", D).t().contiguous(), b
    W, b = w["encoder.final_block.0.weight"].double(), w["encoder.final_block.0.bias"].double()
    if "encoder.final_block.1.weight" in w:
        norm = {n.rpartition(".")[2]: w[n].double() for n in _NORM}
        eps = _inner(module, "encoder", "final_block", "1").get("eps", 1e-5)
        grow = norm["weight"] / (norm["running_var"] + float(eps)).sqrt()
        W, b = W * grow[:, None], (b - norm["running_mean"]) * grow + norm["bias"]
    return W.t().float().contiguous(), b.float()


def _decoder(w: dict[str, Tensor], module: dict[str, Any], path: Path) -> tuple[Tensor, str]:
    """The fused dictionary D (F, d), and how it came about."""
    inner = _inner(module, "dictionary")
    fused = inner.get("_fused_dictionary")
    if isinstance(fused, Tensor) and inner.get("training") is False:
        rows = w.get("dictionary._weights", w.get("dictionary.Relax"))
        if rows is None or fused.shape != rows.shape or not bool(fused.isfinite().all()):
            raise ArtifactError(path, "a fused dictionary of another shape", "that of the weights")
        return fused.float(), "as it was fused"
    if "dictionary.W" in w:
        W = w["dictionary.W"].relu().double()
        W = W / (W.sum(-1, keepdim=True) + 1e-8)
        relax = w["dictionary.Relax"].double()
        delta = float(inner.get("delta", 1.0))
        relax = relax * (delta / relax.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
        D, how = W @ w["dictionary.C"].double() + relax, "made of its points"
    elif inner:
        D, how = _normalised(w["dictionary._weights"].double(), inner, path)
    else:
        D, how = _unnamed(w["dictionary._weights"].double())
    return (D * torch.exp(w["dictionary.multiplier"].double())).float(), how


def _unnamed(weights: Tensor) -> tuple[Tensor, str]:
    """The rows of a state dict, which does not name its normalisation. Training writes the normalised
    rows back, one step of the optimiser aside: l2 where their lengths say so, else as they are."""
    norms = weights.norm(dim=1, keepdim=True)
    if bool(((norms - 1).abs() < _NEAR).all()):
        return weights / (norms + 1e-8), "normalize_l2, by the rows' lengths"
    low, high = (float(v) for v in norms.aminmax())
    return weights, f"rows as they are, of length {low:.3g} to {high:.3g}"


def _normalised(weights: Tensor, inner: dict[str, Any], path: Path) -> tuple[Tensor, str]:
    """The rows as DictionaryLayer's normalisation leaves them; l2 unless the module says another."""
    named = inner.get("normalization")
    kind = getattr(named, "class_name", ".normalize_l2").rpartition(".")[2]
    if kind == "normalize_identity":
        return weights, "rows as they are"
    order = 1 if kind.endswith("l1") else 2
    norms = weights.norm(p=order, dim=1, keepdim=True)
    if kind in ("normalize_l2", "normalize_l1"):
        return weights / (norms + 1e-8), kind
    if kind in ("normalize_max_l2", "normalize_max_l1"):
        return weights / norms.amax(), kind
    raise ArtifactError(path, f"normalization {kind!r:.60}", "one of overcomplete's own")


def _inner(module: dict[str, Any], *names: str) -> dict[str, Any]:
    """The attributes of a module inside a pickled module; empty for a state dict."""
    for name in names:
        child = (module.get("_modules") or {}).get(name)
        module = child.values if isinstance(child, Record) else {}
    return module
