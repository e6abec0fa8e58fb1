"""SAELens 6's folders: `cfg.json` and `sae_weights.safetensors` (Bloom et al.).

Architectures of residual SAEs: standard, topk, abstopk, jumprelu (as which batchtopk and matryoshka
are saved) and gated. W_enc (d, F), W_dec (F, d), b_enc (F), b_dec (d), threshold (F). b_dec is
subtracted unless apply_b_dec_to_input is false; rescale_acts_by_decoder_norm ranks by h ||W_dec||.
A training checkpoint may also be batchtopk or matryoshka_batchtopk, with one `topk_threshold` on
h ||W_dec||, and what its input went through lies beside it and is folded here: `activation_scaler.json`
(x times its scaling_factor) and `activation_whitening.safetensors` ((x - mean) @ matrix).
Matching pursuit, temporal SAEs and transcoders are no single linear encoding and are refused.
The writer is artifact format 1 itself: its cfg.json is in these words.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, read_safetensors, same, take
from sae.storage import is_a

NAME = "saelens"
TITLE = "SAELens 6: cfg.json and sae_weights.safetensors"
ARCHITECTURES = ("standard", "topk", "abstopk", "jumprelu", "gated")
TRAINED = ("batchtopk", "matryoshka_batchtopk")
"""What only training checkpoints are."""
REASONS = {
    "matching_pursuit": "it chooses latents one after the other, each from what the last left over",
    "temporal": "its latents depend on the tokens before",
    "transcoder": "it rebuilds another activation than its input",
    "skip_transcoder": "it rebuilds another activation than its input",
    "jumprelu_transcoder": "it rebuilds another activation than its input",
    "jumprelu_skip_transcoder": "it rebuilds another activation than its input",
}
NOT_READ = (
    "SAELens matching_pursuit, temporal and transcoders (no single linear encoding)",
    "SAELens covariance_whitening without activation_whitening.safetensors beside it",
)
_NORMS = {
    "none": "none",
    "expected_average_only_in": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
    "covariance_whitening": "none",
}
_MATRIX = {"W_enc": "dF", "W_dec": "Fd", "b_dec": "d"}
_EXTRA = {
    "standard": {"b_enc": "F"},
    "topk": {"b_enc": "F"},
    "abstopk": {"b_enc": "F"},
    "jumprelu": {"b_enc": "F"},
    "batchtopk": {"b_enc": "F", "topk_threshold": ""},
    "matryoshka_batchtopk": {"b_enc": "F", "topk_threshold": ""},
    "gated": {"b_gate": "F", "b_mag": "F", "r_mag": "F"},
}
_LAYER = re.compile(r"(?:layers?|blocks)\.(-?\d+)(?:\.hook_resid_post)?$")


def detect(source: Source) -> bool:
    return source.has("cfg.json") and source.has("sae_weights.safetensors")


def read(source: Source, _: Hints) -> Reading:
    path, config = source.need("cfg.json")
    metadata = field(path, config, "metadata", dict, default={})
    version = str(metadata.get("sae_lens_version", ""))
    if not version.split(".")[0].isdecimal() or int(version.split(".")[0]) < 6:
        raise ArtifactError(
            path,
            f"sae_lens_version {version!r:.20}",
            "6 or newer",
            "Open it once with sae_lens 6 and save it again.",
        )
    architecture = field(path, config, "architecture", str)
    if architecture not in (*ARCHITECTURES, *TRAINED):
        reason = REASONS.get(architecture, "it is unknown here")
        raise ArtifactError(
            path,
            f"architecture {architecture!r:.40}",
            f"one of {', '.join(ARCHITECTURES)}, each a single linear encoding: {reason}",
            "Use another SAE.",
        )
    norm = field(path, config, "normalize_activations", str, default="none")
    scaling = _scaling(source)
    if norm == "covariance_whitening" and not scaling.whitened:
        raise ArtifactError(
            path,
            "normalize_activations 'covariance_whitening'",
            "'none', or activation_whitening.safetensors beside it: the whitening's mean and matrix are "
            "not in these files",
            "SAELens folds them into the weights when training ends: take what it saves then.",
        )
    if norm not in _NORMS:
        raise ArtifactError(path, f"normalize_activations {norm!r:.40}", f"one of {list(_NORMS)}")
    reshape = field(path, config, "reshape_activations", str, default="none")
    if reshape != "none":
        raise ArtifactError(path, f"reshape_activations {reshape!r:.40}", "none")
    weights = source.folder / "sae_weights.safetensors"
    made = _described(weights, path, config, architecture)
    made.input_norm = _NORMS[norm]
    notes = [f"{architecture}, sae_lens {version}, input {norm}"]
    result = Reading(made, found=notes, weights=weights)
    scaling.fold_into(result)
    if norm == "expected_average_only_in" and not scaling.found:
        result.assumed.append("no scaling at run time, as SAELens applies none outside training")
    _place(metadata, result)
    return result


def _described(weights: Path, path: Path, config: dict[str, Any], architecture: str) -> ForeignSAE:
    optional = {"threshold": "F", "log_threshold": "F"} if architecture == "jumprelu" else {}
    shapes = {**_MATRIX, **_EXTRA[architecture]}
    w = take(weights, read_safetensors(weights), shapes, optional=optional)
    d_in, d_sae = w["W_enc"].shape
    same(path, config, "d_in", d_in)
    same(path, config, "d_sae", d_sae)
    b_enc = w.get("b_enc", torch.zeros(d_sae))
    made = ForeignSAE("relu", w["W_enc"], b_enc, w["W_dec"], w["b_dec"])
    made.subtract = field(path, config, "apply_b_dec_to_input", bool, default=True)
    if architecture in ("topk", "abstopk"):
        made.architecture, made.k = "topk", field(path, config, "k", int)
        made.negative = "rank" if architecture == "abstopk" else "zero"
        made.by_decoder_norm = field(
            path, config, "rescale_acts_by_decoder_norm", bool, default=False
        )
    elif architecture == "jumprelu":
        if len(w.keys() & set(optional)) != 1:
            raise ArtifactError(weights, "no threshold, or two", "threshold or log_threshold")
        made.architecture = "jumprelu"
        made.threshold = w["threshold"] if "threshold" in w else w["log_threshold"].exp()
    elif architecture in TRAINED:
        _batch(path, config, made, float(w["topk_threshold"]))
    elif architecture == "gated":
        made.architecture, made.gate = "jumprelu", (w["b_gate"], w["r_mag"], w["b_mag"])
    return made


def _batch(path: Path, config: dict[str, Any], made: ForeignSAE, threshold: float) -> None:
    """Of a training checkpoint that keeps k a token on average: its threshold, k and groups."""
    d_sae = made.W_enc.shape[1]
    k = field(path, config, "k", float, int)
    made.architecture, made.threshold, made.k = "batch_topk", threshold, max(1, round(k))
    made.by_decoder_norm = field(path, config, "rescale_acts_by_decoder_norm", bool, default=True)
    widths = field(path, config, "matryoshka_widths", list, default=[])
    if not widths:
        return
    edges = [0, *widths, *([] if widths[-1] == d_sae else [d_sae])]
    if not all(is_a(edge, int) for edge in edges) or edges != sorted(set(edges)):
        raise ArtifactError(path, "matryoshka_widths that do not grow to d_sae", f"up to {d_sae}")
    made.architecture = "matryoshka"
    made.group_sizes = tuple(b - a for a, b in zip(edges, edges[1:], strict=False))


@dataclass(frozen=True)
class _Scaling:
    """What a training checkpoint's input went through: x * factor, then (x - mean) @ matrix."""

    factor: float | None = None
    whitening: dict[str, torch.Tensor] | None = None

    @property
    def found(self) -> bool:
        return self.factor is not None or self.whitened

    @property
    def whitened(self) -> bool:
        return self.whitening is not None

    def fold_into(self, result: Reading) -> None:
        """Into the weights of a reading, as SAELens does when training ends."""
        made = result.sae
        if self.whitening is not None:
            w = {name: part.double() for name, part in self.whitening.items()}
            if made.by_decoder_norm:
                norms = made.W_dec.double().norm(dim=1).float()
                made.W_enc, made.b_enc = made.W_enc * norms, made.b_enc * norms
                made.W_dec, made.by_decoder_norm = made.W_dec / norms[:, None], False
            W_enc = w["matrix"] @ made.W_enc.double()
            if not made.subtract:
                made.b_enc = (made.b_enc.double() - w["mean"] @ W_enc).float()
            b_dec = made.b_dec.double() @ w["inverse_matrix"]
            made.W_enc, made.b_dec = W_enc.float(), (b_dec + w["mean"]).float()
            made.W_dec = (made.W_dec.double() @ w["inverse_matrix"]).float()
            result.found.append("whitening of the input: folded into the weights")
        if self.factor is not None:
            made.W_enc, made.W_dec = made.W_enc * self.factor, made.W_dec / self.factor
            made.b_dec = made.b_dec / self.factor
            if made.by_decoder_norm and isinstance(made.threshold, float):
                made.threshold /= self.factor  # its unit is the decoder's, which has just shrunk
            result.found.append(f"input times {self.factor:.6g}: folded into the weights")


def _scaling(source: Source) -> _Scaling:
    config = source.config("activation_scaler.json")
    if config is None:
        return _Scaling()
    path, content = config
    factor = field(path, content, "scaling_factor", float, int, type(None), default=None)
    if factor is not None and not factor > 0:
        raise ArtifactError(path, f"scaling_factor {factor!r:.40}", "a positive number")
    beside = source.folder / "activation_whitening.safetensors"
    if not field(path, content, "has_whitening", bool, default=True) or not beside.is_file():
        return _Scaling(factor)
    shapes = {"mean": "d", "matrix": "dd", "inverse_matrix": "dd"}
    tensors = read_safetensors(beside)
    take(beside, tensors, shapes)
    return _Scaling(factor, tensors)


def _place(metadata: dict[str, Any], result: Reading) -> None:
    ours = metadata.get("patchlens_backbone")
    name, hook = metadata.get("model_name"), metadata.get("hook_name")
    result.backbone = name if isinstance(name, str) and name else None
    if isinstance(hook, str) and (m := _LAYER.search(hook)):
        result.layer = int(m[1])
    if isinstance(ours, dict) and isinstance(ours.get("tokens"), str):
        result.tokens = ours["tokens"]
