"""dictionary_learning's `ae.pt` and its `config.json` (Marks et al.), sae-for-vlm's included.

A bare state dict; the classes differ by their names. AutoEncoder: encoder.weight (F, d), encoder.bias,
decoder.weight (d, F), bias; from_pretrained brings the decoder's columns to unit length, and the encoder
with them, where April-update training left others. AutoEncoderNew: decoder.bias, and nothing subtracted.
Gated, TopK and BatchTopK: encoder.weight …, b_dec. Matryoshka: W_enc (d, F) …, group_sizes. JumpReLU:
W_enc …, threshold (F), nothing subtracted. BatchTopK and Matryoshka use a scalar threshold (strictly
above; -1 if it was never set, and then every positive value passes).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, take, tensors_of
from sae.interop.unpickler import shown
from sae.storage import is_a

NAME = "dictionary_learning"
TITLE = "dictionary_learning: ae.pt and config.json"
FILES = ("ae.pt",)
_LINEAR = {"encoder.weight": "Fd", "encoder.bias": "F", "decoder.weight": "dF"}
_MATRIX = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}
_SCALARS = {"k": "", "threshold": ""}


def detect(source: Source) -> bool:
    return _trainer(source) is not None and weights(source) is not None


def read(source: Source, _: Hints) -> Reading:
    path = weights(source) or source.folder / FILES[0]
    tensors = tensors_of(source, path, *FILES)
    trainer_config = _trainer(source)
    if trainer_config is None:
        raise ArtifactError(
            source.folder / "config.json",
            "no trainer with a dict_class in it",
            "the config.json that was saved with the weights",
            "TopK and BatchTopK weights look alike: only it tells them apart.",
        )
    result = Reading(sae_of(path, tensors), weights=path)
    where, trainer = trainer_config
    _agree(where, trainer, result.sae)
    name = trainer.get("lm_name")
    result.backbone = name if isinstance(name, str) and "/" in name else None
    layer = trainer.get("layer")
    result.layer = int(layer) if isinstance(layer, int) and not isinstance(layer, bool) else None
    k = f" with k = {result.sae.k}" if result.sae.k else ""
    result.found.append(f"{trainer['dict_class']}{k}, weights {path.name}")
    return result


def weights(source: Source) -> Path | None:
    """The file that was named, ae.pt, or the last ae_N.pt of the folder or of its checkpoints/."""
    below = source.at(source.folder / "checkpoints")
    last = below.newest("ae_") if below.path.is_dir() else None
    return source.weights(FILES) or source.newest("ae_") or last


def sae_of(path: Path, tensors: dict[str, Tensor]) -> ForeignSAE:
    """The SAE of a state dict, told by the names in it."""
    names = set(tensors)
    if "group_sizes" in names:
        w = take(path, tensors, {**_MATRIX, **_SCALARS, "group_sizes": "G"})
        sizes = tuple(int(size) for size in w["group_sizes"])
        k, threshold = _scalars(w)
        made = ForeignSAE("matryoshka", *_rows(w), k=k, threshold=threshold, group_sizes=sizes)
    elif "W_enc" in names:
        w = take(path, tensors, {**_MATRIX, "threshold": "F"})
        made = ForeignSAE("jumprelu", *_rows(w), threshold=w["threshold"], subtract=False)
    elif "r_mag" in names:
        extra = {"r_mag": "F", "gate_bias": "F", "mag_bias": "F", "decoder_bias": "d"}
        w = take(path, tensors, {**_without_bias(), **extra})
        made = ForeignSAE("jumprelu", *_columns(w, w["decoder_bias"], torch.zeros_like(w["r_mag"])))
        made.gate = (w["gate_bias"], w["r_mag"], w["mag_bias"])
    elif "bias" in names:
        w = take(path, tensors, {**_LINEAR, "bias": "d"})
        made = _normalised(ForeignSAE("relu", *_columns(w, w["bias"])))
    elif "decoder.bias" in names:
        w = take(path, tensors, {**_LINEAR, "decoder.bias": "d"})
        made = ForeignSAE("relu", *_columns(w, w["decoder.bias"]), subtract=False)
    elif "threshold" in names and "b_dec" in names:
        w = take(path, tensors, {**_LINEAR, **_SCALARS, "b_dec": "d"})
        k, threshold = _scalars(w)
        made = ForeignSAE("batch_topk", *_columns(w, w["b_dec"]), k=k, threshold=threshold)
    else:
        w = take(path, tensors, {**_LINEAR, "k": "", "b_dec": "d"})
        made = ForeignSAE("topk", *_columns(w, w["b_dec"]), k=int(w["k"]))
    return made


def _normalised(made: ForeignSAE) -> ForeignSAE:
    """As AutoEncoder.normalize_decoder leaves it: x_hat the same, latents times their row's length."""
    norms = made.W_dec.norm(dim=1)
    if not torch.allclose(norms, torch.ones_like(norms)):
        made.W_dec = made.W_dec / norms[:, None]
        made.W_enc, made.b_enc = made.W_enc * norms, made.b_enc * norms
    return made


