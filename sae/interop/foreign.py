"""Any published SAE as one description, and how it folds into PatchLens' own weights.

Knows the conventions in which SAEs differ (what is subtracted before encoding, gates, decoder norms,
scalings of the input, thresholds that include their end) and the algebra that turns each into
latents = act((x - b_dec) W_enc + b_enc), x_hat = latents W_dec + b_dec, exactly. Knows no files.
Sums over d_in are taken in float64, so that folding costs no more than the last float32 digit.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae.architectures import architecture
from sae.config import BackboneRef, SAEConfig, TokenPolicy

_COLUMNS = 4096
"""Latents folded at once, which bounds the float64 copies."""


@dataclass
class ForeignSAE:
    """An SAE as its own library runs it. W_enc (d, F), W_dec (F, d), biases (F) and (d).

    z = (x - mean) / scale;  pi = (z - b_dec if subtract else z) W_enc + b_enc
    z_hat = act(pi) W_dec + b_dec;  x_hat = z_hat * scale + mean
    With `gate` = (b_gate, r_mag, b_mag), b_enc is zero and a latent is
    max(pi exp(r_mag) + b_mag, 0) where pi + b_gate > 0 (Rajamanoharan et al. 2024, equation 6).
    With `by_decoder_norm`, pi is multiplied by ||W_dec|| before act and divided by it after.
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
    offset = None if sae.subtract else b_dec
    if sae.mean is not None or sae.scale != 1.0:
        mean = torch.zeros_like(b_dec) if sae.mean is None else sae.mean
        W_enc, W_dec = W_enc / sae.scale, W_dec * sae.scale
        moved = (b_dec.double() * sae.scale + mean.double()).float()
        offset = None if sae.subtract else (moved.double() - mean.double())
        b_dec = moved
    if offset is not None:
        b_enc = (b_enc.double() + _times(offset, W_enc)).float()
    if sae.by_decoder_norm:
        norms = W_dec.double().norm(dim=1).float()
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


def unfolded(
    sae: ForeignSAE, x: Float[Tensor, "n d"]
) -> tuple[Float64[Tensor, "n F"], Float64[Tensor, "n d"]]:
    """Latents and reconstruction of `x (n, d)` by its library's own steps, in float64.

    This is what the self-check of a conversion compares the folded weights with.
    """
    wide = {
        f.name: getattr(sae, f.name).double()
        for f in dataclasses.fields(sae)
        if isinstance(getattr(sae, f.name), Tensor)
    }
    x = x.double()
    shift: Tensor | float = wide.get("mean", 0.0)
    size: Tensor | float = sae.scale
    epsilon = 0.0
    if sae.input_norm == "layer_norm":
        shift, size, epsilon = x.mean(-1, keepdim=True), x.std(-1, keepdim=True), 1e-5
    elif sae.input_norm == "constant_norm":
        shift, size = 0.0, x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    z = (x - shift) / (size + epsilon)
    pi = (z - wide["b_dec"] if sae.subtract else z) @ wide["W_enc"] + wide["b_enc"]
    norms = wide["W_dec"].norm(dim=1) if sae.by_decoder_norm else torch.ones_like(pi[0])
    latents = _activated(sae, pi * norms)
    return latents, (latents / norms @ wide["W_dec"] + wide["b_dec"]) * size + shift


def _activated(sae: ForeignSAE, pi: Tensor) -> Tensor:
    if sae.gate is not None:
        b_gate, r_mag, b_mag = (part.double() for part in sae.gate)
        return (pi * r_mag.exp() + b_mag).relu() * (pi + b_gate > 0)
    row = architecture(sae.architecture)
    if row.k == "token":
        order = pi.abs() if sae.negative == "rank" else pi
        places = order.topk(sae.k or 1, dim=-1).indices
        chosen = pi.gather(-1, places)
        chosen = chosen.relu() if sae.negative == "zero" else chosen
        return torch.zeros_like(pi).scatter(-1, places, chosen)
    if row.threshold is None:
        return pi.relu()
    theta = torch.as_tensor(sae.threshold, dtype=torch.float64)
    return pi.relu() * ((pi >= theta) if sae.inclusive else (pi > theta))


def _times(vector: Tensor, W_enc: Tensor) -> Tensor:
    """vector (d) @ W_enc (d, F) in float64, a few columns at a time."""
    wide = vector.double()
    return torch.cat([wide @ part.double() for part in W_enc.split(_COLUMNS, dim=1)])


def _just_below(threshold: float | Tensor) -> Tensor:
    """The next smaller float32, above which lies exactly what is not below `threshold`."""
    exact = torch.as_tensor(threshold, dtype=torch.float32)
    return torch.nextafter(exact, torch.full_like(exact, -torch.inf))
