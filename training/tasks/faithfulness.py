"""Are the concepts that an attribution ranks first those that the score hangs on?

Knows scores of concepts for one image, and deletion and insertion curves (Dreyer et al., 2025,
after Samek et al.). Deletion switches concepts off from the first on, insertion switches them on
from none; both keep or drop the error term. A good ranking makes the deletion curve fall at once
(small area) and the insertion curve rise at once (large area).

The rankings: ours (shares of `attribution`), activation x logit lens, energy, and random order.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.adaptation.attribution import attribute, score_of
from sae.adaptation.lens import ConceptLens, ErrorTerm, HookedActivations, image_sums
from sae.backbones.prompting import VisionPrompts
from training.tasks.masking import masked_hidden, nested_sums, ranks_of

METHODS = ("attribution", "logit_lens", "energy", "random")
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Shares of an image's active concepts that are switched off or on."""


@torch.no_grad()
def concept_scores(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Tensor,
    prompts: VisionPrompts | None,
    lens_rows: Tensor,
    seed: int,
) -> dict[str, Tensor]:
    """A score (d_sae) a method of METHODS; larger means earlier. `lens_rows` of `logit_lens`."""
    d_sae = lens.sae.cfg.d_sae
    values, indices = reading.latents
    total = image_sums(values, indices, d_sae)[0]
    found = attribute(lens, reading, direction, prompts=prompts)
    shares = torch.zeros(d_sae, device=total.device)
    shares[found.latents] = found.shares
    rng = np.random.Generator(np.random.PCG64(seed))
    noise = torch.from_numpy(rng.random(d_sae, dtype=np.float32)).to(total.device)
    return {
        "attribution": shares,
        "logit_lens": total * (lens_rows @ direction),
        "energy": total * lens.sae.W_dec.norm(dim=1),
        "random": noise,
    }


@torch.no_grad()
def logit_lens(lens: ConceptLens, batch: int = 4096) -> Tensor:
    """Unit features (d_sae, d_proj) of each decoder direction, as if it were the CLS token."""
    rows = [F.normalize(lens.parts.project(part), dim=-1) for part in lens.sae.W_dec.split(batch)]
    return torch.cat(rows).float()


@torch.no_grad()
def curves(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Tensor,
    scores: dict[str, Tensor],
    *,
    prompts: VisionPrompts | None = None,
    error: ErrorTerm = "none",
) -> dict[str, Tensor]:
    """{"METHOD/deletion", "METHOD/insertion"}: the score (11,) at each of FRACTIONS, one image."""
    active = image_sums(reading.latents.values, reading.latents.indices, lens.sae.cfg.d_sae)[0] > 0
    n = int(active.sum())
    ks = sorted({round(fraction * n) for fraction in FRACTIONS})
    place = [ks.index(round(fraction * n)) for fraction in FRACTIONS]
    found = {}
    for method, score in scores.items():
        ranks = ranks_of(torch.where(active, score, score.new_tensor(float("-inf"))))
        sums = nested_sums(lens, reading, ranks, ks)[0]
        total, steps = sums[:, -1], sums.transpose(0, 1)[:-1]
        many = reading.pick(torch.zeros(len(ks), dtype=torch.long))
        for name, kept in (("deletion", total - steps), ("insertion", steps)):
            hidden = masked_hidden(lens, many, kept, total.expand_as(kept), error, 0.0)
            found[f"{method}/{name}"] = score_of(lens, hidden, direction, prompts)[place]
    return found


def area(curve: Tensor) -> float:
    """Area under a curve over FRACTIONS, by trapezoids: a mean score."""
    return float(torch.trapezoid(curve.double(), torch.tensor(FRACTIONS, dtype=torch.float64)))