def _agree(path: Path, trainer: dict[str, Any], made: ForeignSAE) -> None:
    """Insist that config.json describes these weights; a TopK saved as BatchTopK is told apart."""
    for key, length in zip(("activation_dim", "dict_size"), made.W_enc.shape, strict=True):
        if key in trainer and trainer[key] != length:
            raise ArtifactError(
                path, f"{key} = {shown(trainer[key])}", f"{length} as in the weights"
            )
    if made.k is not None and "k" in trainer and trainer["k"] != made.k:
        raise ArtifactError(path, f"k = {shown(trainer['k'])}", f"{made.k} as in the weights")
    name = trainer.get("dict_class")
    if not isinstance(name, str):
        raise ArtifactError(path, f"dict_class = {shown(name)}", "the name of a class")
    classes = {
        "AutoEncoder": "relu",
        "AutoEncoderNew": "relu",
        "GatedAutoEncoder": "gated",
        "JumpReluAutoEncoder": "jumprelu",
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "batch_topk",
        "MatryoshkaBatchTopKSAE": "matryoshka",
        "MatroyshkaBatchTopKSAE": "matryoshka",
    }
    expected = classes.get(name)
    if expected is None:
        known = ", ".join(classes)
        raise ArtifactError(path, f"dict_class {name!r:.60}", f"one of {known}", "Use another SAE.")
    if expected == "topk" and made.architecture == "batch_topk":
        # AutoEncoderTopK keeps a threshold too, but chooses by k unless it is told otherwise
        made.architecture, made.threshold = "topk", None
    kind = made.architecture if made.gate is None else "gated"
    if kind != expected:
        raise ArtifactError(path, f"dict_class {name}", f"weights of it, not of {kind}")


def _trainer(source: Source) -> tuple[Path, dict[str, Any]] | None:
    """config.json beside the weights, or above `checkpoints/`."""
    for folder in (source.folder, source.folder.parent):
        config = source.at(folder).config("config.json")
        if (
            config
            and isinstance(config[1].get("trainer"), dict)
            and "dict_class" in config[1]["trainer"]
        ):
            return config[0], config[1]["trainer"]
        if source.folder.name != "checkpoints":
            break
    return None


def _without_bias() -> dict[str, str]:
    return {name: shape for name, shape in _LINEAR.items() if name != "encoder.bias"}


def _scalars(w: dict[str, Tensor]) -> tuple[int, float]:
    k = w["k"].item()
    return (int(k) if is_a(k, int, float) and k == int(k) else 0), float(w["threshold"])


def _rows(w: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"]


def _columns(
    w: dict[str, Tensor], b_dec: Tensor, b_enc: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """torch.nn.Linear's weights turned to W_enc (d, F) and W_dec (F, d)."""
    bias = w["encoder.bias"] if b_enc is None else b_enc
    return w["encoder.weight"].t(), bias, w["decoder.weight"].t(), b_dec
