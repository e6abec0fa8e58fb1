"""How much each concept of an image adds to a class margin, or to its match with words.

Knows directions in the space of unit image features; knows nothing of heads or classes. The score
is unit(features) · direction + offset. Where the hooked layer is the last, features are linear in
its activations but for two norms that are numbers at a given image, and shares are exact. Otherwise
integrated gradients (Sundararajan et al., ICML 2017) run through the remaining blocks, from the
activations without any (b_dec at every token: no concept, no error) to those of the image:

    score = start + sum of shares + error + gap

`start` is the score without any concept: what the head gives to any picture, where the SAE reads every
token. No concept of this picture explains it, and it can be larger than a margin. `error` is the share of
what the SAE leaves unexplained, and `gap` what the finite number of steps leaves open.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sae.adaptation.lens import ConceptLens, HookedActivations, image_sums
from sae.backbones.prompting import VisionPrompts
from sae.sparse import SparseLatents

STEPS = 16
"""Gauss-Legendre nodes of the integral."""
_ROWS = 1 << 14
"""Decoder rows that are gathered at once."""


@dataclass(frozen=True)
class Attribution:
    """The shares of an image's concepts in one score. All in the score's unit (a logit)."""

    score: float
    start: float
    """The score before any concept."""
    error: float
    gap: float
    exact: bool
    """Whether the shares are exact (linear path) rather than integrated gradients."""
    latents: Int64[Tensor, " active"]
    """(n,) int64: the concepts active in the image, largest absolute share first."""
    shares: Float[Tensor, " active"]
    """(n,) float32, one for each of `latents`."""
    by_token: SparseLatents
    """(read tokens, n): the share of each active latent at each token the SAE reads."""

    @property
    def residual(self) -> float:
        """Explained neither by the start nor by concepts: start + all shares + this = score."""
        return self.score - self.start - self.explained

    @property
    def explained(self) -> float:
        """What all concepts add up to."""
        return float(self.shares.double().sum())

    def share(self, latent: int) -> float:
        """The share of one latent, 0 if it is not active."""
        places = (self.latents == latent).nonzero()
        return float(self.shares[places[0, 0]]) if len(places) else 0.0


@torch.no_grad()
def attribute(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Float[Tensor, " d_proj"],
    *,
    prompts: VisionPrompts | None = None,
    offset: float = 0.0,
    steps: int = STEPS,
) -> Attribution:
    """Shares of the concepts in unit(features) · direction + offset.

    `reading` is of one image. `direction` (d_proj) may have any length: for a class margin take
    Classifier.direction, for words scale · their unit text features.
    """
    if len(reading.hidden) != 1:
        raise ValueError(f"attribute takes one image at a time, got {len(reading.hidden)}")
    if lens.linear:
        gradient, score, start, gap = _exact(lens, reading, direction)
    else:
        gradient, score, start, gap = _integrated(lens, reading, direction, prompts, steps)
    read = gradient[lens.view.span]
    per_token = token_shares(lens, reading, read)
    values, indices = reading.latents
    total = image_sums(per_token[None], indices, lens.sae.cfg.d_sae)[0]
    active = indices[values > 0].unique()
    shares = total[active]
    order = shares.abs().argsort(descending=True, stable=True)
    error = lens.error(reading)[0]
    return Attribution(
        score=score + offset,
        start=start + offset,
        error=float((error * read).sum()),
        gap=gap,
        exact=lens.linear,
        latents=active[order],
        shares=shares[order],
        by_token=SparseLatents(per_token, indices[0]),
    )


@torch.no_grad()
def token_shares(
    lens: ConceptLens, reading: HookedActivations, gradient: Float[Tensor, "tokens d_in"]
) -> Float[Tensor, "tokens n"]:
    """(read tokens, n): value · (decoded row · gradient (read tokens, d_in)) of each active latent."""
    values, indices = (part[0] for part in reading.latents)
    gradient = gradient * lens.sae.token_scale(lens.read_tokens(reading)[0])
    width = max(1, values.shape[1])
    slopes = []
    for rows, grads in zip(
        indices.split(max(1, _ROWS // width)), gradient.split(max(1, _ROWS // width)), strict=True
    ):
        slopes.append(torch.einsum("tnd,td->tn", lens.sae.W_dec[rows], grads))
    return values * torch.cat(slopes)


def score_of(
    lens: ConceptLens,
    hidden: Float[Tensor, "images tokens d_in"],
    direction: Float[Tensor, " d_proj"],
    prompts: VisionPrompts | None,
) -> Float[Tensor, " images"]:
    """unit(features) · direction (B,), differentiable in `hidden`."""
    features = lens.parts.finish(hidden, lens.layer, prompts, cls_only=True)
    return F.normalize(features.float(), dim=-1) @ direction


@torch.no_grad()
def _exact(
    lens: ConceptLens, reading: HookedActivations, direction: Tensor
) -> tuple[Tensor, float, float, float]:
    hidden = reading.hidden
    along, constant = lens.parts.readout(hidden[:, 0], direction)
    gradient = torch.zeros_like(hidden[0])
    gradient[0] = along[0]
    score = float(hidden[0, 0].double() @ along[0].double()) + float(constant)
    cls = hidden[0, 0]
    origin = lens.sae.without_latents(cls) if lens.view.reads_cls else cls
    start = float(origin.double() @ along[0].double()) + float(constant)
    return gradient, score, start, 0.0


def _integrated(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Tensor,
    prompts: VisionPrompts | None,
    steps: int,
) -> tuple[Tensor, float, float, float]:
    hidden = reading.hidden.detach()
    nothing = lens.sae.without_latents(lens.read_tokens(reading).detach())
    empty = lens.view.put(hidden, nothing.detach())
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at = torch.as_tensor((nodes + 1) / 2, dtype=hidden.dtype, device=hidden.device)
    share = torch.as_tensor(weights / 2, dtype=hidden.dtype, device=hidden.device)
    with torch.enable_grad():
        path = torch.lerp(empty, hidden, at[:, None, None]).requires_grad_()
        along = score_of(lens, path, direction, prompts)
        (gradients,) = torch.autograd.grad(along.sum(), path)
    gradient = torch.einsum("s,std->td", share, gradients)
    with torch.no_grad():
        start, score = score_of(lens, torch.cat([empty, hidden]), direction, prompts).tolist()
    gap = score - start - float(((hidden - empty)[0] * gradient).sum())
    return gradient, score, start, gap
