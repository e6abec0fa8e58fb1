"""overcomplete, and visaebench which reads its weights too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae.interop import Hints
from tests.interop.published.parts import (
    HERE,
    D,
    K,
    N,
    Published,
    Weights,
    as_json,
    as_safetensors,
    config_class,
    forget,
    named,
    topk,
    weights,
)


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
        elif kind == "identity":  # rows of any length, as no normalisation leaves them
            atoms = state["dictionary._weights"] = w["D"]
        else:
            state["dictionary._weights"] = atoms
        encode: Callable[[Tensor], Tensor] = lambda x: topk(pre(x).relu())  # noqa: E731
        if kind == "untied":  # 0.3's encoder of one matrix, here without a bias
            state = {k: v for k, v in state.items() if not k.startswith("encoder.")}
            state["encoder.weight"] = w["W"]
            encode = lambda x: topk((x @ w["W"].T).relu())  # noqa: E731
        elif kind == "jump":
            state["thresholds"], state["bandwidth"] = w["b"] * 0.3 + 1, torch.tensor(1e-3)
            theta = state["thresholds"].exp()
            encode = lambda x: torch.where(h(x).relu() < theta, 0.0, h(x).relu())  # noqa: E731
        torch.save(state, folder / "sae.pt")
        return Published(
            folder,
            encode,
            lambda z, _: z @ (atoms * torch.exp(torch.tensor(0.4))),
            Hints(backbone="some/backbone", layer=3, tokens="all", k=K),
        )

    return make


def pickled(kind: str) -> Callable[[Path], Published]:
    """Whole modules, which know their k, BatchNorm's eps, the normalisation and delta."""

    def make(folder: Path) -> Published:
        layers = (nn.Linear(D, N), nn.BatchNorm1d(N, eps=0.1))
        w = weights(W=(N, D), b=(N,), D=(N, D), C=(20, D), mix=(N, 20), scale=(N,), mean=(N,))
        var = w["b"].abs() + 0.05
        for parameter, value in (
            (layers[0].weight, w["W"]),
            (layers[0].bias, w["b"]),
            (layers[1].weight, w["scale"]),
            (layers[1].running_mean, w["mean"]),
            (layers[1].running_var, var),
        ):
            parameter.data.copy_(value)
        dictionary, atoms = (_archetypal if kind == "archetypal" else _layer)(kind, w)
        if kind == "fused":  # what .eval() made is what runs, whatever was done to the rows since
            dictionary, atoms = _layer("l2", w)
            atoms = atoms * 2
            dictionary._fused_dictionary = atoms * torch.exp(torch.tensor(0.4))
        encoder = _module("modules", "MLPEncoder", mlp_blocks=nn.ModuleList())
        encoder.final_block, encoder.norm_layer = nn.Sequential(*layers), nn.BatchNorm1d
        sae = _module("topk_sae", "TopKSAE", encoder=encoder, dictionary=dictionary)
        sae.top_k, sae.device = K, "cpu"
        torch.save(sae.eval(), folder / "sae.pt")
        forget("overcomplete")

        def encode(x: Tensor) -> Tensor:
            h = x @ w["W"].T + w["b"]
            return topk(((h - w["mean"]) / (var + 0.1) ** 0.5 * w["scale"]).relu())

        return Published(
            folder, encode, lambda z, _: z @ atoms * torch.exp(torch.tensor(0.4)), HERE
        )

    return make


def of_class(kind: str) -> Callable[[Path], Published]:
    """Modules of the other classes, whose codes are not the k largest of a token."""

    def make(folder: Path) -> Published:
        w = weights(W=(N, D), b=(N,), D=(N, D), C=(20, D), mix=(N, 20))
        dictionary, atoms = (_archetypal if kind.startswith("RA") else _layer)("l2", w)
        atoms = atoms * torch.exp(torch.tensor(0.4))
        if kind == "tied":  # 0.3's encoder without weights, of a TopKSAE
            encoder = _module("modules", "TieableEncoder", tied_to=dictionary)
            encoder.bias = nn.Parameter(w["b"])
            pre = lambda x: x @ atoms.T + w["b"]  # noqa: E731
        else:
            layer = nn.Linear(D, N)
            layer.weight.data.copy_(w["W"])
            layer.bias.data.copy_(w["b"])
            encoder = _module("modules", "MLPEncoder", mlp_blocks=nn.ModuleList())
            encoder.final_block = nn.Sequential(layer, nn.Identity())
            encoder.final_activation = nn.ReLU()
            pre = lambda x: x @ w["W"].T + w["b"]  # noqa: E731
        name = "TopKSAE" if kind == "tied" else kind
        sae = _module("some_sae", name, encoder=encoder, dictionary=dictionary)
        sae.top_k, sae.device = 5000 if name == "BatchTopKSAE" else K, "cpu"
        codes = lambda x: pre(x).relu()  # noqa: E731
        encode: Callable[[Tensor], Tensor] = codes
        if name == "TopKSAE":
            encode = lambda x: topk(codes(x))  # noqa: E731
        elif name == "BatchTopKSAE":
            sae.running_threshold = torch.tensor(3.25)
            encode = lambda x: codes(x) * (codes(x) >= 3.25)  # noqa: E731
        elif name.endswith("JumpSAE"):
            sae.thresholds = nn.Parameter(w["b"] * 0.3 + 1)
            theta = (w["b"] * 0.3 + 1).exp()
            encode = lambda x: torch.where(codes(x) < theta, 0.0, codes(x))  # noqa: E731
        torch.save(sae.eval(), folder / "sae.pt")
        forget("overcomplete")
        return Published(folder, encode, lambda z, _: z @ atoms, HERE)

    return make


