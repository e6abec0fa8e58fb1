"""PatchSAE and what grew from the same code: FastSAE and ViT-Prisma."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.interop.published.parts import (
    D,
    K,
    N,
    Published,
    as_json,
    forget,
    runner_config,
    square,
    topk,
    weights,
)


def patchsae(folder: Path, suffix: str = "sae.pt") -> Published:
    w = square()
    module = "src.sae_training.config"
    config = runner_config(
        module,
        "ViTSAERunnerConfig",
        d_in=D,
        d_sae=N,
        block_layer=-2,
        module_name="resid",
        class_token=False,
        gated_sae=False,
        model_name="openai/clip-vit-base-patch16",
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    path = folder / suffix
    content = {"cfg": config, "state_dict": w}
    if suffix.endswith(".gz"):
        with gzip.open(path, "wb") as file:
            pickle.dump(content, file)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix != "legacy.pt")
    forget(module)
    return Published(
        path,
        lambda x: F.relu(F.linear(x - w["b_dec"], w["W_enc"].T, w["b_enc"])),
        lambda z, _: z @ w["W_dec"] + w["b_dec"],
        place=("openai/clip-vit-base-patch16", -2, "all"),
    )


def fastsae(folder: Path) -> Published:
    w = weights(W_enc=(D, 36), b_enc=(36,), W_dec=(36, D), b_dec=(D,))
    as_json(
        folder / "backbone" / "config.json",
        {"model_hf_name": "openai/clip", "hook_target_name": "vision_model.encoder.layers.10"},
    )
    (folder / "final").mkdir()
    as_json(
        folder / "final" / "config.json",
        {"d_in": D, "d_sae_factor": 3, "architecture": "vanilla", "activation_name": "relu"},
    )
    torch.save(w, folder / "final" / "state_dict.pt")
    as_json(folder / "final" / "stats.split_val.json", {"r2": 0.5})
    return Published(
        folder,
        lambda x: F.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]),
        lambda z, _: z @ w["W_dec"] + w["b_dec"],
        place=("openai/clip", 10, "all"),
    )


def prisma(kind: str) -> Callable[[Path], Published]:
    """Its per-token layer norm (or none), and relu, topk or gated."""

    def make(folder: Path) -> Published:
        w = square()
        g = weights(7, b_gate=(N,), r_mag=(N,), b_mag=(N,))
        g["r_mag"] *= 0.3
        normed = kind != "plain"

        def stats(x: Tensor) -> tuple[Tensor, Tensor]:
            mu = x.sum(-1, keepdim=True) / D
            std = (((x - mu) ** 2).sum(-1, keepdim=True) / (D - 1)) ** 0.5
            return mu, std

        def inner(x: Tensor) -> Tensor:
            if normed:
                mu, std = stats(x)
                x = (x - mu) / (std + 1e-5)
            return (x - w["b_dec"]) @ w["W_enc"]

        def encode(x: Tensor) -> Tensor:
            if kind == "gated":
                on = (inner(x) + g["b_gate"] > 0).float()
                return on * F.relu(inner(x) @ torch.diag(g["r_mag"].exp()) + g["b_mag"])
            h = inner(x) + w["b_enc"]
            return topk(h).relu() if kind == "topk" else h.relu()

        def decode(z: Tensor, x: Tensor) -> Tensor:
            out = z @ w["W_dec"] + w["b_dec"]
            if normed:
                mu, std = stats(x)
                out = out * std + mu
            return out

        config = {
            "d_in": D,
            "hook_point_layer": 9,
            "layer_subtype": "hook_resid_post",
            "model_name": "open-clip:laion/CLIP-ViT-B-32",
            "activation_fn_str": "topk" if kind == "topk" else "relu",
            "activation_fn_kwargs": {"k": K} if kind == "topk" else {},
            "cls_token_only": False,
        }
        if not normed:
            config["normalize_activations"] = "none"
        place = ("hf-hub:laion/CLIP-ViT-B-32", 9, "all")
        if kind == "pickle":
            module = "vit_prisma.sae.config"
            cfg = runner_config(module, "VisionModelSAERunnerConfig", **config)
            torch.save({"cfg": cfg, "state_dict": w}, folder / "n_images_26.pt")
            forget(module)
            return Published(folder / "n_images_26.pt", encode, decode, place=place)
        as_json(folder / "config.json", config)
        torch.save({**w, **g} if kind == "gated" else w, folder / "n_images_2600058.pt")
        return Published(folder, encode, decode, place=place)

    return make
