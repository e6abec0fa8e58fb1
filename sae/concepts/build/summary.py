"""From what a pass gathered to what an index holds: statistics, exemplars, classes, neighbours.

Knows `Gathered` and matrices; knows nothing of images, models or files. Nothing latents ×
latents is ever held: latents are taken in chunks, and only the nearest of each are kept.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64
from scipy import sparse

from sae.concepts.build.accumulators import NONE, image_numbers, values_of
from sae.concepts.build.gathering import N_PATCHES, Gathered
from sae.concepts.content import N_DECILES
from sae.concepts.statistics import HISTOGRAM, N_BINS, Facts, computed


def statistics_of(
    gathered: Gathered, decoder: Float32[np.ndarray, "d_sae d_in"]
) -> dict[str, np.ndarray]:
    """Every statistic that the pass gives (`sae.concepts.statistics`), float32 (d_sae).

    `decoder` (d_sae, d_in): the SAE's decoder rows. Also "histogram": int32 (d_sae, N_BINS), images
    by maximum activation.
    """
    facts = facts_of(gathered, decoder)
    return computed(facts) | {HISTOGRAM: facts.histogram}


def facts_of(gathered: Gathered, decoder: Float32[np.ndarray, "d_sae d_in"]) -> Facts:
    """What the pass knows of every latent, for statistics to be made of."""
    counts = gathered.counts
    n_images, n_tokens, n_patches, _ = counts["totals"].tolist()
    reference = gathered.tables["reference"].state()
    meter = gathered.meters.get("latents")
    return Facts(
        n_images=n_images,
        n_tokens=n_tokens,
        n_patches=n_patches,
        images=counts["images"],
        patch_images=counts["patch_images"],
        tokens=counts["tokens"],
        patch_tokens=counts["patch_tokens"],
        mean_sum=gathered.sums["mean"].value(),
        patch_mean_sum=gathered.sums["patch_mean"].value(),
        maximum=gathered.peaks,
        histogram=counts["histogram"].reshape(-1, N_BINS).astype(np.int32),
        reference_labels=np.where(reference["ranks"] == NONE, -1, reference["labels"]),
        reference_means=values_of(reference["ranks"]),
        monosemanticity=None if meter is None else meter.result().numpy(),
        decoder=decoder,
    )


def exemplars_of(gathered: Gathered) -> dict[str, np.ndarray]:
    """The strongest images of each latent, then those drawn by chance, by decile of activation.

    "image_ids" int32 (d_sae, n_top + 10 m), -1 for none; "activations" float32 (same); "counts"
    uint8 (same): how many patches fire, of "patches" uint16 and "values" float16, end to end.
    """
    top, sample = gathered.tables["top"].state(), gathered.tables["sample"].state()
    ids, activations = image_numbers(sample["ranks"]), sample["activations"]
    slots = _decile_slots(ids, activations)
    tables = {
        "ids": np.concatenate([image_numbers(top["ranks"]), _take(ids, slots, -1)], 1),
        "activations": np.concatenate(
            [values_of(top["ranks"]), _take(activations, slots, np.float32(0))], 1
        ),
    }
    patches = np.concatenate([top["patches"], _take(sample["patches"], slots, np.uint16(0))], 1)
    values = np.concatenate([top["values"], _take(sample["values"], slots, np.float16(0))], 1)
    fires = (values > 0) & (tables["ids"] >= 0)[..., None]
    return {
        "image_ids": tables["ids"].astype(np.int32),
        "activations": tables["activations"].astype(np.float32),
        "counts": fires.sum(2).astype(np.uint8),
        "patches": patches[fires],
        "values": values[fires],
    }


def _decile_slots(ids: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """Places in a latent's sample, int64 (d_sae, 10 m), decile by decile from the strongest, -1 for
    none. An image's decile is that of its activation's rank within the sample."""
    n_latents, n = ids.shape
    m = n // N_DECILES
    key = np.where(ids >= 0, -activations.astype(np.float64), np.inf)
    order = np.lexsort((ids, key), axis=1)
    filled = (ids >= 0).sum(1)
    rank = np.broadcast_to(np.arange(n), ids.shape)
    decile = (rank * N_DECILES) // np.maximum(filled, 1)[:, None]
    first = -(-(decile * filled[:, None]) // N_DECILES)
    place = rank - first
    slots = np.full((n_latents, N_DECILES * m), -1, np.int64)
    latent, at = np.nonzero((rank < filled[:, None]) & (place < m))
    slots[latent, decile[latent, at] * m + place[latent, at]] = order[latent, at]
    return slots


def _take(array: np.ndarray, slots: np.ndarray, empty: Any) -> np.ndarray:
    """array[latent, slot], `empty` where the slot is -1."""
    taken = array[np.arange(len(slots))[:, None], np.maximum(slots, 0)]
    missing = (slots < 0).reshape(*slots.shape, *[1] * (taken.ndim - 2))
    return np.where(missing, empty, taken)


def classes_of(gathered: Gathered) -> dict[str, np.ndarray]:
    """Tokens above tau by latent and class (PatchSAE, equation 5), sparse by latent.

    "starts" int64 (d_sae + 1), "ids" uint16 and "tokens" int32 (entries), "images" int64
    (n_classes): how many images each class has.
    """
    settings = gathered.settings
    keys, tokens = gathered.class_tokens.items()
    latent, label = np.divmod(keys, max(settings.n_classes, 1))
    return {
        "starts": np.searchsorted(latent, np.arange(settings.d_sae + 1)).astype(np.int64),
        "ids": label.astype(np.uint16),
        "tokens": np.minimum(tokens, 2**31 - 1).astype(np.int32),
        "images": gathered.counts["class_images"].copy(),
    }


def exemplar_numbers(exemplars: dict[str, np.ndarray]) -> Int64[np.ndarray, " n"]:
    """All images that appear as an exemplar, rising, int64."""
    used = np.unique(exemplars["image_ids"])
    return used[used >= 0].astype(np.int64)


def cofiring_neighbours(
    latents: Int[np.ndarray, "images m"], d_sae: int, n: int
) -> tuple[Int32[np.ndarray, "d_sae n"], Float32[np.ndarray, "d_sae n"]]:
    """The n latents that are most often among an image's strongest together with a latent.

    latents int32 (images, m), -1 for none. Returns ids int32 and scores float32 (d_sae, n): the
    cosine of the two sets of images, |both| / sqrt(|one| |other|), 1 for always together; -1 and 0
    where there are fewer.
    """
    image, column = np.nonzero(latents >= 0)
    shape = (len(latents), d_sae)
    there = sparse.csr_array(
        (np.ones(len(image), np.float32), (image, latents[image, column])), shape=shape
    )
    counts = np.asarray(there.sum(axis=0)).ravel()
    by_latent = there.T.tocsr()
    ids, scores = np.full((d_sae, n), -1, np.int32), np.zeros((d_sae, n), np.float32)
    scale = 1 / np.sqrt(np.maximum(counts, 1))
    for start in range(0, d_sae, 2048):
        both = (by_latent[start : start + 2048] @ there).tocsr()
        row = np.repeat(np.arange(both.shape[0]) + start, np.diff(both.indptr))
        score = (both.data * scale[row] * scale[both.indices]).astype(np.float32)
        other = row != both.indices
        row, near, score = row[other], both.indices[other], score[other]
        order = np.lexsort((near, -score, row))
        row, near, score = row[order], near[order], score[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < n
        ids[row[kept], place[kept]] = near[kept]
        scores[row[kept], place[kept]] = score[kept]
    return ids, scores


assert N_PATCHES < 256, "the number of an exemplar's firing patches is stored in 8 bits"
