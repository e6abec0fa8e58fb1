"""How well each latent steers CLIP: steerability, power and coverage over a vocabulary.

Knows a ClipSteerer; knows nothing of language models. Joseph et al., "Steering CLIP's vision
transformer with sparse autoencoders" (2025): p = softmax(100 cos(image, word)) over a vocabulary,
dp_c = mean over images of p_steered - p_default, latent set to s on every token, error term kept;
    steerability S = sum_c dp_c^2     power = max_c dp_c
    coverage = distinct argmax_c dp_c over latents / number of latents
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sae.backbones.text import averaged_text_features
from sae.steering.image_features import ClipSteerer

SCALE = 100.0
"""What the cosine is multiplied with, as in the paper."""


@dataclass(frozen=True)
class Steerability:
    """Arrays have one entry per latent (d_sae); NaN where a latent was not measured."""

    steerability: np.ndarray
    """S = sum over words of the squared change in probability, float32."""
    power: np.ndarray
    """Largest change in probability of any word, float32."""
    word: np.ndarray
    """Number of the word that gained most, int64; -1 where not measured."""
    coverage: float
    """Distinct words that gained most, over the latents measured."""
    n_images: int
    n_words: int


@torch.no_grad()
def steerability(
    steerer: ClipSteerer,
    images: Sequence[Image.Image],
    words: Sequence[str],
    *,
    strength: float = 2.0,
    latents: Iterable[int] | None = None,
    prompt: str = "{}",
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Steerability:
    """Measure every latent that fires over the index (or `latents`), each set to `strength` times
    its own maximum on every token the SAE was trained on, over `images` and `words`.

    The paper sets all to one raw value; multiples of the maximum ask the same of loud and of faint
    latents. The layers before the SAE's run once an image, those after it once a latent and image.
    """
    if not images or not words:
        raise ValueError(f"got {len(images)} images and {len(words)} words, expected both")
    if steerer.max_activation is None:
        raise ValueError("steerability needs each latent's maximum; load the SAE with its index")
    limits = steerer.max_activation.float().cpu()
    chosen = torch.tensor(
        list(latents) if latents is not None else limits.gt(0).nonzero().flatten().tolist()
    )
    phrases = [[prompt.format(word)] for word in words]
    text = averaged_text_features(steerer.backbone.text_features, phrases)
    change = torch.zeros(len(chosen), len(words))
    for number, image in enumerate(images):
        seen = steerer.prepare(image)
        default = _probabilities(steerer.features(seen, seen.kept.hidden), text)
        for start in range(0, len(chosen), batch):
            some = chosen[start : start + batch]
            hidden = _each_set(seen, some, strength * limits[some])
            p = _probabilities(steerer.features(seen, hidden), text)
            change[start : start + batch] += (p - default).cpu() / len(images)
        if progress is not None:
            progress(number + 1, len(images))
    return _summary(change, chosen, steerer.sae.cfg.d_sae, len(images))


def _each_set(seen: object, latents: Tensor, raw: Tensor) -> Tensor:
    """Activations (latents, tokens, d): row i has latent i alone set to raw[i] on every token."""
    found = seen.activations
    z = found.latents(latents.tolist())[0]  # (tokens, latents)
    here = found.reach()[0].to(z)
    change = (raw.to(z) - z).T * here  # (latents, tokens)
    directions = found.sae.W_dec[latents.to(z.device)]
    scale = found.sae.token_scale(found.x[0].to(directions))
    hidden = found.x[0].to(change) + change[..., None] * directions[:, None] * scale
    return hidden.to(found.hidden.dtype)


def _probabilities(features: Tensor, text: Tensor) -> Tensor:
    return (SCALE * features @ text.T).softmax(-1)


def _summary(change: Tensor, latents: Tensor, d_sae: int, n_images: int) -> Steerability:
    total, power = (np.full(d_sae, np.nan, dtype=np.float32) for _ in range(2))
    word = np.full(d_sae, -1, dtype=np.int64)
    total[latents] = change.square().sum(1).numpy()
    power[latents] = change.amax(1).numpy()
    word[latents] = change.argmax(1).numpy()
    coverage = len(np.unique(word[latents])) / max(len(latents), 1)
    return Steerability(total, power, word, coverage, n_images, change.shape[1])
