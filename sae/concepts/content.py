"""All that an index holds, as arrays and texts. Knows shapes and words; knows no files or models."""

from typing import Any, NamedTuple

import numpy as np

STATISTICS = (
    "frequency",
    "token_frequency",
    "patch_frequency",
    "mean_activation",
    "patch_mean_activation",
    "max_activation",
    "entropy",
    "label_std",
    "decoder_norm",
)
"""Statistics that every index has. Others may follow under any name and may hold NaN for unknown."""
N_DECILES = 10


class IndexContent(NamedTuple):
    """All that an index holds, as it lies on disk."""

    header: dict[str, Any]
    statistics: dict[str, np.ndarray]
    """float32 (d_sae) each; "histogram": int32 (d_sae, bins)."""
    exemplars: dict[str, np.ndarray]
    """"image_ids" int32 (d_sae, n_top + 10 m), -1 for none; "activations" float32 (same); "counts"
    uint8 (same): patches each; "patches" uint16 and "values" float16, end to end."""
    classes: dict[str, np.ndarray]
    """"starts" int64 (d_sae + 1), "ids" uint16, "tokens" int32; "images" int64 (n_classes)."""
    neighbours: dict[str, np.ndarray]
    """"decoder_ids", "cofiring_ids" int32 (d_sae, n), -1 for none; "decoder_cosines",
    "cofiring_scores" float16 (same)."""
    embeddings: dict[str, np.ndarray]
    """"latents" float16 (d_sae, d), zero rows for none; d is 0 without a text tower."""
    images: dict[str, np.ndarray]
    """"image_ids" int32 (n) rising, "labels" int32 (n), -1 for none, "offsets" int64 (n + 1), "webp"
    uint8: thumbnails end to end, empty for none."""
    names: dict[str, list]
    """"names", "sources": strings; "scores", "confidences": numbers; one each a latent."""
    captions: list[str]
    """One a thumbnail."""
    class_names: list[str]
    """One a class."""
