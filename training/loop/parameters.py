"""The weights while they are being trained, and how they become an artifact.

Knows the initialisation, the unit-norm decoder rows and the folding of the activation scale.
Knows nothing of losses, data or optimisers. Training sees activations divided by one number, the
scale; `fold` multiplies it back into the biases and thresholds, which is exact because every
architecture is positively homogeneous.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from sae.config import SAEConfig
from sae.model import SparseAutoencoder

if TYPE_CHECKING:
    from training.loop.config import TrainConfig


class TrainableSAE(nn.Module):
    """Parameters `W_enc (d_in, d_sae)`, `b_enc`, `W_dec (d_sae, d_in)`, `b_dec` [`log_threshold`].

    Decoder rows start as random unit vectors, b_enc as zero, W_enc as the rows' transpose. As both
    papers' code has it, with `init` "uniform" the rows are Kaiming uniform before they get norm 1,
    and with "independent" W_enc is so too, by itself (PatchSAE). W_enc is laid out in memory as its
    transpose, the order in which its sparse gradient comes.
    """

    def __init__(
        self, architecture: str, d_in: int, d_sae: int, *, seed: int, init: str = "tied"
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = torch.empty(d_sae, d_in)
        if init == "tied":
            rows.normal_(generator=generator)
        else:
            rows.uniform_(-1, 1, generator=generator)  # any bound: the rows get norm 1
        rows /= rows.norm(dim=1, keepdim=True)
        own = rows.clone()
        if init == "independent":
            # fan-in of a (d_in, d_sae) matrix in torch's convention: its second size
            own.uniform_(-((6 / d_sae) ** 0.5), (6 / d_sae) ** 0.5, generator=generator)
        self.W_enc = nn.Parameter(own.t())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(rows)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        if architecture == "jumprelu":
            self.log_threshold = nn.Parameter(torch.zeros(d_sae))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the part of W_dec's gradient along each unit row: it would only change norms."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(self.W_dec, along, value=-1)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give every decoder row norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min_(1e-12))

    @torch.no_grad()
    def fold(self, cfg: SAEConfig, scale: float) -> SparseAutoencoder:
        """An SAE for raw activations, on the CPU, from weights for activations / scale."""
        sae = SparseAutoencoder(cfg)
        sae.W_enc.copy_(self.W_enc)
        sae.W_dec.copy_(self.W_dec)
        sae.b_enc.copy_(self.b_enc * scale)
        sae.b_dec.copy_(self.b_dec * scale)
        if cfg.architecture == "jumprelu":
            sae.threshold.copy_(self.log_threshold.exp() * scale)
        return sae.eval()


def group_sizes(cfg: "TrainConfig") -> tuple[int, ...] | None:
    """Sizes of matryoshka's nested groups: int(fraction * d_sae), the rest to the last."""
    if cfg.arch != "matryoshka":
        return None
    sizes = [int(fraction * cfg.d_sae) for fraction in cfg.groups[:-1]]
    return (*sizes, cfg.d_sae - sum(sizes))
