"""What latents have to beat: raw neurons, principal and independent components.

Knows activations. Each baseline is a linear map to units that, unlike latents, have two signs.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor


class LinearUnits(NamedTuple):
    """units = (x - centre) @ directions.T"""

    name: str
    centre: Float32[Tensor, " d_in"]
    directions: Float32[Tensor, "n_units d_in"]
    converged: bool = True

    def __call__(self, x: Float[Tensor, "*batch d_in"]) -> Float32[Tensor, "*batch n_units"]:
        """Units `(*batch, n_units)` of activations `(*batch, d_in)`."""
        return (x.float() - self.centre) @ self.directions.T


def neurons(d_in: int) -> LinearUnits:
    """The activations themselves, one unit a dimension."""
    return LinearUnits("raw neurons", torch.zeros(d_in), torch.eye(d_in))


def pca(x: Float[Tensor, "tokens d_in"]) -> LinearUnits:
    """All principal components of activations `(tokens, d_in)`, largest variance first."""
    _check(x)
    wide = x.double()
    centre = wide.mean(0)
    _, directions = torch.linalg.eigh((wide - centre).T @ (wide - centre))
    return LinearUnits("PCA", centre.float(), directions.flip(1).T.float().contiguous())


def ica(x: Float[Tensor, "tokens d_in"], *, seed: int = 0, max_steps: int = 200) -> LinearUnits:
    """As many independent components of activations `(tokens, d_in)` as there are dimensions.

    FastICA of scikit-learn (logcosh, symmetric). `converged` is false if `max_steps` did not do.
    """
    _check(x)
    try:
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError(
            "ICA needs scikit-learn: pip install scikit-learn (it is among the dev extras)."
        ) from error
    model = FastICA(whiten="unit-variance", random_state=seed, max_iter=max_steps, tol=1e-3)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(x.double().numpy())
    converged = not any(issubclass(one.category, ConvergenceWarning) for one in said)
    centre, directions = (np.asarray(part, np.float32) for part in (model.mean_, model.components_))
    return LinearUnits("ICA", torch.from_numpy(centre), torch.from_numpy(directions), converged)


def _check(x: Tensor) -> None:
    if x.dim() != 2 or len(x) <= x.shape[1]:
        raise ValueError(
            f"got activations {tuple(x.shape)}, expected (tokens, d_in) with more tokens than d_in."
        )
