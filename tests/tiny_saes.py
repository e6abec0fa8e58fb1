"""Small random SAEs of every architecture: d_in 16, d_sae 40."""

import torch

from sae.architectures import ARCHITECTURES
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder

__all__ = ["ARCHITECTURES", "tiny_sae"]


def tiny_sae(architecture: str, *, seed: int = 0) -> SparseAutoencoder:
    """An SAE of random weights, some latents of which fire on random inputs."""
    row = ARCHITECTURES[architecture]
    fields: dict = {} if row.k is None else {"k": 5}
    if row.threshold == "scalar":
        fields["threshold"] = 3.7
    if row.groups:
        fields["group_sizes"] = (4, 10, 26)
    backbone = BackboneRef("bundled", 4, revision="abc", family="clip")
    sae = SparseAutoencoder(SAEConfig(architecture, 16, 40, backbone, **fields))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if row.threshold == "latent":
            sae.threshold.abs_().mul_(3)
    return sae.eval()
