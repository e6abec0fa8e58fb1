"""The nearest rows of a matrix: of decoder directions, or of what concepts look like.

Knows cosines. Nothing rows × rows is ever held: rows are taken in chunks, and only the nearest are kept.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

CHUNK_ELEMENTS = 1 << 25
"""Similarities held at once (128 MiB in float32)."""


def nearest_rows(
    vectors: Float[Tensor, "d_sae d"], n: int
) -> tuple[Int32[np.ndarray, "d_sae n"], Float32[np.ndarray, "d_sae n"]]:
    """The n rows of largest cosine: ids int32 and cosines float32 (d_sae, n).

    Falling cosine, then rising number; -1 and 0 where there are fewer.
    """
    rows = torch.nn.functional.normalize(vectors.detach().float(), dim=1)
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
