"""Accuracy with only the top-k concepts of a class on, or all but them: whole sweeps, cheaply.

Knows rankings of concepts and nested masks; knows nothing of where pictures come from. The
activations at the hooked layer are read once. As the top k for k = 1, 2, 5 … are nested, one pass
over the active latents gives the sums of all masks; then only the rest of the network runs, the
last block for CLS alone (PatchSAE's released code runs the whole model once more a mask).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import ConceptLens, ErrorTerm, HookedActivations, chosen

KS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def usual_ks(d_sae: int) -> tuple[int, ...]:
    """1, 2, 5 … up to and with all latents."""
    return (*(k for k in KS if k < d_sae), d_sae)


def ranks_of(scores: Tensor) -> Tensor:
    """Place 0 … d_sae - 1 of each latent in its row of scores (…, d_sae), largest first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def nested_sums(
    lens: ConceptLens, reading: HookedActivations, ranks: Tensor, ks: Sequence[int]
) -> Tensor:
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
    kept: Tensor,
    total: Tensor,
    error: ErrorTerm,
    scalar: float,
) -> Tensor:
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
    ranks: Tensor
    """(C, d_sae): a ranking for each class, or (1, d_sae) where it is the same for all."""


@torch.no_grad()
def sweep(
    lens: ConceptLens,
    classifier: Classifier,
    reading: HookedActivations,
    labels: Tensor,
    families: Sequence[Masks],
    ks: Sequence[int],
    errors: Sequence[ErrorTerm] = ("none",),
    scalar: float = 0.0,
) -> dict[str, Tensor]:
    """Predictions under every mask: {"family/error/on": (K, B), ".../off": (K, B), "plain": (B,)}.

    "predicted" masks come from the unmasked prediction, so no label enters; "oracle" masks use
    `labels` and so leak them: "on" accuracies of an oracle are no accuracies of a classifier.
    """
    plain = _predict(lens, classifier, reading.hidden)
    found: dict[str, Tensor] = {"plain": plain}
    for family in families:
        ranks = family.ranks
        if family.name in ("oracle", "predicted"):
            ranks = ranks[labels if family.name == "oracle" else plain]
        else:
            ranks = ranks[0]
        sums = nested_sums(lens, reading, ranks, ks)
        total = sums[:, :, -1]
        for error in errors:
            on, off = [], []
            for number in range(len(ks)):
                kept = sums[:, :, number]
                for out, part in ((on, kept), (off, total - kept)):
                    hidden = masked_hidden(lens, reading, part, total, error, scalar)
                    out.append(_predict(lens, classifier, hidden))
            found[f"{family.name}/{error}/on"] = torch.stack(on)
            found[f"{family.name}/{error}/off"] = torch.stack(off)
    return found


def families_of(counts: Tensor, seed: int = 0) -> list[Masks]:
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
