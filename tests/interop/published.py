"""Small SAEs in every published format, each with its library's own encode and decode.

The functions are written from the formats' descriptions, apart from `sae.interop`: what a reader
makes of the files must give the same numbers. d_in 12, d_sae 40.
"""

import gzip
import json
import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from sae.interop import Hints

D, N, K = 12, 40, 5
Weights = dict[str, Tensor]


@dataclass
class Published:
    """A source on disk, and what its own library computes from it."""

    source: Path
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor, Tensor], Tensor]
    """Of latents and the activations they came from (which most formats do not look at)."""
    hints: Hints = field(default_factory=Hints)
    place: tuple[str, int, str] = ("some/backbone", 3, "all")


HERE = Hints(backbone="some/backbone", layer=3, tokens="all")


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> Weights:
    """Random tensors of these shapes."""
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def square(seed: int = 0) -> Weights:
    return weights(seed, W_enc=(D, N), b_enc=(N,), W_dec=(N, D), b_dec=(D,))


def topk(h: Tensor, k: int = K) -> Tensor:
    """h where it is among the k largest of its row, 0 elsewhere."""
    kth = h.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where(h >= kth, h, 0.0)


def as_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def config_class(module: str, name: str) -> type:
    """A class that pickles under another module's name, as that library's own would."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    return made


def forget(module: str) -> None:
    """Take the made-up modules away again, so that no reader could import them."""
    for name in [n for n in sys.modules if n.split(".")[0] == module.split(".")[0]]:
        del sys.modules[name]


def runner_config(module: str, name: str, **values: object) -> object:
    config = config_class(module, name)()
    config.__dict__.update(values)
    return config


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


def dl(kind: str) -> Callable[[Path], Published]:
    """dictionary_learning's classes: nn.Linear encoders and decoders, or matrices."""

    def make(folder: Path) -> Published:
        w = square()
        enc, dec = w["W_enc"].T.contiguous(), w["W_dec"].T.contiguous()
        linear = {"encoder.weight": enc, "encoder.bias": w["b_enc"], "decoder.weight": dec}
        scalars = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(2.5)}
        g = weights(7, r_mag=(N,), gate_bias=(N,), mag_bias=(N,))
        g["r_mag"] *= 0.3
        theta = weights(8, t=(N,))["t"].abs() * 2
        pre = lambda x: F.linear(x - w["b_dec"], enc, w["b_enc"])  # noqa: E731
        raw = lambda x: F.linear(x, enc, w["b_enc"])  # noqa: E731

        def gated(x: Tensor) -> Tensor:
            inner = F.linear(x - w["b_dec"], enc)
            on = ((inner + g["gate_bias"]) > 0).float()
            return on * F.relu(torch.exp(g["r_mag"]) * inner + g["mag_bias"])

        sizes = torch.tensor([4, 10, 26])
        state, encode = {
            "AutoEncoder": ({**linear, "bias": w["b_dec"]}, lambda x: F.relu(pre(x))),
            "AutoEncoderNew": ({**linear, "decoder.bias": w["b_dec"]}, lambda x: F.relu(raw(x))),
            "AutoEncoderTopK": (
                {**linear, **scalars, "b_dec": w["b_dec"]},
                lambda x: topk(F.relu(pre(x))),
            ),
            "BatchTopKSAE": (
                {**linear, **scalars, "b_dec": w["b_dec"]},
                lambda x: F.relu(pre(x)) * (F.relu(pre(x)) > 2.5),
            ),
            "unset": (
                {**linear, **scalars, "threshold": torch.tensor(-1.0), "b_dec": w["b_dec"]},
                lambda x: F.relu(pre(x)) * (F.relu(pre(x)) > -1),
            ),
            "MatroyshkaBatchTopKSAE": (
                {**w, **scalars, "group_sizes": sizes},
                lambda x: F.relu(pre(x)) * (F.relu(pre(x)) > 2.5),
            ),
            "JumpReluAutoEncoder": (
                {**w, "threshold": theta},
                lambda x: F.relu(raw(x) * (raw(x) > theta)),
            ),
            "GatedAutoEncoder": (
                {"encoder.weight": enc, "decoder.weight": dec, "decoder_bias": w["b_dec"], **g},
                gated,
            ),
        }[kind]
        torch.save(state, folder / "ae.pt")
        trainer = {"dict_class": "BatchTopKSAE" if kind == "unset" else kind}
        trainer |= {"activation_dim": D, "dict_size": N, "layer": "", "lm_name": ""}
        if "k" in state:
            trainer["k"] = K
        as_json(folder / "config.json", {"trainer": trainer, "buffer": {}})
        decode = lambda z, _: F.linear(z, dec, w["b_dec"])  # noqa: E731
        return Published(folder, encode, decode, HERE)

    return make


