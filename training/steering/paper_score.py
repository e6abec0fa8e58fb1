"""The steering score of Pach et al. (NeurIPS 2025): does the answer fit the concept's exemplars?

A latent is set on every token by plain replacement, decode(z'), as in the paper's equation 10; the
model answers in one word; the score is the cosine of the word's text features and the mean image
features of the latent's strongest exemplars. Beside it: the unsteered answer, a kind's word and scenes of
that kind (the right pair), and scenes of another kind (the random pair). Object concepts, those whose
name is a kind's, are also counted apart: a model asked what is shown answers with an object.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae.images import open_thumbnail
from sae.steering import Edit, Prepared, Steerer
from sae.world.scenes import SIZE, kind_names
from sae.world.tasks import HELD_OUT_SEED
from training.steering.protocol import backbone_of, captions, index_of
from training.world.generator import images

PROMPT = "what is shown in this image ? use exactly one word"
MAX_NEW_TOKENS = 5


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation of cosines."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, cosines: Float[Tensor, " cosines"]) -> "Score":
        """Summary of (n) cosines."""
        return cls(float(cosines.mean()), float(cosines.std(correction=0)), len(cosines))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f} (n = {self.n})"


@torch.no_grad()
def paper_scores(
    steerer: Steerer,
    dose: float,
    *,
    n_latents: int,
    n_images: int,
    per_image: int = 10,
    n_references: int = 16,
) -> dict[str, Score]:
    """Steered and unsteered scores on a white picture and on scenes, and both references."""
    rng = np.random.default_rng(0)
    index = index_of(steerer)
    alive = np.flatnonzero(index.max_activation > 0)
    chosen = np.sort(rng.choice(alive, min(n_latents, len(alive)), replace=False)).tolist()
    concept = exemplar_features(steerer, chosen)
    white = steerer.prepare(Image.new("RGB", (SIZE, SIZE), "white"), PROMPT)
    pictures, _ = images(HELD_OUT_SEED + 9900, n_images, n_objects=1)
    scenes = [steerer.prepare(Image.fromarray(picture), PROMPT) for picture in pictures]
    turns = [rng.choice(chosen, per_image, replace=False).tolist() for _ in scenes]
    scores: dict[str, Score] = {}
    kinds = set(kind_names())
    for name, pairs in (
        ("white picture", [(white, latent) for latent in chosen]),
        (
            "scenes",
            [(scene, latent) for scene, some in zip(scenes, turns, strict=True) for latent in some],
        ),
    ):
        for steered in (True, False):
            words = _words(steerer, pairs, dose if steered else None)
            text = text_features(steerer, words)
            cosines = (text * torch.stack([concept[latent] for _, latent in pairs])).sum(-1)
            how = f"{name}, {'steered' if steered else 'unsteered'}"
            of_objects = torch.tensor([index.names[latent] in kinds for _, latent in pairs])
            scores[how] = Score.of(cosines)
            if of_objects.any():
                scores[f"{how}, object concepts"] = Score.of(cosines[of_objects])
    return scores | references(steerer, n_references)


def exemplar_features(steerer: Steerer, latents: list[int]) -> dict[int, Float[Tensor, " d_proj"]]:
    """Mean image features (d_proj) of each latent's strongest exemplars, unit length."""
    index, backbone = index_of(steerer), backbone_of(steerer)
    ids, _ = index.exemplar_table("top")
    wanted = sorted({int(n) for n in ids[latents].flatten() if n >= 0})
    rows = torch.cat(
        [
            backbone.image_features(
                [open_thumbnail(index.thumbnail(n)) for n in wanted[i : i + 64]]
            )
            for i in range(0, len(wanted), 64)
        ]
    )
    place = {number: row for row, number in enumerate(wanted)}
    means = {
        latent: rows[[place[int(n)] for n in ids[latent] if n >= 0]].mean(0) for latent in latents
    }
    return {latent: mean / mean.norm() for latent, mean in means.items()}


def references(steerer: Steerer, n: int) -> dict[str, Score]:
    """Each kind's word against up to `n` scenes that show the kind, and against those of others."""
    pictures, scenes = images(HELD_OUT_SEED + 9950, 75 * n)
    numbers: dict[str, list[int]] = {name: [] for name in kind_names()}
    for number, scene in enumerate(scenes):
        for name in {item.kind for item in scene.objects}:
            numbers[name].append(number)
    rows = {}
    for name, chosen in numbers.items():
        if chosen:
            batch = [Image.fromarray(pictures[number]) for number in chosen[:n]]
            mean = backbone_of(steerer).image_features(batch).mean(0)
            rows[name] = mean / mean.norm()
    table = text_features(steerer, list(rows)) @ torch.stack(list(rows.values())).T
    others = table.flatten()[~torch.eye(len(table), dtype=torch.bool).flatten()]
    return {"right pairs": Score.of(table.diag()), "random pairs": Score.of(others)}


def text_features(steerer: Steerer, words: list[str]) -> Float[Tensor, "words d_proj"]:
    """Unit text features, each different word encoded once."""
    different = sorted(set(words))
    rows = backbone_of(steerer).text_features(different)
    return rows[[different.index(word) for word in words]]


def _words(steerer: Steerer, pairs: list[tuple[Prepared, int]], dose: float | None) -> list[str]:
    rows = [
        scene.activations.edited([Edit(latent, "set", dose)], error_term=False)
        if dose is not None
        else scene.kept.hidden
        for scene, latent in pairs
    ]
    told = captions(steerer, rows, pairs[0][0], max_new_tokens=MAX_NEW_TOKENS)
    return [(text.split() or ["unknown"])[0] for text in told]
