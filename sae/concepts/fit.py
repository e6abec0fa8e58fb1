"""How well a lens's concepts fit its own pictures, so that it can say of another one that it is foreign.

Knows what is left unexplained, how strongly concepts fire, and quantiles of both. Knows no screen and no
names. A picture is *outside* if its concepts explain less of it than of nearly all pictures of the lens's own
kind, or fire more weakly; the limits are quantiles over held-out pictures, so that few of these are outside.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from sae.errors import AGAIN, ArtifactError
from sae.storage import is_a, read_sealed, typed_fields, write_sealed

if TYPE_CHECKING:
    from PIL import Image

    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder

FILE = "fit.json"
"""In an artifact's folder, beside metrics.json."""
N_STRONGEST = 5
ALLOWED = 0.01
"""Share of held-out pictures that each of the two limits leaves outside."""
MIN_PICTURES = 20
_TYPES: dict[str, tuple[type, ...]] = {
    "n_images": (int,),
    "n_held_out": (int,),
    "unexplained": (list,),
    "strongest": (list,),
    "most_unexplained": (float,),
    "least_strongest": (float,),
}


class Look(NamedTuple):
    """What the concepts make of one picture."""

    unexplained: float
    """sum ||x - x_hat||^2 / sum ||x - x_0||^2 over its patches; x_0 is what no latents give."""
    strongest: float
    """Mean activation of its N_STRONGEST strongest concepts, always-on ones left out."""


class Fit(NamedTuple):
    """What is usual for a lens's own pictures, and what is not."""

    n_images: int
    n_held_out: int
    unexplained: Float64[np.ndarray, "101"]
    """Percentiles 0 … 100 over the pictures of the index."""
    strongest: Float64[np.ndarray, "101"]
    most_unexplained: float
    """Exceeded by the share ALLOWED of held-out pictures."""
    least_strongest: float
    """Not reached by as many."""

    def is_outside(self, look: Look) -> bool:
        """Whether a picture is unlike the lens's own."""
        weak = look.strongest < self.least_strongest
        return weak or not look.unexplained <= self.most_unexplained

    def usual(self) -> tuple[float, float]:
        """From how much to how much the concepts explain of nine in ten of the lens's own pictures."""
        return 1 - float(self.unexplained[95]), 1 - float(self.unexplained[5])

    def save(self, folder: Path) -> None:
        """Write the file into an artifact's folder, sealed."""
        rows: dict[str, Any] = self._asdict()
        for name in ("unexplained", "strongest"):
            rows[name] = [round(float(value), 6) for value in rows[name]]
        write_sealed(folder / FILE, rows)

    @classmethod
    def beside(cls, folder: Path) -> "Fit | None":
        """What an artifact's folder says; None if it says nothing, ArtifactError if it is damaged."""
        path = folder / FILE
        if not path.is_file():
            return None
        rows = typed_fields(path, read_sealed(path), _TYPES, "")
        for name in ("unexplained", "strongest"):
            values = rows[name]
            if len(values) != 101 or not all(is_a(value, int, float) for value in values):
                raise ArtifactError(path, f"{len(values)} entries of {name}", "101 numbers", AGAIN)
            rows[name] = np.asarray(values, np.float64)
        return cls(**rows)


def look_of(
    error: Float[np.ndarray, " patches"],
    total: Float[np.ndarray, " patches"],
    maxima: Float[np.ndarray, " latents"],
) -> Look:
    """From what each patch leaves and has, and each latent's maximum over the patches (without those
    that are always on)."""
    whole = float(total.sum())
    largest = np.sort(maxima[maxima > 0])[-N_STRONGEST:]
    return Look(
        float(error.sum()) / whole if whole > 0 else 0.0,
        float(largest.sum()) / N_STRONGEST,
    )


def looks(
    images: "Iterable[Image.Image]",
    backbone: "Backbone",
    sae: "SparseAutoencoder",
    always_on: Bool[np.ndarray, " d_sae"],
    *,
    batch: int = 4,
) -> list[Look]:
    """Of each picture, in one pass; memory for one batch at a time."""
    from sae.backbones.tokens import TokenView

    view = TokenView(backbone, sae.cfg.backbone.tokens)
    places = view.patches if view.reads_patches else slice(0, 1)
    weight, found, rest = sae.W_enc, [], iter(images)
    while part := list(islice(rest, batch)):
        with torch.inference_mode():
            tokens = view.read(backbone.activations(part, sae.cfg.backbone.layer))
            for x in tokens[:, places].to(weight.device, weight.dtype):
                latents = sae.encode(x)
                error = (x - sae.decode(latents, like=x)).float().square().sum(-1)
                total = (x - sae.without_latents(x)).float().square().sum(-1)
                maxima = latents.amax(0).float().cpu().numpy()[~always_on]
                found.append(look_of(error.cpu().numpy(), total.cpu().numpy(), maxima))
    return found


def fit_of(own: Sequence[Look], held_out: Sequence[Look]) -> Fit:
    """Percentiles over `own` pictures, limits from `held_out` ones. ValueError for fewer than
    MIN_PICTURES of either."""
    if min(len(own), len(held_out)) < MIN_PICTURES:
        raise ValueError(
            f"{len(own)} pictures and {len(held_out)} held-out ones say too little of what is usual: "
            f"give at least {MIN_PICTURES} of each."
        )
    mine, others = np.asarray(own, np.float64), np.asarray(held_out, np.float64)
    steps = np.linspace(0, 1, 101)
    return Fit(
        len(mine),
        len(others),
        np.quantile(mine[:, 0], steps),
        np.quantile(mine[:, 1], steps),
        float(np.quantile(others[:, 0], 1 - ALLOWED)),
        float(np.quantile(others[:, 1], ALLOWED)),
    )


def always_on_of(index: "ConceptIndex | None", d_sae: int) -> Bool[np.ndarray, " d_sae"]:
    """Latents that fire nearly everywhere, and so tell no picture from another."""
    if index is None:
        return np.zeros(d_sae, bool)
    return np.asarray(index.dense) | (np.asarray(index.frequency) >= 0.9)
