"""Which latents are near a latent: by decoder direction, and by firing in the same images.

Knows matrices; knows nothing of images or files. Nothing latents × latents is ever held: latents are
taken in chunks, and only the nearest of each are kept.
"""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

CHUNK_ELEMENTS = 1 << 25
"""Similarities held at once (128 MiB in float32)."""


def decoder_neighbours(W_dec: Tensor, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n latents of largest decoder cosine: ids int32 and cosines float32 (d_sae, n).

    W_dec (d_sae, d_in). Falling cosine, then rising number; -1 and 0 where there are fewer.
    """
    rows = torch.nn.functional.normalize(W_dec.detach().float(), dim=1)
    d_sae = len(rows)
    ids, cosines = np.full((d_sae, n), -1, np.int32), np.zeros((d_sae, n), np.float32)
    kept = min(n, d_sae - 1)
    step = max(1, CHUNK_ELEMENTS // d_sae)
    for start in range(0, d_sae, step) if kept else ():
        near = rows[start : start + step] @ rows.T
        own = torch.arange(len(near), device=near.device)
        near[own, own + start] = -torch.inf
        values, places = near.topk(kept, dim=1)
        ids[start : start + step, :kept] = places.int().cpu().numpy()
        cosines[start : start + step, :kept] = values.clamp(-1, 1).cpu().numpy()
    return ids, cosines


def cofiring_neighbours(latents: np.ndarray, d_sae: int, n: int) -> tuple[np.ndarray, np.ndarray]:
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