def _module(file: str, name: str, **attributes: Any) -> nn.Module:
    made = config_class(f"overcomplete.sae.{file}", name, nn.Module)()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def _layer(kind: str, w: Weights) -> tuple[nn.Module, Tensor]:
    """DictionaryLayer, and its rows after the normalisation `kind` ("max_l1", …)."""

    def normalize(x: Tensor) -> Tensor:
        return x

    normalize.__name__ = f"normalize_{kind}"
    file = "overcomplete.sae.dictionary"
    made = _module("dictionary", "DictionaryLayer", normalization=named(file, normalize))
    made._weights, made.multiplier = nn.Parameter(w["D"]), nn.Parameter(torch.tensor(0.4))
    sizes = w["D"].abs().sum(1) if kind.endswith("l1") else w["D"].square().sum(1).sqrt()
    sizes = torch.ones(N) if kind == "identity" else sizes
    sizes = sizes.max().expand(N) if kind.startswith("max") else sizes
    return made, w["D"] / sizes[:, None]


def _archetypal(_: str, w: Weights) -> tuple[nn.Module, Tensor]:
    """RelaxedArchetypalDictionary as it is in training, before W and Relax are brought in bounds."""
    made = _module("archetypal_dictionary", "RelaxedArchetypalDictionary", delta=0.5)
    made.register_buffer("C", w["C"])
    made.W, made.Relax = nn.Parameter(w["mix"]), nn.Parameter(w["D"])
    made.multiplier = nn.Parameter(torch.tensor(0.4))
    rows = w["mix"].clamp(min=0) / w["mix"].clamp(min=0).sum(1, keepdim=True)
    return made, rows @ w["C"] + 0.5 * w["D"] / w["D"].norm(dim=1, keepdim=True)


def visaebench(kind: str) -> Callable[[Path], Published]:
    def make(folder: Path) -> Published:
        w = weights(E=(N, D), e=(N,), W=(N, D), b=(D,))
        codes = lambda x: F.relu(x @ w["E"].T + w["e"])  # noqa: E731
        state = {"encoder.weight": w["E"], "encoder.bias": w["e"], "decoder.weight": w["W"]}
        state["decoder.bias"] = w["b"]
        config: dict[str, Any] = {"activation": kind, "input_dim": D, "hidden_dim": N, "k": K}
        decode = lambda z, _: z @ w["W"] + w["b"]  # noqa: E731
        here = Hints(backbone="some/backbone", layer=3)
        place = ("some/backbone", 3, "patches")
        if kind in ("topk", "yaml", "norm", "missing"):
            config["activation"] = "topk"
            encode = lambda x: topk(codes(x))  # noqa: E731
            torch.save(state, folder / "sae.pt")
        elif kind == "batchtopk":
            config["threshold"] = 1.25
            encode = lambda x: codes(x) * (codes(x) >= 1.25)  # noqa: E731
            as_safetensors(state, folder / "model.safetensors")
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
        if kind == "norm":  # what its cache of activations keeps, laid beside
            n = weights(9, mean=(D,))
            torch.save({"mean": n["mean"], "std": torch.tensor(1.7)}, folder / "norm_stats.pt")
            encode = lambda x: topk(codes((x - n["mean"]) / 1.7))  # noqa: E731
            decode = lambda z, _: (z @ w["W"] + w["b"]) * 1.7 + n["mean"]  # noqa: E731
        if kind == "missing":
            config = {"activation": "topk", "k": K}
        if kind == "yaml":
            lines = [f"{name}: {value}" for name, value in config.items()]
            (folder / "config.yaml").write_text("# an SAE\n" + "\n".join(lines) + "\n")
        else:
            as_json(folder / "config.json", config)
        return Published(folder, encode, decode, here, place)

    return make
