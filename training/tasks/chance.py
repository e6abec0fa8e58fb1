"""Is a head's gain from concepts that were there already, or would any concepts leave as much of it?

Knows one control and its intervals. Of the tuned head's concepts those are new that the first head's
activations do not have anywhere in the same picture. Switching the new ones off leaves some share of the gain
in accuracy; so does switching off random concepts of the picture that carry as much of its activation. Only
the difference says anything about the new ones. Both are measured with the SAE's error term kept
("per_token") and dropped ("none"; then the first head and the whole tuned head are read without it as well).

Intervals hold 95 % of what the same sums give when pictures, seeds of training and random draws are all drawn
again with replacement. Of one seed, that part of the doubt is not in them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import ConceptLens, ErrorTerm, HookedActivations, image_sums
from training.tasks.data import Labelled
from training.tasks.reading import chunks

ERRORS: tuple[ErrorTerm, ...] = ("per_token", "none")
DRAWS, RESAMPLES = 5, 2000
LEAST_GAIN = 0.02
"""A smaller gain in accuracy has no shares."""
Hits = Mapping[str, Bool[np.ndarray, "draws images"]]
"""By "ERROR/first", "/second", "/existing" (one draw each) and "/random": which pictures are named right."""


def chance(
    lens: ConceptLens, first: Classifier, tuned: Sequence[Classifier], data: Labelled
) -> dict[str, Any]:
    """Shares of the gain of one kind of head, trained from several seeds, by error term (see `shares`), and
    what was switched off, a number a seed."""
    measured = [hits(lens, first, second, data, seed=n) for n, second in enumerate(tuned)]
    removed = {name: [sizes[name] for _, sizes in measured] for name in measured[0][1]}
    return shares([found for found, _ in measured]) | {"removed": removed}


def random_off(
    sums: Float[Tensor, "images d_sae"],
    mass: Float[Tensor, " images"],
    generator: torch.Generator,
) -> Bool[Tensor, "images d_sae"]:
    """Random active latents of each image, `sums` being their activations over its tokens, that add up to
    `mass` and never to more: in random order, each that still fits."""
    noise = torch.rand(sums.shape, generator=generator).to(sums.device)
    order = noise.masked_fill(sums <= 0, -1.0).argsort(dim=1, descending=True)
    room, off = mass * (1 + 1e-5), torch.zeros_like(sums, dtype=torch.bool)
    for place in range(int((sums > 0).sum(1).max())):
        latent = order[:, place : place + 1]
        size = sums.gather(1, latent)[:, 0]
        fits = (size > 0) & (size <= room)
        off.scatter_(1, latent, fits[:, None])
        room = room - size * fits
    return off


@torch.no_grad()
def hits(
    lens: ConceptLens,
    first: Classifier,
    second: Classifier,
    data: Labelled,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Which pictures are named right (see Hits), and the mean share of the activation that new concepts and
    the random ones carry, and how many concepts of a picture these are."""
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, list[np.ndarray]] = {}
    sizes: dict[str, list[Tensor]] = {}
    pairs = zip(chunks(lens, first, data), chunks(lens, second, data), strict=True)
    for (a, labels), (b, _) in pairs:
        before, after = (
            image_sums(r.latents.values, r.latents.indices, lens.sae.cfg.d_sae) for r in (a, b)
        )
        new = (after > 0) & (before <= 0)
        mass, total = (after * new).sum(1), after.sum(1).clamp(min=1e-9)
        random = [random_off(after, mass, generator) for _ in range(draws)]
        for error in ERRORS:
            whole = _right(lens, second, b, None, error, labels)
            found = {
                "first": [_right(lens, first, a, None, error, labels)],
                "second": [whole],
                "existing": [_right(lens, second, b, new, error, labels) if new.any() else whole],
                "random": [
                    _right(lens, second, b, off, error, labels) if off.any() else whole
                    for off in random
                ],
            }
            for name, rows in found.items():
                right.setdefault(f"{error}/{name}", []).append(np.stack(rows))
        for name, off in (("new", [new]), ("random", random)):
            parts = [(after * each).sum(1) / total for each in off]
            sizes.setdefault(f"{name} mass", []).append(torch.stack(parts).mean(0))
            counts = [each.sum(1).float() for each in off]
            sizes.setdefault(f"{name} concepts", []).append(torch.stack(counts).mean(0))
    return (
        {name: np.concatenate(parts, axis=1) for name, parts in right.items()},
        {name: round(float(torch.cat(parts).mean()), 4) for name, parts in sizes.items()},
    )


