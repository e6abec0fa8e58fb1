"""What an index says of itself: its data set, counts, SAE and text tower. Knows its header only."""

import numpy as np

from sae.concepts.content import IndexContent


class Described:
    """The header of an index as properties."""

    _content: IndexContent

    @property
    def n_images(self) -> int:
        """Images that the statistics were gathered over."""
        return self._content.header["n_images"]

    @property
    def n_unreadable(self) -> int:
        """Images of the data set that could not be opened, and are in no statistic."""
        return self._content.header["n_unreadable"]

    @property
    def n_tokens(self) -> int:
        """Tokens that the statistics were gathered over."""
        return self._content.header["n_tokens"]

    @property
    def data(self) -> str:
        """The data set's name."""
        return self._content.header["data"]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        rows, columns = self._content.header["grid"]
        return rows, columns

    @property
    def sae_sha256(self) -> str:
        """Hash of the SAE weights that this index describes."""
        return self._content.header["sae_sha256"]

    @property
    def text_tower(self) -> dict[str, str | None] | None:
        """Id and revision of the backbone whose text a search by meaning uses; None for none."""
        return self._content.header["text_tower"]

    @property
    def embedder(self) -> str | None:
        """The image encoder that the statistic "monosemanticity" was measured with; None for none."""
        return self._content.header["embedder"]

    @property
    def neuron_monosemanticity(self) -> dict[str, float] | None:
        """ "mean" and "best" of the backbone's raw neurons over the same images; None for none."""
        return self._content.header.get("neuron_monosemanticity")

    @property
    def has_thumbnails(self) -> bool:
        """Whether pictures of the exemplars were kept."""
        return len(self._content.images["webp"]) > 0

    @property
    def class_names(self) -> list[str]:
        """The data set's classes; empty if it has no labels."""
        return self._content.class_names

    @property
    def embeddings(self) -> np.ndarray:
        """Unit vectors float16 (d_sae, d) of the exemplars' lit regions; d is 0 without text."""
        return self._content.embeddings["latents"]
