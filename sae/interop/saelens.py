"""SAELens 6's folders: `cfg.json` and `sae_weights.safetensors` (Bloom et al.).

Architectures of residual SAEs: standard, topk, abstopk, jumprelu (as which batchtopk and matryoshka
are saved) and gated. W_enc (d, F), W_dec (F, d), b_enc (F), b_dec (d), threshold (F). b_dec is
subtracted unless apply_b_dec_to_input is false; rescale_acts_by_decoder_norm ranks by h ||W_dec||.
Matching pursuit, temporal SAEs and transcoders are no single linear encoding and are refused, and so
is a whitening of the input that has not been folded into the weights yet.
The writer is artifact format 1 itself: its cfg.json is in these words.
"""

import re
from pathlib import Path
from typing import Any

import torch

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, read_safetensors, same, take

NAME = "saelens"
TITLE = "SAELens 6: cfg.json and sae_weights.safetensors"
ARCHITECTURES = ("standard", "topk", "abstopk", "jumprelu", "gated")
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
    "SAELens covariance_whitening before it is folded (the matrix is not in the files)",
)
_NORMS = {
    "none": "none",
    "expected_average_only_in": "none",
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
}
_MATRIX = {"W_enc": "dF", "W_dec": "Fd", "b_dec": "d"}
_EXTRA = {
    "standard": {"b_enc": "F"},
    "topk": {"b_enc": "F"},
    "abstopk": {"b_enc": "F"},
    "jumprelu": {"b_enc": "F", "threshold": "F"},
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
    if architecture not in ARCHITECTURES:
        reason = REASONS.get(architecture, "it is unknown here")
        raise ArtifactError(
            path,
            f"architecture {architecture!r:.40}",
            f"one of {', '.join(ARCHITECTURES)}, each a single linear encoding: {reason}",
            "Use another SAE.",
        )
    norm = field(path, config, "normalize_activations", str, default="none")
    if norm == "covariance_whitening":
        raise ArtifactError(
            path,
            "normalize_activations 'covariance_whitening'",
            "'none': the whitening's mean and matrix are not in these files",
            "SAELens folds them into the weights when training ends: take what it saves then.",
        )
    if norm not in _NORMS:
        raise ArtifactError(path, f"normalize_activations {norm!r:.40}", f"one of {list(_NORMS)}")
    reshape = field(path, config, "reshape_activations", str, default="none")
    if reshape != "none":
        raise ArtifactError(path, f"reshape_activations {reshape!r:.40}", "none")
    made = _described(source.folder / "sae_weights.safetensors", path, config, architecture)
    made.input_norm = _NORMS[norm]
    result = Reading(made, found=[f"{architecture}, sae_lens {version}, input {norm}"])
    if norm == "expected_average_only_in":
        result.assumed.append("no scaling at run time, as SAELens applies none outside training")
    _place(metadata, result)
    return result


def _described(weights: Path, path: Path, config: dict[str, Any], architecture: str) -> ForeignSAE:
    w = take(weights, read_safetensors(weights), {**_MATRIX, **_EXTRA[architecture]})
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
        made.architecture, made.threshold = "jumprelu", w["threshold"]
    elif architecture == "gated":
        made.architecture, made.gate = "jumprelu", (w["b_gate"], w["r_mag"], w["b_mag"])
    return made


def _place(metadata: dict[str, Any], result: Reading) -> None:
    ours = metadata.get("patchlens_backbone")
    name, hook = metadata.get("model_name"), metadata.get("hook_name")
    result.backbone = name if isinstance(name, str) and name else None
    if isinstance(hook, str) and (m := _LAYER.search(hook)):
        result.layer = int(m[1])
    if isinstance(ours, dict) and isinstance(ours.get("tokens"), str):
        result.tokens = ours["tokens"]
