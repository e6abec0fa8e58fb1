"""Concepts switched on and off: accuracies under whole sweeps of masks, and whether rankings are faithful.

Knows rankings of concepts and nested masks; knows nothing of where pictures come from. The activations at the
hooked layer are read once. As the top k for k = 1, 2, 5 … are nested, one pass over the active latents gives
the sums of all masks; then only the rest of the network runs, the last block for CLS alone (PatchSAE's
released code runs the whole model once more a mask).

Are the concepts that an attribution ranks first those that the score hangs on? Deletion switches the concepts
of one image off from the first on, insertion switches them on from none (Dreyer et al., 2025, after Samek et
al.); both keep or drop the error term. A good ranking makes the deletion curve fall at once (small area) and
the insertion curve rise at once (large area). The rankings: ours (shares of `attribution`), activation x
logit lens, energy, and random order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, Int64, Num
from torch import Tensor

from sae.adaptation.attribution import attribute, score_of
from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import ConceptLens, ErrorTerm, HookedActivations, chosen, image_sums
from sae.backbones.prompting import VisionPrompts

KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
METHODS = ("attribution", "logit_lens", "energy", "random")
FRACTIONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Shares of an image's active concepts that are switched off or on."""


def usual_ks(d_sae: int) -> tuple[int, ...]:
    """1, 2, 5 … up to and with all latents."""
    return (*(k for k in KS if k < d_sae), d_sae)


