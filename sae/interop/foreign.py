"""Any published SAE as one description, and how it folds into PatchLens' own weights.

Knows the conventions in which SAEs differ (what is subtracted before encoding, gates, decoder norms,
scalings of the input, thresholds that include their end) and the algebra that turns each into
latents = act((x - b_dec) W_enc + b_enc), x_hat = latents W_dec + b_dec, exactly. Knows no files.
Sums over d_in are taken in float64, so that folding costs no more than the last float32 digit.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures import architecture
from sae.config import BackboneRef, SAEConfig, TokenPolicy

Run = Callable[
    [Float[Tensor, "tokens d_in"]],
    tuple[Float[Tensor, "tokens d_sae"], Float[Tensor, "tokens d_in"]],
]
"""A library's own latents (n, F) and reconstruction (n, d) of activations (n, d)."""
_LANGUAGE = re.compile(
    r"(?:^|[/_-])(gpt-?2|gpt-?j|gpt-neo|pythia|gemma|llama|mistral|mixtral|qwen|deepseek|phi|olmo|bert)",
    re.IGNORECASE,
)
_SEES = re.compile(r"llava|paligemma|vision|[-_/.]vl\b|clip|vit|dino", re.IGNORECASE)
_COLUMNS = 4096
"""Latents folded at once, which bounds the float64 copies."""


@dataclass
class ForeignSAE:
    """An SAE as its own library runs it. W_enc (d, F), W_dec (F, d), biases (F) and (d).

    z = (x - mean) / scale;  pi = (z - b_dec if subtract else z) W_enc + b_enc
    z_hat = act(pi) W_dec + b_dec;  x_hat = z_hat * scale + mean
    With `gate` = (b_gate, r_mag, b_mag), b_enc is zero and a latent is
    max(pi exp(r_mag) + b_mag, 0) where pi + b_gate > 0 (Rajamanoharan et al. 2024, equation 6).
    With `by_decoder_norm`, pi is multiplied by ||W_dec|| before act and divided by it after, the norms
    being those of W_dec as it is here, before `scale`.
    """

    architecture: str
    """As `sae.architectures` has it; of a gated SAE "jumprelu", which it becomes."""
    W_enc: Float[Tensor, "d F"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F d"]
    b_dec: Float[Tensor, " d"]
    k: int | None = None
    threshold: float | Float[Tensor, "*F"] | None = None
    group_sizes: tuple[int, ...] | None = None
    negative: str = "zero"
    input_norm: str = "none"
    subtract: bool = True
    inclusive: bool = False
    """Whether a pre-activation equal to the threshold fires."""
    by_decoder_norm: bool = False
    gate: tuple[Float[Tensor, " F"], Float[Tensor, " F"], Float[Tensor, " F"]] | None = None
    mean: Float[Tensor, " d"] | None = None
    scale: float = 1.0


@dataclass
class Reading:
    """What a reader made of some files."""

    sae: ForeignSAE
    backbone: str | None = None
    layer: int | None = None
    tokens: TokenPolicy | None = None
    hook: str | None = None
    """Where in the backbone, in the library's own words."""
    found: list[str] = field(default_factory=list)
    """What the files said, for the report."""
    assumed: list[str] = field(default_factory=list)
    """What they did not say, and was taken for granted."""
    weights: Path | None = None
    """The file that the tensors came from."""
    reference: Run | None = None
    """The format's own encode and decode, written apart from `sae`: what the self-check compares with.
    The formats of this package have theirs in `sae.interop.equations`."""


def own(cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> ForeignSAE:
    """PatchLens' own weights as one of these."""
    return ForeignSAE(
        cfg.architecture,
        tensors["W_enc"],
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        k=cfg.k,
        threshold=tensors.get("threshold", cfg.threshold),
        negative=cfg.negative,
        input_norm=cfg.input_norm,
    )


def fold(sae: ForeignSAE, backbone: BackboneRef) -> tuple[SAEConfig, dict[str, Tensor]]:
    """The config and weights of PatchLens' SAE that computes what `sae` describes."""
    W_enc, b_enc = sae.W_enc, sae.b_enc
    W_dec, b_dec, threshold = sae.W_dec, sae.b_dec, sae.threshold
    norms = W_dec.double().norm(dim=1).float() if sae.by_decoder_norm else None
    offset = None if sae.subtract else b_dec
    if sae.mean is not None or sae.scale != 1.0:
        mean = torch.zeros_like(b_dec) if sae.mean is None else sae.mean
        W_enc, W_dec = W_enc / sae.scale, W_dec * sae.scale
        moved = (b_dec.double() * sae.scale + mean.double()).float()
        offset = None if sae.subtract else (moved.double() - mean.double())
        b_dec = moved
    if offset is not None:
        b_enc = (b_enc.double() + _times(offset, W_enc)).float()
    if norms is not None:
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms[:, None]
    if sae.gate is not None:
        b_gate, r_mag, b_mag = (part.double() for part in sae.gate)
        grow = r_mag.exp()
        threshold = (b_mag - b_gate * grow).float()
        b_enc = (b_enc.double() * grow + b_mag).float()
        W_enc = W_enc * grow.float()
    if sae.inclusive and threshold is not None:
        threshold = _just_below(threshold)
    fields: dict[str, Any] = {"k": sae.k, "group_sizes": sae.group_sizes}
    fields |= {"negative": sae.negative, "input_norm": sae.input_norm}
    tensors = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}
    kind = architecture(sae.architecture).threshold
    if kind == "latent":
        tensors["threshold"] = torch.as_tensor(threshold).expand(b_enc.shape).clone()
    elif kind == "scalar":
        fields["threshold"] = float(torch.as_tensor(threshold))
    cfg = SAEConfig(
        sae.architecture,
        W_enc.shape[0],
        W_enc.shape[1],
        backbone,
        **fields,
    )
    return cfg, tensors


def language_model(name: str | None) -> bool:
    """Whether a model of this name reads text and sees no pictures."""
    return bool(name and _LANGUAGE.search(name) and not _SEES.search(name))


def _times(vector: Tensor, W_enc: Tensor) -> Tensor:
    """vector (d) @ W_enc (d, F) in float64, a few columns at a time."""
    wide = vector.double()
    return torch.cat([wide @ part.double() for part in W_enc.split(_COLUMNS, dim=1)])


def _just_below(threshold: float | Tensor) -> Tensor:
    """The next smaller float32, above which lies exactly what is not below `threshold`."""
    exact = torch.as_tensor(threshold, dtype=torch.float32)
    return torch.nextafter(exact, torch.full_like(exact, -torch.inf))
