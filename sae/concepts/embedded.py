"""Where all latents of an index lie among words and pictures, ready to be asked. Knows matrices only."""

from functools import cached_property

import numpy as np


class Embedded:
    """Embeddings (n, d), unit rows or zero rows for none. What is missing scores -inf.

    Cosines less the mean of all latents are had from the embeddings as they are: no centred copy.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float32)

    def prepare(self) -> None:
        """Find out, once, what every search needs: which rows there are and where they lie."""
        self._there, self._centre, self._lengths  # noqa: B018

    def along(self, direction: np.ndarray) -> np.ndarray:
        """Products with a direction (d), float32 (n)."""
        return np.where(self._there, self.rows @ direction, -np.inf)

    def centred_cosines(self, feature: np.ndarray) -> np.ndarray:
        """Cosines with a feature (d), both less the mean of all latents, (n)."""
        centred = feature - self._centre
        length = max(float(np.linalg.norm(centred)), 1e-12)
        along = self.rows @ centred - self._centre @ centred
        return np.where(self._there, along / (self._lengths * length), -np.inf)

    @cached_property
    def _there(self) -> np.ndarray:
        return self.rows.any(1)

    @cached_property
    def _centre(self) -> np.ndarray:
        return self.rows[self._there].mean(0) if self._there.any() else self.rows.sum(0)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Distance of every row from the mean of all."""
        squares = np.einsum("nd,nd->n", self.rows, self.rows)
        squares += self._centre @ self._centre - 2 * (self.rows @ self._centre)
        return np.sqrt(np.maximum(squares, 1e-12))
