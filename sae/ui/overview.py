"""All concepts at once, as the Latents tab draws them: figures of 16 bits, flags and names.

Knows: the catalogue and the packing that static/latents_data.js reads. Does not know: models, Gradio.
"""

from functools import cached_property

import numpy as np

from sae.ui.catalogue import Catalogue
from sae.views.code import to_base64

UNKNOWN = 65535
"""Code of a figure that a concept does not have."""
OPTIONAL = ("monosemanticity", "steerability")
"""Statistics that an index may carry."""


class Overview:
    """Packs an index once; immutable, shared by all visitors."""

    def __init__(self, catalogue: Catalogue) -> None:
        """The catalogue must have an index."""
        self.catalogue, self.index = catalogue, catalogue.index

    @cached_property
    def packed(self) -> dict[str, object]:
        """`{n, figures: {name: {codes, low, high, log}}, flags, names}`, as JSON values."""
        index = self.index
        dead = np.asarray(index.dead)
        flags = dead.astype(np.uint8) | np.asarray(index.dense).astype(np.uint8) << 1
        scores = np.where([bool(name) for name in index.names], index.name_confidences, np.nan)
        figures = {
            "frequency": pack_figure(np.where(dead, np.nan, index.frequency), log=True),
            "mean": pack_figure(np.where(dead, np.nan, index.mean_activation), log=True),
            "maximum": pack_figure(np.where(dead, np.nan, index.max_activation), log=True),
            "entropy": pack_figure(np.where(np.asarray(index.entropy) < 0, np.nan, index.entropy)),
            "confidence": pack_figure(scores),
        }
        extra = getattr(index, "statistics", {})
        figures |= {name: pack_figure(extra[name]) for name in OPTIONAL if name in extra}
        return {
            "n": len(index.names),
            "figures": {name: figure for name, figure in figures.items() if figure is not None},
            "flags": to_base64(flags),
            "names": [self.catalogue.label(latent) for latent in range(len(index.names))],
        }


def pack_figure(values: np.ndarray, *, log: bool = False) -> dict[str, object] | None:
    """`values (n)` in 65,535 steps between their extremes; NaN is UNKNOWN. None if all are NaN."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values) & (values > 0) if log else np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    scaled = np.log(values, where=known, out=np.zeros_like(values)) if log else values
    first, last = (np.log(low), np.log(high)) if log else (low, high)
    share = (scaled - first) / (last - first) if last > first else np.zeros_like(values)
    codes = np.where(known, np.round(np.where(known, share, 0) * (UNKNOWN - 1)), UNKNOWN)
    return {"codes": to_base64(codes.astype(np.uint16)), "low": low, "high": high, "log": log}
