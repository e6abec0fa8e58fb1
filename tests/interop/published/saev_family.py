"""saev, CLIP-Scope, MSAE and clip-topk-sae: small files that say all about themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.interop import Hints
from tests.interop.published.parts import (
    HERE,
    D,
    K,
    N,
    Published,
    as_json,
    as_safetensors,
    square,
    topk,
    weights,
)

HERE_PLACE = ("some/backbone", 3, "all")


def saev(kind: str) -> Callable[[Path], Published]:
    """A line of JSON and a state dict; nothing is subtracted, but before 31 July 2025 b_dec was."""

    def make(folder: Path) -> Published:
        w = (
            square()
            if kind != "old" and not kind.startswith("schema 1")
            else weights(W_enc=(D, 36), b_enc=(36,), W_dec=(36, D), b_dec=(D,))
        )
        h = lambda x: x @ w["W_enc"] + w["b_enc"]  # noqa: E731
        decode = lambda z, _: z @ w["W_dec"] + w["b_dec"]  # noqa: E731
        encode: Callable[[Tensor], Tensor] = lambda x: h(x).relu()  # noqa: E731
        activation: dict[str, Any] = {"cls": kind, "params": {"top_k": K}}
        state = dict(w)
        if kind in ("told", "by path"):
            activation["cls"] = "Relu"
        if activation["cls"] == "Relu":
            activation["params"] = {}
        elif kind == "TopK":
            encode = lambda x: topk(h(x))  # noqa: E731
        elif kind == "BatchTopK":
            state["activation.threshold"] = torch.tensor(1.5)
            encode = lambda x: torch.where(h(x) > 1.5, h(x), 0.0)  # noqa: E731
        header: dict[str, Any] = {
            "schema": 5,
            "cfg": {"d_model": D, "d_sae": N, "activation": activation},
            "commit": "x",
            "lib": "1",
        }
        if kind == "old":
            header = {"d_vit": D, "exp_factor": 3, "sparsity_coeff": 4e-4, "ghost_grads": False}
            mean, norm = weights(9, m=(D,))["m"] * 3, 2.5
            as_json(folder / "config.json", {"scale_mean": mean.tolist(), "scale_norm": norm})
            encode = lambda x: h((x - mean) / norm - w["b_dec"]).relu()  # noqa: E731
            decode = lambda z, _: (z @ w["W_dec"] + w["b_dec"]) * norm + mean  # noqa: E731
        hints, place = HERE, HERE_PLACE
        if kind.startswith("schema 1"):  # the class of the activation in the header, or in cfg
            header = {"schema": 1, "cls": "TopK", "cfg": {"d_vit": D, "exp_factor": 3, "top_k": K}}
            if kind == "schema 1 later":
                told = {"cls": "TopK", "params": {"top_k": K}}
                header["cls"] = "SparseAutoencoderConfig"
                header["cfg"] = {"d_vit": D, "exp_factor": 3, "activation": told}
            encode = lambda x: topk(h(x - w["b_dec"]))  # noqa: E731
        elif kind == "told":
            told = {"train_data": {"layer": 7, "tokens": "content"}}
            as_json(folder / "config.json", told)
            hints, place = Hints(backbone="some/backbone"), ("some/backbone", 7, "patches")
        elif kind == "by path":
            folder = folder / "layer_13" / "3zih0tpa"
            folder.mkdir(parents=True)
            hints = Hints(backbone="some/backbone", tokens="patches")
            place = ("some/backbone", 13, "patches")
        with (folder / "sae.pt").open("wb") as file:
            file.write((json.dumps(header) + "\n").encode())
            torch.save(state, file)
        return Published(folder, encode, decode, hints, place)

    return make


def clipscope(folder: Path) -> Published:
    w = weights(pre_b=(D,), enc=(D, N), dec=(N, D))
    folder = folder / "22_resid"
    folder.mkdir()
    content = {"n_features": N, "d_in": D, "k": 25, "model_state_dict": w}
    torch.save(content, folder / "1200013184.pt")
    return Published(
        folder / "1200013184.pt",
        lambda x: topk((x - w["pre_b"]) @ w["enc"], 25),
        lambda z, _: z @ w["dec"] + w["pre_b"],
        place=("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", 22, "all"),
    )


EMBEDDING = Hints(backbone="some/clip")
EMBEDDING_PLACE = ("some/clip", -1, "embedding")


def msae(kind: str) -> Callable[[Path], Published]:
    """A checkpoint of CLIP embeddings whose settings are in its name."""

    def make(folder: Path) -> Published:
        w = weights(encoder=(D, N), decoder=(N, D), pre_bias=(D,), latent_bias=(N,))
        mean, scale = weights(9, m=(D,))["m"], 2.5
        tied = kind == "tied"
        name = "ReLU_0.03" if kind == "ReLU" else f"{'TopKReLU' if tied else kind}_{K}_RW"
        state: dict[str, Any] = {k: v for k, v in w.items() if not tied or k != "decoder"}
        state["latents_activation_frequency"] = torch.zeros(N, dtype=torch.int64)
        content = {"model": state, "mean_center": mean, "scaling_factor": scale, "target_norm": 3.0}
        path = folder / f"{N}_{D}_{name}_{tied}_False_0.0_cc3m_train_image_100_{D}.pth"
        torch.save(content, path)
        pre = lambda x: ((x - mean) * scale - w["pre_bias"]) @ w["encoder"] + w["latent_bias"]  # noqa: E731
        rows = w["encoder"].T if tied else w["decoder"]
        encode: Callable[[Tensor], Tensor] = {
            "ReLU": lambda x: pre(x).relu(),
            "TopK": lambda x: topk(pre(x)),
            "TopKabs": lambda x: pre(x) * (topk(pre(x).abs()) > 0),
        }.get(kind, lambda x: topk(pre(x)).relu())
        decode = lambda z, _: (z @ rows + w["pre_bias"]) / scale + mean  # noqa: E731
        return Published(folder, encode, decode, EMBEDDING, EMBEDDING_PLACE)

    return make


def clip_topk(kind: str) -> Callable[[Path], Published]:
    """A folder of PyTorchModelHubMixin."""

    def make(folder: Path) -> Published:
        w = square()
        stored = {k: v for k, v in w.items() if kind != "no bias" or k != "b_dec"}
        stored |= {"feature_counts": torch.zeros(N), "total_samples": torch.tensor(0)}
        as_safetensors(stored, folder / "model.safetensors")
        config = {"input_dim": D, "hidden_dim": N, "k": K, "normalize_decoder": kind != "raw"}
        as_json(folder / "config.json", config)
        sizes = torch.ones(N, 1) if kind == "raw" else w["W_dec"].pow(2).sum(1, keepdim=True).sqrt()
        bias = torch.zeros(D) if kind == "no bias" else w["b_dec"]
        return Published(
            folder,
            lambda x: topk(x @ w["W_enc"] + w["b_enc"]),
            lambda z, _: z @ (w["W_dec"] / sizes) + bias,
            EMBEDDING,
            EMBEDDING_PLACE,
        )

    return make
