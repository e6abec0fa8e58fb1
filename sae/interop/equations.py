"""What each library computes from its files, written once more: the other side of the self-check.

One function a format takes the tensors and the config as they lie on disk and gives the library's own
encode and decode as its authors wrote them (the forward pass that each docstring of `sae.interop.*`
cites), with no word of `ForeignSAE`, of folding or of what a reader made of the files. Knows formats a
second time, on purpose: a mistake in a reader shows because nothing here is shared with it but the
opening of files. Checks neither shapes nor names; the reader has done that before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sae.interop.foreign import Run
from sae.interop.pickles import Record, state_dict_of
from sae.interop.source import Hints, Source, flat_yaml, read_safetensors
from sae.storage import read_json

Encode = Callable[[Float[Tensor, "tokens d_in"]], Float[Tensor, "tokens d_sae"]]


@dataclass(frozen=True)
class Raw:
    """A format's files as they are: tensors in float32 by their own names, and what else was said."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    hints: Hints
    said: dict[str, Any] = field(default_factory=dict)
    """Of a pickle, what is no tensor: attributes of a module, entries of a dict."""
    class_name: str = ""

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


def run_of(name: str, source: Source, weights: Path | None, hints: Hints) -> Run | None:
    """The equations of format `name` on the file of weights that its reader took; None if there are
    none written here."""
    if name not in _EQUATIONS or weights is None:
        return None
    return _EQUATIONS[name](_raw(name, source, weights, hints))


def _raw(name: str, source: Source, path: Path, hints: Hints) -> Raw:
    said: dict[str, Any] = {}
    class_name = ""
    if name == "saev":
        from sae.interop.saev import contents

        said, content = contents(path)
    else:
        content = None if path.suffix == ".safetensors" else source.pickle(path)
    if content is None:
        tensors = read_safetensors(path)
    else:
        inner = content
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                inner = content[key]
        tensors = state_dict_of(inner)
        if isinstance(content, Record):
            said, class_name = content.values, content.class_name
        elif inner is not content:
            said = {k: v for k, v in content.items() if v is not inner}
    if (path.parent / "norm_stats.pt").is_file() and name == "visaebench":
        said = {**said, "norm_stats": source.pickle(path.parent / "norm_stats.pt")}
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    return Raw(path, tensors, _config(path, said), hints, said, class_name)


def _config(path: Path, said: dict[str, Any]) -> dict[str, Any]:
    """The JSON beside the weights or above `checkpoints/`, else the config inside the pickle."""
    folders = [path.parent]
    if path.parent.name == "checkpoints":
        folders.append(path.parent.parent)
    for folder in folders:
        for name in ("cfg.json", "config.json"):
            if (folder / name).is_file():
                return read_json(folder / name)
        for name in ("config.yaml", "config.yml"):
            if (folder / name).is_file():
                return flat_yaml(folder / name)
    inside = said.get("cfg", said.get("config", {}))
    return inside.values if isinstance(inside, Record) else inside if inside else {}


def _largest(values: Tensor, k: int, by: Tensor | None = None) -> Tensor:
    """`values` where `by` (themselves) is among the k largest of its row, else 0."""
    order = values if by is None else by
    kept = torch.zeros_like(order, dtype=torch.bool)
    kept.scatter_(-1, order.sort(dim=-1, descending=True).indices[..., :k], True)
    return values * kept