def ranks_of(scores: Num[Tensor, "*rows d_sae"]) -> Int64[Tensor, "*rows d_sae"]:
    """Place 0 … d_sae - 1 of each latent in its row of scores (…, d_sae), largest first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def nested_sums(
    lens: ConceptLens,
    reading: HookedActivations,
    ranks: Int64[Tensor, "... d_sae"],
    ks: Sequence[int],
) -> Float[Tensor, "images tokens steps d_in"]:
    """Decoded sums (B, read tokens, K + 1, d_in), without b_dec, by place in the ranking.

    `ranks` is (d_sae,) or (B, d_sae); `ks` ascend. Entry j sums the latents with a place below
    ks[j], entry K all that are active. One pass over the active latents, whatever K is.
    """
    values, indices = reading.latents
    images, tokens, _ = values.shape
    places = chosen(ranks, indices)
    edges = torch.as_tensor(list(ks), device=values.device)
    bins = torch.bucketize(places, edges, right=True)
    n_bins = len(edges) + 1
    row = torch.arange(images * tokens, device=values.device).view(images, tokens, 1)
    active = values > 0
    keys = (row * n_bins + bins)[active]
    order = keys.argsort()
    counts = torch.bincount(keys, minlength=images * tokens * n_bins)
    offsets = counts.cumsum(0) - counts
    sums = F.embedding_bag(
        indices[active][order],
        lens.sae.W_dec.detach(),
        offsets,
        mode="sum",
        per_sample_weights=values[active][order].to(lens.sae.W_dec.dtype),
    )
    scale = lens.sae.token_scale(lens.read_tokens(reading)[:, :, None])
    return sums.view(images, tokens, n_bins, -1).cumsum(2) * scale


def masked_hidden(
    lens: ConceptLens,
    reading: HookedActivations,
    kept: Float[Tensor, "images read d_in"],
    total: Float[Tensor, "images read d_in"],
    error: ErrorTerm,
    scalar: float,
) -> Float[Tensor, "images tokens d_in"]:
    """Activations in which the active latents add up to `kept` (B, read tokens, d_in).

    `total` is the sum of all of them. With error per_token and kept = total they are the
    activations themselves.
    """
    x = lens.read_tokens(reading)
    if error == "per_token":
        read = x - (total - kept)
    else:
        read = kept + lens.sae.without_latents(x) + (scalar if error == "scalar" else 0.0)
    return lens.view.put(reading.hidden, read)


@dataclass(frozen=True)
class Masks:
    """One family of masks of a sweep."""

    name: str
    """"oracle" (top-k of the true class), "predicted" (of the predicted one), "dataset", "random"."""
    ranks: Int64[Tensor, "classes d_sae"]
    """(C, d_sae): a ranking for each class, or (1, d_sae) where it is the same for all."""


@torch.no_grad()
def sweep(
    lens: ConceptLens,
    classifier: Classifier,
    reading: HookedActivations,
    labels: Int64[Tensor, " images"],
    families: Sequence[Masks],
    ks: Sequence[int],
    errors: Sequence[ErrorTerm] = ("none",),
    scalar: float = 0.0,
) -> dict[str, Int64[Tensor, "... images"]]:
    """Predictions under every mask: {"family/error/on": (K, B), ".../off": (K, B), "plain": (B,)}.

    "predicted" masks come from the unmasked prediction, so no label enters; "oracle" masks use
    `labels` and so leak them: "on" accuracies of an oracle are no accuracies of a classifier.
    """
    plain = _predict(lens, classifier, reading.hidden)
    predictions: dict[str, Tensor] = {"plain": plain}
    for family in families:
        ranks = family.ranks
        if family.name in ("oracle", "predicted"):
            ranks = ranks[labels if family.name == "oracle" else plain]
        else:
            ranks = ranks[0]
        sums = nested_sums(lens, reading, ranks, ks)
        total = sums[:, :, -1]
        for error in errors:
            on: list[Tensor] = []
            off: list[Tensor] = []
            for number in range(len(ks)):
                kept = sums[:, :, number]
                for out, part in ((on, kept), (off, total - kept)):
                    hidden = masked_hidden(lens, reading, part, total, error, scalar)
                    out.append(_predict(lens, classifier, hidden))
            predictions[f"{family.name}/{error}/on"] = torch.stack(on)
            predictions[f"{family.name}/{error}/off"] = torch.stack(off)
    return predictions


def families_of(counts: Int[Tensor, "classes d_sae"], seed: int = 0) -> list[Masks]:
    """The four families from class-level counts (C, d_sae): oracle, predicted, dataset, random.

    The random ranking is of the latents that fire at all, followed by the others, so that it is a
    fair control at each k.
    """
    by_class = ranks_of(counts.float())
    whole = ranks_of(counts.sum(0, keepdim=True).float())
    rng = np.random.Generator(np.random.PCG64(seed))
    noise = torch.from_numpy(rng.random(counts.shape[1], dtype=np.float32)).to(counts.device)
    random = ranks_of(((counts.sum(0) > 0) + noise)[None])
    pairs = (("oracle", by_class), ("predicted", by_class), ("dataset", whole), ("random", random))
    return [Masks(name, ranks) for name, ranks in pairs]


def _predict(lens: ConceptLens, classifier: Classifier, hidden: Tensor) -> Tensor:
    features = lens.features(hidden, classifier.prompts, cls_only=True)
    return classifier.logits(features).argmax(-1)


@torch.no_grad()
def concept_scores(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Float[Tensor, " d_proj"],
    prompts: VisionPrompts | None,
    lens_rows: Float[Tensor, "d_sae d_proj"],
    seed: int,
) -> dict[str, Float[Tensor, " d_sae"]]:
    """A score (d_sae) a method of METHODS; larger means earlier. `lens_rows` of `logit_lens`."""
    d_sae = lens.sae.cfg.d_sae
    values, indices = reading.latents
    total = image_sums(values, indices, d_sae)[0]
    attribution = attribute(lens, reading, direction, prompts=prompts)
    shares = torch.zeros(d_sae, device=total.device)
    shares[attribution.latents] = attribution.shares
    rng = np.random.Generator(np.random.PCG64(seed))
    noise = torch.from_numpy(rng.random(d_sae, dtype=np.float32)).to(total.device)
    return {
        "attribution": shares,
        "logit_lens": total * (lens_rows @ direction),
        "energy": total * lens.sae.W_dec.norm(dim=1),
        "random": noise,
    }


@torch.no_grad()
def logit_lens(lens: ConceptLens, batch: int = 4096) -> Float32[Tensor, "d_sae d_proj"]:
    """Unit features (d_sae, d_proj) of each decoder direction, as if it were the CLS token."""
    rows = [F.normalize(lens.parts.project(part), dim=-1) for part in lens.sae.W_dec.split(batch)]
    return torch.cat(rows).float()


@torch.no_grad()
def curves(
    lens: ConceptLens,
    reading: HookedActivations,
    direction: Float[Tensor, " d_proj"],
    scores: dict[str, Float[Tensor, " d_sae"]],
    *,
    prompts: VisionPrompts | None = None,
    error: ErrorTerm = "none",
) -> dict[str, Float[Tensor, " fractions"]]:
    """{"METHOD/deletion", "METHOD/insertion"}: the score (11,) at each of FRACTIONS, one image."""
    active = image_sums(reading.latents.values, reading.latents.indices, lens.sae.cfg.d_sae)[0] > 0
    n = int(active.sum())
    ks = sorted({round(fraction * n) for fraction in FRACTIONS})
    place = [ks.index(round(fraction * n)) for fraction in FRACTIONS]
    by_ranking = {}
    for method, score in scores.items():
        ranks = ranks_of(torch.where(active, score, score.new_tensor(float("-inf"))))
        sums = nested_sums(lens, reading, ranks, ks)[0]
        total, steps = sums[:, -1], sums.transpose(0, 1)[:-1]
        many = reading.pick(torch.zeros(len(ks), dtype=torch.long))
        for name, kept in (("deletion", total - steps), ("insertion", steps)):
            hidden = masked_hidden(lens, many, kept, total.expand_as(kept), error, 0.0)
            by_ranking[f"{method}/{name}"] = score_of(lens, hidden, direction, prompts)[place]
    return by_ranking


def area(curve: Float[Tensor, " fractions"]) -> float:
    """Area under a curve over FRACTIONS, by trapezoids: a mean score."""
    return float(torch.trapezoid(curve.double(), torch.tensor(FRACTIONS, dtype=torch.float64)))
