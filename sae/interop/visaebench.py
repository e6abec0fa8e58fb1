"""visaebench's folders: `config.json` (or .yaml, .yml) {activation, input_dim, hidden_dim, k, threshold}
and weights.

encoder.weight (F, d), encoder.bias, decoder.weight (F, d: not a torch.nn.Linear's), decoder.bias; or
overcomplete's names. Nothing is subtracted before encoding. topk keeps the k largest of relu,
batchtopk every code not below `threshold`, jumprelu every code above its own of `jump_thresholds`.
Its published SAEs take patches as (x - mean) / std, by a vector and one number that are not in their
files: `norm_stats.pt` of its cache has them, beside the weights or given (`Hints.norm`).
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sae.architectures import architecture
from sae.config import SAEConfig
from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, flat_yaml, norm_of, same, take, tensors_of
from sae.storage import replacing, write_json

NAME = "visaebench"
TITLE = "visaebench: config.json and sae.pt or model.safetensors"
FILES = ("sae.pt", "model.safetensors", "model.pt")
CONFIGS = ("config.json", "config.yaml", "config.yml")
_SIMPLE = {"encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "Fd"}
_OVERCOMPLETE = {
    "encoder.final_block.0.weight": "Fd",
    "encoder.final_block.0.bias": "F",
    "dictionary._weights": "Fd",
}


def detect(source: Source) -> bool:
    if not any(source.has(name) for name in CONFIGS) or not any(map(source.has, FILES)):
        return False
    if source.has("config.yaml") or source.has("config.yml"):
        return not source.has("config.json")
    config = source.config("config.json")
    names = set(config[1]) if config else set()
    return bool(names & {"activation", "sae_type"}) and not names & {"activation_fn_str", "trainer"}


def read(source: Source, hints: Hints) -> Reading:
    path, config = _config(source)
    weights = source.weights(FILES) or source.folder / FILES[0]
    tensors = tensors_of(source, weights, *FILES)
    kind = config.get("activation", config.get("sae_type", config.get("architecture", "topk")))
    kind = kind.lower() if isinstance(kind, str) else kind
    more = {"jump_thresholds": "F", "thresholds": "F"} if kind == "jumprelu" else {}
    more |= {"_running_threshold": ""} if kind == "batchtopk" else {}
    W_enc, b_enc, W_dec, b_dec, w = _weights(weights, tensors, more)
    same(path, config, "input_dim", W_enc.shape[0])
    same(path, config, "hidden_dim", W_enc.shape[1])
    made = ForeignSAE("topk", W_enc, b_enc, W_dec, b_dec, subtract=False)
    result = Reading(made, found=[f"{kind}, {W_enc.shape[0]} to {W_enc.shape[1]}"], weights=weights)
    _activation(path, config, str(kind), w, hints, result)
    norm = hints.norm or _norm_beside(source)
    if norm is None:
        result.assumed.append(
            "raw activations: visaebench's published SAEs take (x - mean) / std; give --norm FILE"
        )
    else:
        made.mean, made.scale = norm
        result.found.append(f"inputs centred and divided by {made.scale:.6g}: folded in")
    result.tokens = "patches"
    name = config.get("backbone")
    result.backbone = name if isinstance(name, str) and "/" in name else None
    layer = config.get("layer")
    result.layer = layer if isinstance(layer, int) and not isinstance(layer, bool) else None
    return result


def _activation(
    path: Path,
    config: dict[str, Any],
    kind: str,
    w: dict[str, Tensor],
    hints: Hints,
    result: Reading,
) -> None:
    """What the config's activation makes of the codes."""
    made = result.sae
    if kind == "topk":
        made.k = hints.k if hints.k is not None else field(path, config, "k", int)
    elif kind == "batchtopk":
        stored = float(w["_running_threshold"]) if "_running_threshold" in w else 0.0
        threshold = config.get("threshold")
        made.architecture, made.inclusive = "batch_topk", True
        made.threshold = (
            stored if threshold is None else field(path, config, "threshold", float, int)
        )
        made.k = field(path, config, "k", int, default=hints.k or 1)
        if threshold is None and "_running_threshold" not in w:
            result.assumed.append("threshold 0, as visaebench takes it where none is given")
    elif kind == "jumprelu":
        made.architecture = "jumprelu"
        thresholds = w.get("jump_thresholds", w.get("thresholds"))
        made.threshold = torch.full_like(made.b_enc, 0.01) if thresholds is None else thresholds
        if thresholds is None:
            result.assumed.append("thresholds 0.01, as visaebench takes them where none are given")
    else:
        raise ArtifactError(path, f"activation {kind!r:.40}", "topk, batchtopk or jumprelu")


