"""Small random SAEs of every architecture: d_in 16, d_sae 40."""

import torch

from sae.config import ARCHITECTURES, BackboneRef, SAEConfig
from sae.model import SparseAutoencoder

__all__ = ["ARCHITECTURES", "tiny_sae"]


def tiny_sae(architecture: str, *, seed: int = 0) -> SparseAutoencoder:
    """An SAE of random weights, some latents of which fire on random inputs."""
    fields: dict = {}
    if architecture in ("topk", "batch_topk", "matryoshka"):
        fields["k"] = 5
    if architecture in ("batch_topk", "matryoshka"):
        fields["threshold"] = 3.7
    if architecture == "matryoshka":
        fields["group_sizes"] = (4, 10, 26)
    backbone = BackboneRef("bundled", 4, revision="abc", family="clip")
    sae = SparseAutoencoder(SAEConfig(architecture, 16, 40, backbone, **fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if architecture == "jumprelu":
            sae.threshold.abs_().mul_(3)
    return sae.eval()