def _patchsae(raw: Raw) -> Run:
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        latents = F.relu((x - raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"])
        return latents, latents @ raw["W_dec"] + raw["b_dec"]

    return run


def _prisma(raw: Raw) -> Run:
    norm = raw.config.get("normalize_activations", "layer_norm")
    topk = raw.config.get("activation_fn_str") == "topk"
    k = (raw.config.get("activation_fn_kwargs") or {}).get("k", 1)

    def act(pre: Tensor) -> Tensor:
        return F.relu(_largest(pre, k)) if topk else F.relu(pre)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        n, shift, size = _token_norm(x, norm)
        inner = n - raw["b_dec"]
        if "r_mag" in raw:
            on = (inner @ raw["W_enc"] + raw["b_gate"] > 0).float()
            latents = on * act(inner @ (raw["W_enc"] * raw["r_mag"].exp()) + raw["b_mag"])
        else:
            latents = act(inner @ raw["W_enc"] + raw["b_enc"])
        return latents, (latents @ raw["W_dec"] + raw["b_dec"]) * size + shift

    return run


def _token_norm(x: Tensor, kind: str) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """The normalised tokens, and what undoes it: `* size + shift`."""
    if kind == "layer_norm":
        mean = x.mean(-1, keepdim=True)
        std = x.var(-1, keepdim=True, unbiased=True).sqrt()
        return (x - mean) / (std + 1e-5), mean, std
    if kind == "constant_norm_rescale":
        factor = math.sqrt(x.shape[-1]) / x.pow(2).sum(-1, keepdim=True).sqrt()
        return x * factor, 0.0, 1 / factor
    return x, 0.0, 1.0


def _saelens(raw: Raw) -> Run:
    kind, c = raw.config["architecture"], raw.config
    norms = raw["W_dec"].norm(dim=-1)
    rescaled = bool(c.get("rescale_acts_by_decoder_norm", kind.endswith("batchtopk")))
    scaling = read_json(p) if (p := raw.path.parent / "activation_scaler.json").is_file() else {}
    factor = scaling.get("scaling_factor") or 1.0
    beside = raw.path.parent / "activation_whitening.safetensors"
    white = read_safetensors(beside) if scaling.get("has_whitening") and beside.is_file() else None
    theta = raw.tensors.get("threshold", raw.tensors.get("topk_threshold"))
    if "log_threshold" in raw:
        theta = raw["log_threshold"].exp()

    def act(pre: Tensor) -> Tensor:
        if kind == "topk":
            return F.relu(_largest(pre, c["k"]))
        if kind == "abstopk":
            return _largest(pre, c["k"], by=pre.abs())
        return F.relu(pre) if theta is None else F.relu(pre) * (pre > theta)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        z = x * factor
        if white is not None:
            z = ((z.double() - white["mean"]) @ white["matrix"]).float()
        z, shift, size = _token_norm(z, c.get("normalize_activations", "none"))
        inner = z - raw["b_dec"] * float(c.get("apply_b_dec_to_input", True))
        if kind == "gated":
            on = (inner @ raw["W_enc"] + raw["b_gate"] > 0).float()
            latents = on * F.relu(inner @ (raw["W_enc"] * raw["r_mag"].exp()) + raw["b_mag"])
        else:
            pre = inner @ raw["W_enc"] + raw["b_enc"]
            latents = act(pre * norms if rescaled else pre)
        out = (latents / norms if rescaled else latents) @ raw["W_dec"] + raw["b_dec"]
        out = out * size + shift
        if white is not None:
            out = (out.double() @ white["inverse_matrix"] + white["mean"]).float()
        # what training ends with counts latents in units of the decoder that scaling was folded into
        return latents / factor if rescaled and white is None else latents, out / factor

    return run


def _sparsify(raw: Raw) -> Run:
    signed, k = bool(raw.config.get("signed")), raw.config["k"]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = F.linear(x - raw["b_dec"], raw["encoder.weight"], raw["encoder.bias"])
        latents = _largest(pre, k, by=pre.abs()) if signed else _largest(F.relu(pre), k)
        return latents, latents @ raw["W_dec"] + raw["b_dec"]

    return run


def _dictionary_learning(raw: Raw) -> Run:
    trainer = raw.config.get("trainer") or {}
    kind = trainer.get("dict_class") or _class_by_names(raw)
    if kind == "AutoEncoder":
        return _normalised_auto_encoder(raw)
    encode, bias = _DICTIONARIES[kind](raw)
    rows = raw["W_dec"] if "W_dec" in raw else raw["decoder.weight"].t()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        latents = encode(x)
        return latents, latents @ rows + bias

    return run


def _class_by_names(raw: Raw) -> str:
    """sae-for-vlm publishes weights alone; its two classes differ by their names."""
    return "MatryoshkaBatchTopKSAE" if "group_sizes" in raw else "BatchTopKSAE"


def _normalised_auto_encoder(raw: Raw) -> Run:
    """AutoEncoder.from_pretrained brings the decoder's columns to unit length; x_hat stays."""
    sizes = raw["decoder.weight"].norm(dim=0)
    if torch.allclose(sizes, torch.ones_like(sizes)):
        sizes = torch.ones_like(sizes)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        inner = F.linear(x - raw["bias"], raw["encoder.weight"]) * sizes
        latents = F.relu(inner + raw["encoder.bias"] * sizes)
        return latents, F.linear(latents / sizes, raw["decoder.weight"], raw["bias"])

    return run


def _linear(raw: Raw, x: Tensor) -> Tensor:
    return F.linear(x, raw["encoder.weight"], raw["encoder.bias"])


def _auto_encoder_new(raw: Raw) -> tuple[Encode, Tensor]:
    return lambda x: F.relu(_linear(raw, x)), raw["decoder.bias"]


def _gated_auto_encoder(raw: Raw) -> tuple[Encode, Tensor]:
    def encode(x: Tensor) -> Tensor:
        inner = F.linear(x - raw["decoder_bias"], raw["encoder.weight"])
        gate = (inner + raw["gate_bias"] > 0).float()
        return gate * F.relu(raw["r_mag"].exp() * inner + raw["mag_bias"])

    return encode, raw["decoder_bias"]


def _jumprelu_auto_encoder(raw: Raw) -> tuple[Encode, Tensor]:
    def encode(x: Tensor) -> Tensor:
        pre = x @ raw["W_enc"] + raw["b_enc"]
        return F.relu(pre * (pre > raw["threshold"]))

    return encode, raw["b_dec"]


def _topk_auto_encoder(raw: Raw) -> tuple[Encode, Tensor]:
    k = int(raw["k"])
    return lambda x: _largest(F.relu(_linear(raw, x - raw["b_dec"])), k), raw["b_dec"]


def _batch_topk(raw: Raw) -> tuple[Encode, Tensor]:
    def encode(x: Tensor) -> Tensor:
        f = F.relu(_linear(raw, x - raw["b_dec"]))
        return f * (f > raw["threshold"])

    return encode, raw["b_dec"]


def _matryoshka(raw: Raw) -> tuple[Encode, Tensor]:
    def encode(x: Tensor) -> Tensor:
        f = F.relu((x - raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"])
        return f * (f > raw["threshold"])

    return encode, raw["b_dec"]


_DICTIONARIES: dict[str, Callable[[Raw], tuple[Encode, Tensor]]] = {
    "AutoEncoderNew": _auto_encoder_new,
    "GatedAutoEncoder": _gated_auto_encoder,
    "JumpReluAutoEncoder": _jumprelu_auto_encoder,
    "AutoEncoderTopK": _topk_auto_encoder,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "MatroyshkaBatchTopKSAE": _matryoshka,
}


def _saev(raw: Raw) -> Run:
    schema, config = raw.said.get("schema"), raw.said.get("cfg", raw.said)
    told = config.get("activation") or {}
    kind = raw.said["cls"] if raw.said.get("cls") in ("TopK", "BatchTopK") else ""
    kind = kind or str(told.get("cls", told.get("kind", "relu")))
    kind = kind.lower().replace("-", "")
    k = (told.get("params") or told or config).get("top_k", config.get("top_k", 0))
    offset = raw["b_dec"] if schema in (None, 1) else torch.zeros_like(raw["b_dec"])
    mean, scale = _saev_scaling(raw)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = ((x - mean) / scale - offset) @ raw["W_enc"] + raw["b_enc"]
        if kind == "batchtopk" and "activation.threshold" in raw:
            latents = pre * (pre > raw["activation.threshold"])
        elif kind in ("topk", "batchtopk"):
            latents = _largest(pre, min(k, pre.shape[-1]))
        else:
            latents = F.relu(pre)
        return latents, (latents @ raw["W_dec"] + raw["b_dec"]) * scale + mean

    return run


def _saev_scaling(raw: Raw) -> tuple[Tensor, float]:
    """act_mean and scalar of the loader that old SAEs were trained behind."""
    if raw.hints.norm is not None:
        return raw.hints.norm
    settings = {**raw.config, **raw.config.get("data", {}), **raw.config.get("train_data", {})}
    if isinstance(settings.get("scale_mean"), list):
        return torch.tensor(settings["scale_mean"]), float(settings["scale_norm"])
    return torch.zeros_like(raw["b_dec"]), 1.0


def _clipscope(raw: Raw) -> Run:
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        latents = _largest((x - raw["pre_b"]) @ raw["enc"], raw.said["k"])
        return latents, latents @ raw["dec"] + raw["pre_b"]

    return run


def _msae(raw: Raw) -> Run:
    parts = raw.path.name.split("_")
    kind = parts[2]
    decoder = raw["decoder"] if "decoder" in raw else raw["encoder"].t()
    mean, factor = torch.as_tensor(raw.said["mean_center"]), float(raw.said["scaling_factor"])

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = ((x - mean) * factor - raw["pre_bias"]) @ raw["encoder"] + raw["latent_bias"]
        if "TopK" in kind:
            pre = _largest(pre, int(parts[3]), by=pre.abs() if "abs" in kind else None)
        latents = F.relu(pre) if kind.endswith("ReLU") else pre
        return latents, (latents @ decoder + raw["pre_bias"]) / factor + mean

    return run


def _clip_topk(raw: Raw) -> Run:
    rows = raw["W_dec"]
    if raw.config.get("normalize_decoder", True):
        rows = F.normalize(rows, dim=1)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        latents = _largest(x @ raw["W_enc"] + raw["b_enc"], raw.config["k"])
        return latents, latents @ rows + raw.tensors.get("b_dec", 0.0)

    return run


def _visaebench(raw: Raw) -> Run:
    c = raw.config
    kind = str(c.get("activation", c.get("sae_type", c.get("architecture", "topk")))).lower()
    mean, std = (torch.zeros(()), 1.0) if raw.hints.norm is None else raw.hints.norm
    if raw.hints.norm is None and "norm_stats" in raw.said:
        mean, std = raw.said["norm_stats"]["mean"], raw.said["norm_stats"]["std"]
    if "encoder.weight" in raw:
        W, b, D = raw["encoder.weight"], raw["encoder.bias"], raw["decoder.weight"]
    else:
        W, b = raw["encoder.final_block.0.weight"], raw["encoder.final_block.0.bias"]
        D = (
            raw["dictionary._weights"]
            * raw.tensors.get("dictionary.multiplier", torch.zeros(())).exp()
        )
    threshold = c.get("threshold", raw.tensors.get("_running_threshold", 0.0))
    jumps = raw.tensors.get("jump_thresholds", raw.tensors.get("thresholds", 0.01))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = F.relu((x - mean) / std @ W.t() + b)
        if kind == "topk":
            codes = _largest(codes, c["k"])
        else:
            codes = codes * (codes >= threshold if kind == "batchtopk" else codes > jumps)
        return codes, (codes @ D + raw.tensors.get("decoder.bias", 0.0)) * std + mean

    return run


def _overcomplete(raw: Raw) -> Run:
    for name, tensor in list(raw.tensors.items()):  # a tied encoder holds the dictionary itself
        raw.tensors.setdefault(name.replace("encoder.tied_to.", "dictionary."), tensor)
    kind = raw.class_name.rpartition(".")[2]
    D = _atoms(raw)
    W = raw.tensors.get("encoder.weight", raw.tensors.get("encoder.final_block.0.weight", D))
    b = raw.tensors.get("encoder.bias", raw.tensors.get("encoder.final_block.0.bias", 0.0))

    def pre_codes(x: Tensor) -> Tensor:
        pre = x @ W.t() + b
        if "encoder.final_block.1.running_var" not in raw:
            return pre
        layer = _inside(raw.said, "encoder", "final_block", "1")
        mean, var, scale, shift = (raw[f"encoder.final_block.1.{name}"] for name in _BATCH_NORM)
        return F.batch_norm(pre, mean, var, scale, shift, eps=float(layer.get("eps", 1e-5)))

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        codes = F.relu(pre_codes(x))
        if "thresholds" in raw:
            codes = codes * ~(codes < raw["thresholds"].exp())
        elif kind == "BatchTopKSAE":
            codes = codes * (codes >= raw.said["running_threshold"])
        elif kind != "SAE":
            k = raw.hints.k if raw.hints.k is not None else raw.said["top_k"]
            codes = _largest(codes, k)
        return codes, codes @ D

    return run


_BATCH_NORM = ("running_mean", "running_var", "weight", "bias")


def _atoms(raw: Raw) -> Tensor:
    """get_dictionary() in evaluation: what .eval() fused, or would fuse."""
    layer = _inside(raw.said, "dictionary")
    fused = layer.get("_fused_dictionary")
    if isinstance(fused, Tensor) and layer.get("training") is False:
        return fused.float()
    scale = raw["dictionary.multiplier"].exp()
    if "dictionary.W" in raw:
        W = F.relu(raw["dictionary.W"])
        W = W / (W.sum(-1, keepdim=True) + 1e-8)
        limit = float(layer.get("delta", 1.0)) / raw["dictionary.Relax"].norm(dim=-1, keepdim=True)
        return (W @ raw["dictionary.C"] + raw["dictionary.Relax"] * limit.clamp(max=1)) * scale
    weights = raw["dictionary._weights"]
    l1, l2 = weights.abs().sum(1, keepdim=True), weights.pow(2).sum(1, keepdim=True).sqrt()
    if not layer:  # a state dict, with the layer's default normalisation where it can be that
        return (weights / (l2 + 1e-8) if bool(((l2 - 1).abs() < 0.05).all()) else weights) * scale
    name = getattr(layer.get("normalization"), "class_name", "").rpartition("normalize_")[2]
    sizes = {"l1": l1 + 1e-8, "l2": l2 + 1e-8, "max_l1": l1.amax(), "max_l2": l2.amax()}
    return weights / sizes.get(name, 1.0) * scale


def _inside(said: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        child = (said.get("_modules") or {}).get(name)
        said = child.values if isinstance(child, Record) else {}
    return said


_EQUATIONS: dict[str, Callable[[Raw], Run]] = {
    "saelens": _saelens,
    "sparsify": _sparsify,
    "fastsae": _patchsae,
    "patchsae": _patchsae,
    "sae_for_vlm": _dictionary_learning,
    "dictionary_learning": _dictionary_learning,
    "visaebench": _visaebench,
    "saev": _saev,
    "prisma": _prisma,
    "clipscope": _clipscope,
    "overcomplete": _overcomplete,
    "msae": _msae,
    "clip_topk": _clip_topk,
}
