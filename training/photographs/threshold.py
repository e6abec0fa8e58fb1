"""One threshold in place of top-k: as many latents a token on average, more where there is more to say.

Knows SAEs and activations. Where tokens differ in how much they hold, as a feature map's do, the same weights
explain more this way: no token is held to k latents, and none is filled up with k.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from sae.model import SparseAutoencoder


@torch.no_grad()
def with_threshold(
    sae: SparseAutoencoder, tokens: Float[Tensor, "tokens d_in"], l0: int
) -> SparseAutoencoder:
    """A batch_topk SAE of the weights of a top-k one, in which `l0` latents of these tokens fire on average.

    ValueError for an SAE of another architecture, and where so many are never positive.
    """
    if sae.cfg.architecture != "topk":
        raise ValueError(f"expected a topk SAE, got {sae.cfg.architecture}.")
    h = torch.cat([(part - sae.b_dec) @ sae.W_enc + sae.b_enc for part in tokens.split(1024)])
    highest = h.flatten().topk(l0 * len(tokens) + 1).values
    threshold = float(highest[-1])
    if threshold <= 0:
        raise ValueError(
            f"only {int((h > 0).sum())} latents are positive; take fewer than {l0} a token."
        )
    cfg = dataclasses.replace(sae.cfg, architecture="batch_topk", k=l0, threshold=threshold)
    other = SparseAutoencoder(cfg)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        getattr(other, name).copy_(getattr(sae, name))
    return other