def sae_for_vlm(folder: Path) -> Published:
    variant = "matroyshka_batch_top_k_20_x1"
    name = f"imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_{variant}"
    trainer = folder / variant / name / "trainer_0"
    (trainer / "checkpoints").mkdir(parents=True)
    made = dl("MatroyshkaBatchTopKSAE")(trainer)
    (trainer / "ae.pt").rename(trainer / "checkpoints" / "ae_100000.pt")
    made.source, made.hints = trainer / "checkpoints" / "ae_100000.pt", Hints()
    made.place = ("openai/clip-vit-large-patch14-336", 22, "cls")
    return made


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
        elif kind == "gated":
            g = weights(7, b_gate=(N,), b_mag=(N,), r_mag=(N,))
            g["r_mag"] *= 0.3
            tensors = {**{n: t for n, t in w.items() if n != "b_enc"}, **g}
            pi = lambda x: (x - w["b_dec"]) @ w["W_enc"]  # noqa: E731
            mag = lambda x: (x - w["b_dec"]) @ (w["W_enc"] * g["r_mag"].exp()) + g["b_mag"]  # noqa: E731
            encode = lambda x: (pi(x) + g["b_gate"] > 0).float() * mag(x).relu()  # noqa: E731
        save_file(tensors, folder / "sae_weights.safetensors")
        config = {"architecture": architecture, "d_in": D, "d_sae": N, "dtype": "float32"}
        config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", **extra}
        meta = {"sae_lens_version": "6.54.0", "model_name": "a/b", "hook_name": "layers.7"}
        as_json(folder / "cfg.json", {**config, "metadata": meta})
        return Published(folder, encode, decode, place=("a/b", 7, "all"))

    return make


def saev(kind: str) -> Callable[[Path], Published]:
    """A line of JSON and a state dict; nothing is subtracted."""

    def make(folder: Path) -> Published:
        w = (
            square()
            if kind != "old"
            else weights(W_enc=(D, 36), b_enc=(36,), W_dec=(36, D), b_dec=(D,))
        )
        h = lambda x: x @ w["W_enc"] + w["b_enc"]  # noqa: E731
        decode = lambda z, _: z @ w["W_dec"] + w["b_dec"]  # noqa: E731
        encode: Callable[[Tensor], Tensor] = lambda x: h(x).relu()  # noqa: E731
        activation: dict[str, Any] = {"cls": kind, "params": {"top_k": K}}
        state = dict(w)
        if kind == "Relu":
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
            encode = lambda x: h((x - mean) / norm).relu()  # noqa: E731
            decode = lambda z, _: (z @ w["W_dec"] + w["b_dec"]) * norm + mean  # noqa: E731
        with (folder / "sae.pt").open("wb") as file:
            file.write((json.dumps(header) + "\n").encode())
            torch.save(state, file)
        return Published(folder, encode, decode, HERE)

    return make


def overcomplete(kind: str) -> Callable[[Path], Published]:
    """State dicts of the classic and the archetypal dictionary, with or without BatchNorm."""

    def make(folder: Path) -> Published:
        w = weights(W=(N, D), b=(N,), D=(N, D))
        state = {"encoder.final_block.0.weight": w["W"], "encoder.final_block.0.bias": w["b"]}
        state["dictionary.multiplier"] = torch.tensor(0.4)
        atoms = w["D"] / w["D"].norm(dim=1, keepdim=True)
        h = lambda x: x @ w["W"].T + w["b"]  # noqa: E731
        pre: Callable[[Tensor], Tensor] = h
        if kind == "norm":
            n = weights(4, weight=(N,), bias=(N,), running_mean=(N,), running_var=(N,))
            n["running_var"] = n["running_var"].abs() + 0.5
            state |= {f"encoder.final_block.1.{name}": t for name, t in n.items()}
            state["encoder.final_block.1.num_batches_tracked"] = torch.tensor(9)
            pre = lambda x: F.batch_norm(  # noqa: E731
                h(x), n["running_mean"], n["running_var"], n["weight"], n["bias"], eps=1e-5
            )
        if kind == "archetypal":
            a = weights(5, W=(N, 20), C=(20, D), R=(N, D))
            rows = a["W"].abs() / a["W"].abs().sum(1, keepdim=True)
            relax = a["R"] / a["R"].norm(dim=1, keepdim=True) * 0.7
            state |= {"dictionary.W": rows, "dictionary.C": a["C"], "dictionary.Relax": relax}
            atoms = rows @ a["C"] + relax
        else:
            state["dictionary._weights"] = atoms
        torch.save(state, folder / "sae.pt")
        return Published(
            folder,
            lambda x: topk(pre(x).relu()),
            lambda z, _: z @ (atoms * torch.exp(torch.tensor(0.4))),
            Hints(backbone="some/backbone", layer=3, tokens="all", k=K),
        )

    return make