def _norm_beside(source: Source) -> tuple[Tensor, float] | None:
    path = source.folder / "norm_stats.pt"
    return norm_of(path, source.pickle(path)) if path.is_file() else None


def _config(source: Source) -> tuple[Path, dict[str, Any]]:
    for name in CONFIGS[1:]:
        if source.has(name) and not source.has("config.json"):
            return source.folder / name, flat_yaml(source.folder / name)
    return source.need("config.json")


def write(folder: Path, cfg: SAEConfig, tensors: dict[str, Tensor]) -> None:
    """Write an SAE in visaebench's words: config.json and model.safetensors.

    b_dec's part of encoding moves into the bias. ValueError for what visaebench cannot run.
    """
    row = architecture(cfg.architecture)
    if cfg.negative != "zero" or cfg.input_norm != "none" or row.saelens is None:
        raise ValueError(
            f"visaebench has no SAE with negative={cfg.negative!r} and input_norm="
            f"{cfg.input_norm!r} ({cfg.architecture}); it can be written as artifact format 1 only."
        )
    kind = {"token": "topk", "batch": "batchtopk", None: "jumprelu"}[row.k]
    shift = tensors["b_dec"].double() @ tensors["W_enc"].double()
    stored = {
        "encoder.weight": tensors["W_enc"].t().contiguous(),
        "encoder.bias": (tensors["b_enc"].double() - shift).to(tensors["b_enc"].dtype),
        "decoder.weight": tensors["W_dec"].contiguous(),
        "decoder.bias": tensors["b_dec"].contiguous(),
    }
    content: dict[str, Any] = {"activation": kind, "input_dim": cfg.d_in, "hidden_dim": cfg.d_sae}
    content |= {"backbone": cfg.backbone.id, "layer": cfg.backbone.layer}
    if cfg.k is not None:
        content["k"] = cfg.k
    if kind == "batchtopk":
        exact = torch.tensor(max(cfg.threshold or 0.0, 0.0))
        content["threshold"] = float(torch.nextafter(exact, torch.full_like(exact, torch.inf)))
    elif kind == "jumprelu":
        zero = torch.zeros_like(tensors["b_enc"])
        stored["jump_thresholds"] = tensors.get("threshold", zero).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as temporary:
        save_file(stored, temporary)
    write_json(folder / "config.json", content)


def _weights(
    path: Path, tensors: dict[str, Tensor], more: dict[str, str]
) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """W_enc (d, F), b_enc, W_dec (F, d), b_dec, and everything taken, of either naming."""
    if "encoder.final_block.0.weight" in tensors:
        w = take(path, tensors, _OVERCOMPLETE, optional={"dictionary.multiplier": "", **more})
        W, b, D = (w[name] for name in _OVERCOMPLETE)
        if "dictionary.multiplier" in w:
            D = D * w["dictionary.multiplier"].exp()
        return W.t(), b, D, torch.zeros(W.shape[1]), w
    w = take(path, tensors, _SIMPLE, optional={"decoder.bias": "d", **more})
    W, b, D = (w[name] for name in _SIMPLE)
    return W.t(), b, D, w.get("decoder.bias", torch.zeros(W.shape[1])), w
