"""SAELens and eai-sparsify: cfg.json beside safetensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import torch as safetensors_torch
from torch import Tensor

from sae.interop import Hints
from tests.interop.published.parts import (
    D,
    K,
    N,
    Published,
    Weights,
    as_json,
    as_safetensors,
    square,
    topk,
    weights,
)


def saelens(kind: str) -> Callable[[Path], Published]:
    """Every architecture of residual SAEs, and its options."""

    def make(folder: Path) -> Published:
        w = square()
        extra: dict[str, Any] = {}
        norms = w["W_dec"].pow(2).sum(1).sqrt()
        h = lambda x: (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]  # noqa: E731
        encode: Callable[[Tensor], Tensor] = lambda x: h(x).relu()  # noqa: E731
        plain: Callable[[Tensor, Tensor], Tensor] = lambda z, _: z @ w["W_dec"] + w["b_dec"]  # noqa: E731
        decode, tensors, architecture = plain, dict(w), kind
        if kind == "outside":
            architecture, extra = "standard", {"apply_b_dec_to_input": False}
            encode = lambda x: (x @ w["W_enc"] + w["b_enc"]).relu()  # noqa: E731
        elif kind == "layer_norm":
            architecture, extra = "standard", {"normalize_activations": "layer_norm"}
            ln = lambda x: (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-5)  # noqa: E731
            encode = lambda x: h(ln(x)).relu()  # noqa: E731
            decode = lambda z, x: plain(z, x) * x.std(-1, keepdim=True) + x.mean(-1, True)  # noqa: E731
        elif kind == "constant_norm":
            architecture, extra = "standard", {"normalize_activations": "constant_norm_rescale"}
            c = lambda x: D**0.5 / x.norm(dim=-1, keepdim=True)  # noqa: E731
            encode = lambda x: h(x * c(x)).relu()  # noqa: E731
            decode = lambda z, x: plain(z, x) / c(x)  # noqa: E731
        elif kind == "topk":
            extra = {"k": K}
            encode = lambda x: topk(h(x)).relu()  # noqa: E731
        elif kind == "rescaled":
            architecture, extra = "topk", {"k": K, "rescale_acts_by_decoder_norm": True}
            encode = lambda x: topk(h(x) * norms).relu()  # noqa: E731
            decode = lambda z, _: (z / norms) @ w["W_dec"] + w["b_dec"]  # noqa: E731
        elif kind == "abstopk":
            extra = {"k": K}
            encode = lambda x: h(x) * (topk(h(x).abs()) > 0)  # noqa: E731
        elif kind == "jumprelu":
            theta = weights(3, t=(N,))["t"] * 2
            tensors["threshold"] = theta
            encode = lambda x: h(x).relu() * (h(x) > theta)  # noqa: E731
        elif kind == "log_threshold":
            architecture, tensors["log_threshold"] = "jumprelu", weights(3, t=(N,))["t"]
            encode = lambda x: h(x).relu() * (h(x) > tensors["log_threshold"].exp())  # noqa: E731
        elif kind in (
            "batchtopk",
            "matryoshka_batchtopk",
            "scaled",
            "whitened",
            "outside whitened",
        ):
            return _checkpoint(folder, kind, w)
        elif kind == "gated":
            g = weights(7, b_gate=(N,), b_mag=(N,), r_mag=(N,))
            g["r_mag"] *= 0.3
            tensors = {**{n: t for n, t in w.items() if n != "b_enc"}, **g}
            pi = lambda x: (x - w["b_dec"]) @ w["W_enc"]  # noqa: E731
            mag = lambda x: (x - w["b_dec"]) @ (w["W_enc"] * g["r_mag"].exp()) + g["b_mag"]  # noqa: E731
            encode = lambda x: (pi(x) + g["b_gate"] > 0).float() * mag(x).relu()  # noqa: E731
        as_safetensors(tensors, folder / "sae_weights.safetensors")
        config = {"architecture": architecture, "d_in": D, "d_sae": N, "dtype": "float32"}
        config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", **extra}
        meta = {"sae_lens_version": "6.54.0", "model_name": "a/b", "hook_name": "layers.7"}
        as_json(folder / "cfg.json", {**config, "metadata": meta})
        return Published(folder, encode, decode, place=("a/b", 7, "all"))

    return make


def _checkpoint(folder: Path, kind: str, w: Weights) -> Published:
    """What SAELens writes while it trains: h ||W_dec|| against one threshold, on scaled inputs."""
    norms, theta = w["W_dec"].pow(2).sum(1).sqrt(), 4.5
    tensors = {**w, "topk_threshold": torch.tensor(theta, dtype=torch.float64)}
    config: dict[str, Any] = {"architecture": "batchtopk", "k": 4.5}
    config |= {"rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": True}
    into = outof = lambda x: x  # noqa: E731
    if kind == "matryoshka_batchtopk":
        config |= {"architecture": kind, "matryoshka_widths": [5, 20]}
    elif kind == "scaled":
        config["normalize_activations"] = "expected_average_only_in"
        as_json(folder / "activation_scaler.json", {"scaling_factor": 0.4, "has_whitening": False})
        into, outof = lambda x: 0.4 * x, lambda x: x / 0.4
    elif kind.endswith("whitened"):
        config["normalize_activations"] = "covariance_whitening"
        config["apply_b_dec_to_input"] = kind == "whitened"
        made = weights(11, M=(D, D), mean=(D,))
        matrix = torch.linalg.qr(made["M"].double()).Q * torch.linspace(0.3, 2, D).double()
        mean, back = made["mean"].double(), torch.linalg.inv(matrix)
        white = {"mean": mean, "matrix": matrix.contiguous(), "inverse_matrix": back.contiguous()}
        safetensors_torch.save_file(white, folder / "activation_whitening.safetensors")
        as_json(folder / "activation_scaler.json", {"scaling_factor": None, "has_whitening": True})
        into = lambda x: ((x.double() - mean) @ matrix).float()  # noqa: E731
        outof = lambda x: (x.double() @ back + mean).float()  # noqa: E731
    unit = 0.4 if kind == "scaled" else 1.0  # the decoder is divided by it when training ends
    taken = w["b_dec"] if config["apply_b_dec_to_input"] else torch.zeros(D)

    def encode(x: Tensor) -> Tensor:
        scaled = ((into(x) - taken) @ w["W_enc"] + w["b_enc"]) * norms
        return scaled.relu() * (scaled > theta) / unit

    as_safetensors(tensors, folder / "sae_weights.safetensors")
    meta = {"sae_lens_version": "6.54.0", "model_name": "a/b", "hook_name": "layers.7"}
    as_json(folder / "cfg.json", {**config, "d_in": D, "d_sae": N, "metadata": meta})
    decode = lambda z, _: outof((z * unit / norms) @ w["W_dec"] + w["b_dec"])  # noqa: E731
    return Published(folder, encode, decode, place=("a/b", 7, "all"))


def signed(folder: Path) -> Published:
    """sparsify of mid-2024: no relu, and the k of largest size."""
    made = sparsify(folder)
    path = made.source / "cfg.json"
    as_json(path, {**json.loads(path.read_text()), "signed": True})
    w = weights(E=(N, D), e=(N,), W=(N, D), b=(D,))
    pre = lambda x: F.linear(x - w["b"], w["E"], w["e"])  # noqa: E731
    made.encode = lambda x: pre(x) * (topk(pre(x).abs()) > 0)
    return made


def sparsify(folder: Path) -> Published:
    w = weights(E=(N, D), e=(N,), W=(N, D), b=(D,))
    folder = folder / "layers.10"
    folder.mkdir()
    state = {"encoder.weight": w["E"], "encoder.bias": w["e"], "W_dec": w["W"], "b_dec": w["b"]}
    as_safetensors(state, folder / "sae.safetensors")
    config = {"activation": "topk", "expansion_factor": 32, "num_latents": N, "k": K, "d_in": D}
    config |= {"normalize_decoder": True, "multi_topk": False, "skip_connection": False}
    as_json(folder / "cfg.json", {**config, "transcode": False})
    return Published(
        folder,
        lambda x: topk(F.linear(x - w["b"], w["E"], w["e"]).relu()),
        lambda z, _: z @ w["W"] + w["b"],
        Hints(backbone="some/backbone"),
        ("some/backbone", 10, "all"),
    )
