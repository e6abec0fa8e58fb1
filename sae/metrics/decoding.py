"""How much of activations a code tells: what the best linear decoder of it leaves unexplained.

Knows codes and activations. Knows nothing of SAEs. The decoder is fitted here, on other tokens than those it
is measured on, so that dictionaries that nobody trained, which have no decoder, can be told from an SAE. A
score of single units, however high, says nothing of this.
"""

import numpy as np
from jaxtyping import Float
from scipy import sparse

RIDGE = 1e-4
"""Of the mean variance of the units: keeps units that hardly fire from being fitted to noise."""


def best_linear_fvu(
    codes: sparse.csr_array,
    x: Float[np.ndarray, "tokens d_in"],
    held_codes: sparse.csr_array,
    held_x: Float[np.ndarray, "held d_in"],
    *,
    ridge: float = RIDGE,
) -> float:
    """Share of the variance of `held_x` that codes `(tokens, units)` leave unexplained through the ridge
    regression of `x` on them. Memory: units × units float64."""
    z, target = sparse.csr_array(codes, dtype=np.float64), np.asarray(x, np.float64)
    if z.shape[0] != len(target) or held_codes.shape != (len(held_x), z.shape[1]):
        raise ValueError(
            f"got codes {codes.shape} of {len(x)} tokens and {held_codes.shape} of {len(held_x)}; "
            "expected a row a token, and the same units."
        )
    n, mean_z, mean_x = len(target), np.asarray(z.mean(0)).ravel(), target.mean(0)
    gram = (z.T @ z).toarray() / n - np.outer(mean_z, mean_z)
    gram[np.diag_indices_from(gram)] += ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
    decoder = np.linalg.solve(gram, (z.T @ target) / n - np.outer(mean_z, mean_x))
    held = np.asarray(held_x, np.float64)
    left = held - (held_codes @ decoder + (mean_x - mean_z @ decoder))
    return float(np.square(left).sum() / np.square(held - held.mean(0)).sum())
