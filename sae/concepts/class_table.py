"""How classes and latents of a stored index go together. Knows arrays; knows no pictures or names."""

import numpy as np

from sae.concepts.concept import ClassCount
from sae.concepts.content import IndexContent


class ClassTable:
    """PatchSAE's equation 5: tokens above tau by class and latent. Latents are taken as checked."""

    def __init__(self, content: IndexContent) -> None:
        self._table, self._images = content.classes, content.images
        self._names, self._d_sae = content.class_names, content.header["d_sae"]

    def largest(self, latent: int, k: int) -> list[ClassCount]:
        """The k classes with most tokens, falling; [] without labels."""
        part = slice(*self._table["starts"][latent : latent + 2])
        tokens, ids = self._table["tokens"][part], self._table["ids"][part]
        total = max(int(tokens.sum()), 1)
        return [
            ClassCount(self._names[ids[at]], int(tokens[at]), float(tokens[at] / total))
            for at in np.argsort(-tokens, kind="stable")[:k]
        ]

    def counts(self) -> np.ndarray:
        """All tokens, int64 (n_classes, d_sae)."""
        latent = np.repeat(np.arange(self._d_sae), np.diff(self._table["starts"]))
        counts = np.zeros((len(self._names), self._d_sae), np.int64)
        counts[self._table["ids"], latent] = self._table["tokens"]
        return counts

    def shares(self) -> np.ndarray:
        """Share of the labelled images that each class has, float64 (n_classes)."""
        images = self._table["images"]
        return images / max(int(images.sum()), 1)

    def of_images(self, image_ids: np.ndarray) -> np.ndarray:
        """Class numbers int32 of exemplar images, -1 where there is no image or no label."""
        known = self._images["image_ids"]
        if not len(known):
            return np.full(image_ids.shape, -1, np.int32)
        rows = np.minimum(np.searchsorted(known, np.maximum(image_ids, 0)), len(known) - 1)
        labels = self._images["labels"][rows]
        return np.where(known[rows] == image_ids, labels, -1).astype(np.int32)
