"""dictionary_learning, and sae-for-vlm which builds on it."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.interop import Hints
from tests.interop.published.parts import HERE, D, K, N, Published, as_json, square, topk, weights


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
            "AutoEncoder": (
                {**linear, "bias": w["b_dec"]},
                lambda x: F.relu(pre(x)) * w["W_dec"].pow(2).sum(1).sqrt(),
            ),
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
        columns = w["W_dec"].pow(2).sum(1).sqrt() if kind == "AutoEncoder" else torch.ones(N)
        decode = lambda z, _: F.linear(z, dec / columns, w["b_dec"])  # noqa: E731
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