def sparsify(folder: Path) -> Published:
    w = weights(E=(N, D), e=(N,), W=(N, D), b=(D,))
    folder = folder / "layers.10"
    folder.mkdir()
    state = {"encoder.weight": w["E"], "encoder.bias": w["e"], "W_dec": w["W"], "b_dec": w["b"]}
    save_file(state, folder / "sae.safetensors")
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


def visaebench(kind: str) -> Callable[[Path], Published]:
    def make(folder: Path) -> Published:
        w = weights(E=(N, D), e=(N,), W=(N, D), b=(D,))
        codes = lambda x: F.relu(x @ w["E"].T + w["e"])  # noqa: E731
        state = {"encoder.weight": w["E"], "encoder.bias": w["e"], "decoder.weight": w["W"]}
        state["decoder.bias"] = w["b"]
        config: dict[str, Any] = {"activation": kind, "input_dim": D, "hidden_dim": N, "k": K}
        decode = lambda z, _: z @ w["W"] + w["b"]  # noqa: E731
        if kind == "topk":
            encode = lambda x: topk(codes(x))  # noqa: E731
            torch.save(state, folder / "sae.pt")
        elif kind == "batchtopk":
            config["threshold"] = 1.25
            encode = lambda x: codes(x) * (codes(x) >= 1.25)  # noqa: E731
            save_file(state, folder / "model.safetensors")
        elif kind == "jumprelu":
            theta = weights(6, t=(N,))["t"].abs()
            encode = lambda x: codes(x) * (codes(x) > theta)  # noqa: E731
            torch.save({**state, "jump_thresholds": theta}, folder / "sae.pt")
        else:
            config["activation"] = "topk"
            state = {"encoder.final_block.0.weight": w["E"], "encoder.final_block.0.bias": w["e"]}
            state |= {"dictionary._weights": w["W"], "dictionary.multiplier": torch.tensor(-0.3)}
            encode = lambda x: topk(codes(x))  # noqa: E731
            decode = lambda z, _: z @ w["W"] * 2.718281828459045**-0.3  # noqa: E731
            torch.save(state, folder / "sae.pt")
        as_json(folder / "config.json", config)
        return Published(folder, encode, decode, HERE)

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


_DL = ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "unset")
_DL += ("MatroyshkaBatchTopKSAE", "JumpReluAutoEncoder", "GatedAutoEncoder")
_SAELENS = ("standard", "outside", "layer_norm", "constant_norm", "topk", "rescaled", "abstopk")
_SAELENS += ("jumprelu", "gated")
PUBLISHED: dict[str, tuple[str, Callable[[Path], Published]]] = {
    "patchsae": ("patchsae", patchsae),
    "patchsae legacy": ("patchsae", lambda f: patchsae(f, "legacy.pt")),
    "patchsae pkl.gz": ("patchsae", lambda f: patchsae(f, "sae.pkl.gz")),
    "fastsae": ("fastsae", fastsae),
    **{f"dictionary_learning {k}": ("dictionary_learning", dl(k)) for k in _DL},
    "sae_for_vlm": ("sae_for_vlm", sae_for_vlm),
    **{f"prisma {k}": ("prisma", prisma(k)) for k in ("relu", "plain", "topk", "gated", "pickle")},
    **{f"saelens {k}": ("saelens", saelens(k)) for k in _SAELENS},
    **{f"saev {k}": ("saev", saev(k)) for k in ("Relu", "TopK", "BatchTopK", "old")},
    **{
        f"overcomplete {k}": ("overcomplete", overcomplete(k))
        for k in ("plain", "norm", "archetypal")
    },
    "sparsify": ("sparsify", sparsify),
    **{
        f"visaebench {k}": ("visaebench", visaebench(k))
        for k in ("topk", "batchtopk", "jumprelu", "overcomplete")
    },
    "clipscope": ("clipscope", clipscope),
}
"""Case → (format, maker)."""
