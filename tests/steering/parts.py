"""Small random SAEs for the tiny models, and reference computations that share no code with sae."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae.config import BackboneRef, SAEConfig
from sae.hub import BUNDLED
from sae.model import SparseAutoencoder
from sae.storage import read_json

PROMPT = "describe the image"
CAT: int = read_json(BUNDLED / "steering" / "presets.json")["presets"][0]["edits"][0]["latent"]
"""The bundled latent that puts a cat into a picture: that of the first recorded experiment."""


def random_sae(
    d_in: int,
    layer: int,
    *,
    architecture: str = "batch_topk",
    tokens: str = "all",
    family: str | None = None,
    d_sae: int = 48,
) -> SparseAutoencoder:
    """Latents that fire on a good part of random activations."""
    fields: dict = {}
    if architecture in ("topk", "batch_topk"):
        fields["k"] = 6
    if architecture == "batch_topk":
        fields["threshold"] = 0.5
    ref = BackboneRef("some/tower", layer, tokens, family=family)
    sae = SparseAutoencoder(SAEConfig(architecture, d_in, d_sae, ref, **fields))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.W_enc.mul_(0.3)
        if architecture == "jumprelu":
            sae.threshold.abs_()
    return sae.eval().requires_grad_(False)


@torch.no_grad()
def dense_edit(
    sae: SparseAutoencoder,
    h: Tensor,
    latent: int,
    mode: str,
    strength: float,
    reach: Tensor,
    *,
    error_term: bool = True,
) -> Tensor:
    """h + decode(z') - decode(z), or decode(z'), with every latent written out."""
    z = sae.encode(h)
    new = z.clone()
    if mode == "only":
        kept = torch.zeros_like(z)
        kept[..., latent] = z[..., latent]
        new = torch.where(reach[..., None], kept, z)
    else:
        value = {
            "set": torch.full_like(z[..., latent], strength),
            "add": z[..., latent] + strength,
            "scale": z[..., latent] * strength,
            "clamp": z[..., latent].minimum(torch.tensor(strength)),
            "ablate": torch.zeros_like(z[..., latent]),
        }[mode]
        new[..., latent] = torch.where(reach, value, z[..., latent])
    if not error_term:
        return new @ sae.W_dec + sae.b_dec
    return h + (new - z) @ sae.W_dec


def firing(sae: SparseAutoencoder, h: Tensor, n: int = 3) -> Sequence[int]:
    """The latents that fire most on activations h (..., d)."""
    return sae.encode(h).flatten(0, -2).sum(0).topk(n).indices.tolist()
