"""The control of an experiment: a random latent that changes each token by exactly as much.

Knows latents as directions; runs no model. If the control changes a text as the edit does, the
change tells nothing about the edited concept.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sae.model import SparseAutoencoder
from sae.steering.edits import SteerRequest

if TYPE_CHECKING:
    from sae.steering.steerer import Steerer


def control_latent(steerer: "Steerer", request: SteerRequest) -> int:
    """A latent drawn with the request's seed from those that fire at all and are not edited."""
    alive = np.arange(steerer.sae.cfg.d_sae)
    if steerer.max_activation is not None:
        alive = np.flatnonzero(steerer.max_activation.cpu().numpy() > 0)
    alive = np.setdiff1d(alive, [edit.latent for edit in request.edits])
    if not len(alive):
        raise ValueError("there is no other latent that fires, so there is no control")
    return int(np.random.default_rng(request.control_seed).choice(alive))


def control_change(sae: SparseAutoencoder, change: Tensor, latent: int) -> Tensor:
    """`change` (rows, tokens, d) turned into the latent's direction, token by token of equal norm."""
    direction = sae.W_dec[latent].detach().to(change)
    return change.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(direction, dim=0)