def shares(seeds: Sequence[Hits], *, seed: int = 0) -> dict[str, Any]:
    """Of the gain of several seeds of training, by error term: the share that existing concepts leave, that
    random ones leave, and the difference, each (value, low, high); None where there is hardly a gain."""
    return {error: _shares(seeds, error, np.random.default_rng(seed)) for error in ERRORS}


def says(found: Mapping[str, Any]) -> str:
    """One error term's shares in words: whether the new concepts carry more of the gain than chance."""
    if found["difference"] is None:
        return "hardly a gain"
    _, low, high = found["difference"]
    if low > 0:
        return "new concepts carry less than chance"
    if high < 0:
        return "new concepts carry more than chance"
    return "cannot be told apart from chance"


def _right(
    lens: ConceptLens,
    classifier: Classifier,
    reading: HookedActivations,
    off: Bool[Tensor, "images d_sae"] | None,
    error: ErrorTerm,
    labels: Tensor,
) -> np.ndarray:
    if off is None:
        off = torch.zeros(
            len(labels), lens.sae.cfg.d_sae, dtype=torch.bool, device=reading.hidden.device
        )
    hidden = lens.edited(reading, ~off, error)
    features = lens.features(hidden, classifier.prompts, cls_only=True)
    return (classifier.logits(features).argmax(-1) == labels).cpu().numpy()


def _shares(seeds: Sequence[Hits], error: str, rng: np.random.Generator) -> dict[str, Any]:
    names = ("first", "second", "existing", "random")
    table = {name: np.stack([each[f"{error}/{name}"] for each in seeds]) for name in names}
    n, draws, images = table["random"].shape
    whole = {name: rows.mean((1, 2)) for name, rows in table.items()}
    result: dict[str, Any] = {
        "gain": round(float((whole["second"] - whole["first"]).mean()), 4),
        "seeds": n,
        "images": images,
    }
    if result["gain"] < LEAST_GAIN:
        return result | dict.fromkeys(("existing", "random", "difference"))
    weights = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    which = rng.integers(n, size=(RESAMPLES, n))
    again: dict[str, np.ndarray] = {}
    for name, rows in table.items():
        means = np.einsum("sdi,ri->rsd", rows.astype(np.float64), weights)
        means = np.take_along_axis(means, which[..., None], axis=1)
        of_draws = rng.integers(rows.shape[1], size=means.shape)
        again[name] = np.take_along_axis(means, of_draws, axis=2).mean((1, 2))
    low, high = np.quantile(_statistic(again), (0.025, 0.975), axis=1)
    found = _statistic({name: rows.mean() for name, rows in whole.items()})
    for name, *values in zip(("existing", "random", "difference"), found, low, high, strict=True):
        result[name] = [round(float(value), 4) for value in values]
    return result


def _statistic(means: Mapping[str, np.ndarray]) -> Float[np.ndarray, "3 ..."]:
    """Shares of the gain from accuracies averaged over seeds and draws: existing, random, difference."""
    gain = means["second"] - means["first"]
    gain = np.where(np.abs(gain) > 1e-9, gain, 1e-9)
    one, other = ((means[name] - means["first"]) / gain for name in ("existing", "random"))
    return np.stack([one, other, one - other])
