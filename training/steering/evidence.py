"""What labelled scenes say of each kind, for steering with it: DiffMean's directions and latents' codes.

Knows the scenes that latents are chosen on and which kinds each shows; no masks, and nothing of where a
kind lies. Where it lies both methods guess for themselves, in the same way: DiffMean by the tokens whose
projection on its direction exceeds half of the picture's largest, the SAE by those on which the kind's best
latent does.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from sae.sparse import SparseLatents
from sae.steering import Steerer
from sae.world.scenes import kind_names
from training.steering.protocol import SELECTION_SEED, KindLatents, backbone_of, choose_latents
from training.world.generator import images

HALF = 0.5


@dataclass(frozen=True)
class Evidence:
    """Per kind, in the order of `kind_names()`."""

    kinds: KindLatents
    """Latents by AUROC, DiffMean over whole pictures."""
    refined: Float[Tensor, "kinds d_in"]
    """(kinds, d): DiffMean at its best: the mean of the tokens on which the whole pictures' DiffMean exceeds
    half of its largest projection, minus the mean token."""
    code_difference: Float[Tensor, "kinds d_sae"]
    """(kinds, d_sae): DiffMean in latents: the mean code of pictures with the kind minus that of others."""
    profile: Float[Tensor, "kinds d_sae"]
    """(kinds, d_sae): the mean code of the tokens on which the kind's best latent exceeds half of its
    largest activation in the picture, minus the mean token's."""


@torch.no_grad()
def gather(steerer: Steerer, n_scenes: int, *, n_latents: int = 8) -> Evidence:
    """Read the selection scenes twice: whole pictures first, then the tokens that these point to."""
    kinds = choose_latents(steerer, n_scenes, n_latents=n_latents)
    pictures, scenes = images(SELECTION_SEED, n_scenes)
    numbers = {name: number for number, name in enumerate(kind_names())}
    refined, profile = (
        torch.zeros_like(kinds.diff_mean),
        torch.zeros(len(numbers), steerer.sae.cfg.d_sae),
    )
    n_refined, n_profile = torch.zeros(len(numbers), 1), torch.zeros(len(numbers), 1)
    total, n_tokens = torch.zeros(steerer.sae.cfg.d_sae), 0
    with_kind, n_with = torch.zeros_like(profile), torch.zeros(len(numbers), 1)
    unit = F.normalize(kinds.diff_mean, dim=-1)
    backbone = backbone_of(steerer)
    for start in range(0, n_scenes, 64):
        batch = [Image.fromarray(picture) for picture in pictures[start : start + 64]]
        x = backbone.activations(batch, steerer.layer)
        code = steerer.sae.encode_sparse(x)
        total += summed(code, steerer.sae.cfg.d_sae)
        n_tokens += x.shape[0] * x.shape[1]
        for row, scene in enumerate(scenes[start : start + 64]):
            own = SparseLatents(code.values[row], code.indices[row])
            mean_code = summed(own, len(total)) / x.shape[1]
            for kind in {numbers[item.kind] for item in scene.objects}:
                with_kind[kind] += mean_code
                n_with[kind] += 1
                here = above((x[row] - kinds.mean) @ unit[kind], HALF)
                refined[kind] += x[row][here].sum(0)
                n_refined[kind] += here.sum()
                values, indices = own
                here = above((values * (indices == kinds.latents[kind][0])).sum(-1), HALF)
                profile[kind] += summed(SparseLatents(values[here], indices[here]), len(total))
                n_profile[kind] += here.sum()
    refined = refined / n_refined.clamp(min=1) - kinds.mean * (n_refined > 0)
    mean_code = total / n_tokens
    without = (mean_code * n_scenes - with_kind) / (n_scenes - n_with).clamp(min=1)
    return Evidence(
        kinds,
        refined,
        with_kind / n_with.clamp(min=1) - without,
        profile / n_profile.clamp(min=1) - mean_code,
    )


def above(scores: Float[Tensor, " tokens"], share: float) -> Bool[Tensor, " tokens"]:
    """The tokens whose score is positive and above `share` of the largest."""
    return (scores > share * scores.max()) & (scores > 0)


def summed(code: SparseLatents, d_sae: int) -> Float[Tensor, " d_sae"]:
    """The sum of a code's activations over all tokens, latent by latent."""
    out = torch.zeros(d_sae)
    return out.index_add_(0, code.indices.flatten(), code.values.flatten().float())


def ranked(profile: Float[Tensor, " d_sae"], n: int) -> Int[np.ndarray, " n"]:
    """The `n` latents that a kind's tokens have most beyond the mean token."""
    return profile.topk(min(n, len(profile))).indices.numpy()
