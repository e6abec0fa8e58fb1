"""Steering CLIP itself: edited latents, the image embedding they give, and the labels it is near.

Knows a Backbone with text and an SAE of it; knows no language model. The layers up to the SAE's run
once a picture, and only those after it for every edit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.vlm_layout import PatchLayout
from sae.backbones.vlm_replay import Capture, capture, replaying
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.steering.activations import Activations
from sae.steering.checks import check_edits, check_image
from sae.steering.edits import EVERYWHERE, Edit, Mode, Scope, Units, as_edits


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
        max_activation: np.ndarray | Tensor | None = None,
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
    def features(self, seen: Seen, hidden: Tensor) -> Tensor:
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
        text_features: Tensor | None = None,
    ) -> ZeroShot:
        """Probabilities of `labels`, softmax of the scaled cosine, without and with the edits.

        `edits` as in Steerer.generate; `text_features` (labels, d_proj) saves encoding them anew.
        """
        chosen: tuple[Edit, ...] = as_edits(edits, mode, units or self.units, scope)
        check_edits(self, chosen)
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
        found = Activations(kept.hidden, self.sae, lambda: self._layout(size), self.max_activation)
        return Seen(inputs, kept, found)

    def _layout(self, size: tuple[int, int]) -> PatchLayout:
        backbone = self.backbone
        rows, columns = backbone.patch_grid
        left, top, right, bottom = backbone.image_box(size)
        x = (left + (torch.arange(columns) + 0.5) / columns * (right - left)) / size[0]
        y = (top + (torch.arange(rows) + 0.5) / rows * (bottom - top)) / size[1]
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)
        return PatchLayout(centres, (rows, columns), backbone.n_prefix, backbone.has_cls)
