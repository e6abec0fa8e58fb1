"""Steering CLIP itself: edited latents, the image embedding they give, and the labels it is near;
and how well each latent steers: steerability, power and coverage over a vocabulary.

Knows a Backbone with text and an SAE of it; knows no language model. The layers up to the SAE's run
once a picture, and only those after it for every edit.

Steerability is that of Joseph et al., "Steering CLIP's vision transformer with sparse autoencoders"
(2025): p = softmax(100 cos(image, word)) over a vocabulary, dp_c = mean over images of
p_steered - p_default, latent set to s on every token, error term kept;
    steerability S = sum_c dp_c^2     power = max_c dp_c
    coverage = distinct argmax_c dp_c over latents / number of latents
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.text import averaged_text_features
from sae.backbones.vlm_replay import Capture, capture, replaying
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.steering.activations import Activations, check_edits, check_image, layout_of
from sae.steering.edits import EVERYWHERE, Edit, Mode, Scope, Units, as_edits

SCALE = 100.0
"""What the cosine is multiplied with, as in the paper."""


@dataclass(frozen=True)
class LabelChange:
    """A label's cosine similarity to the picture and its probability among all labels."""

    label: str
    similarity_before: float
    similarity_after: float
    before: float
    after: float


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot classification without and with edits."""

    labels: list[LabelChange]
    """In the order in which they were given."""
    embedding_shift: float
    """1 - cosine of the embeddings without and with edits."""

    @property
    def best_before(self) -> str:
        """The likeliest label without edits."""
        return max(self.labels, key=lambda row: row.before).label

    @property
    def best_after(self) -> str:
        """The likeliest label with edits."""
        return max(self.labels, key=lambda row: row.after).label

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture whose layers up to the SAE's are computed; see ClipSteerer.prepare."""

    inputs: dict[str, Tensor]
    kept: Capture
    activations: Activations


class ClipSteerer:
    """Edits latents of a CLIP-like backbone and follows its image embedding."""

    def __init__(
        self,
        backbone: Backbone,
        sae: SparseAutoencoder,
        *,
        index: ConceptIndex | None = None,
        max_activation: Float[np.ndarray | Tensor, " d_sae"] | None = None,
    ) -> None:
        """Strengths are multiples of each latent's maximum with an index, else raw.

        Raises ValueError if the SAE is of another width or family.
        """
        ref = sae.cfg.backbone
        if sae.cfg.d_in != backbone.d_model or ref.family not in (None, backbone.family):
            raise ValueError(
                f"the SAE was trained on {ref.id!r} ({ref.family}, width {sae.cfg.d_in}); backbone "
                f"{backbone.id} is {backbone.family} of width {backbone.d_model}"
            )
        self.backbone, self.sae, self.index = backbone, sae, index
        self.layer = backbone.resolve_layer(ref.layer)
        if max_activation is None and index is not None:
            max_activation = index.max_activation
        self.max_activation = None if max_activation is None else torch.as_tensor(max_activation)
        self.units: Units = "raw" if max_activation is None else "max"

    def prepare(self, image: Image.Image) -> Seen:
        """Run the layers up to the SAE's."""
        check_image(image)
        return self._seen(self.backbone.preprocess([image]), image.size)

    @torch.no_grad()
    def features(
        self, seen: Seen, hidden: Float[Tensor, "copies tokens d"]
    ) -> Float32[Tensor, "copies d_proj"]:
        """Unit image embeddings (copies, d_proj), one for each row of `hidden` (copies, tokens, d)."""
        layers, backbone = self.backbone._layers, self.backbone
        inputs = {
            name: value.expand(len(hidden), *value.shape[1:]) for name, value in seen.inputs.items()
        }
        with replaying(layers, self.layer, seen.kept, hidden):
            return F.normalize(backbone._image_features(inputs).float(), dim=-1)

    @torch.no_grad()
    def zero_shot(
        self,
        image: Image.Image | Seen,
        labels: Sequence[str],
        edits: Any = (),
        *,
        mode: Mode = "set",
        error_term: bool = True,
        units: Units | None = None,
        scope: Scope = EVERYWHERE,
        text_features: Float[Tensor, "labels d_proj"] | None = None,
    ) -> ZeroShot:
        """Probabilities of `labels`, softmax of the scaled cosine, without and with the edits.

        `edits` as in Steerer.generate; `text_features` (labels, d_proj) saves encoding them anew.
        """
        chosen: tuple[Edit, ...] = as_edits(edits, mode, units or self.units, scope)
        check_edits(chosen, self.sae, self.max_activation)
        seen = image if isinstance(image, Seen) else self.prepare(image)
        if text_features is None:
            text_features = self.backbone.text_features(list(labels))
        after = seen.activations.edited(chosen, error_term=error_term)
        rows = self.features(seen, torch.cat([seen.kept.hidden, after]))
        cosines = rows @ text_features.to(rows).T
        p = (cosines * (self.backbone.logit_scale or 100.0)).softmax(-1)
        columns = [row.tolist() for row in (*cosines, *p)]
        changes = [LabelChange(*row) for row in zip(labels, *columns, strict=True)]
        return ZeroShot(changes, float(1 - rows[0] @ rows[1]))

    def _seen(self, pixels: dict[str, Tensor], size: tuple[int, int]) -> Seen:
        backbone = self.backbone
        inputs = backbone._inputs(pixels)
        with torch.no_grad():
            kept = capture(backbone._layers, self.layer, lambda: backbone._forward(inputs))
        layout = partial(layout_of, backbone, size)
        edited = Activations(kept.hidden, self.sae, layout, self.max_activation)
        return Seen(inputs, kept, edited)


@dataclass(frozen=True)
class Steerability:
    """Arrays have one entry per latent (d_sae); NaN where a latent was not measured."""

    steerability: Float32[np.ndarray, " d_sae"]
    """S = sum over words of the squared change in probability, float32."""
    power: Float32[np.ndarray, " d_sae"]
    """Largest change in probability of any word, float32."""
    word: Int64[np.ndarray, " d_sae"]
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


def _each_set(seen: Seen, latents: Tensor, raw: Tensor) -> Tensor:
    """Activations (latents, tokens, d): row i has latent i alone set to raw[i] on every token."""
    activations = seen.activations
    z = activations.latents(latents.tolist())[0]  # (tokens, latents)
    here = activations.reach()[0].to(z)
    change = (raw.to(z) - z).T * here  # (latents, tokens)
    directions = activations.sae.W_dec[latents.to(z.device)]
    scale = activations.sae.token_scale(activations.x[0].to(directions))
    hidden = activations.x[0].to(change) + change[..., None] * directions[:, None] * scale
    return hidden.to(activations.hidden.dtype)


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
