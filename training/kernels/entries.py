"""Where the active latents of a batch are.

Knows positions only; the values that stand there are passed beside it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

Order = Callable[
    [Int64[Tensor, " entries"], int], tuple[Int64[Tensor, " entries"], Int64[Tensor, " bounds"]]
]
"""Kernels' `by_latent`: the order of entries by latent, and where each latent's begin."""


class Entries:
    """Positions of the active latents of a batch, token by token.

    `latents (n)` int64; those of token t are entries `starts[t]` to `starts[t + 1]`, with
    `starts (n_tokens + 1)` int64.
    """

    def __init__(
        self, latents: Int64[Tensor, " entries"], starts: Int64[Tensor, " bounds"], d_sae: int
    ) -> None:
        self.latents, self.starts, self.d_sae = latents, starts, d_sae
        self.n_tokens = len(starts) - 1
        self._tokens: Tensor | None = None
        self._by_latent: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_indices(cls, indices: Int64[Tensor, "tokens k"], d_sae: int) -> "Entries":
        """The entries of top-k indices `(tokens, k)`."""
        n_tokens, k = indices.shape
        numbers = torch.arange(n_tokens + 1, device=indices.device)
        made = cls(indices.reshape(-1), numbers * k, d_sae)
        made._tokens = numbers[:-1].repeat_interleave(k)
        return made

    @classmethod
    def from_tokens(
        cls,
        tokens: Int64[Tensor, " entries"],
        latents: Int64[Tensor, " entries"],
        n_tokens: int,
        d_sae: int,
    ) -> "Entries":
        """Entries whose `tokens (n)`, int64, are in ascending order."""
        made = cls(latents, _starts(tokens, n_tokens), d_sae)
        made._tokens = tokens
        return made

    def where(self, mask: Bool[Tensor, " entries"]) -> "Entries":
        """Those entries for which `mask (n)` is true."""
        return self.from_tokens(self.tokens[mask], self.latents[mask], self.n_tokens, self.d_sae)

    @property
    def tokens(self) -> Int64[Tensor, " entries"]:
        """The token of each entry, `(n)` int64."""
        if self._tokens is None:
            numbers = torch.arange(self.n_tokens, device=self.starts.device)
            counts = self.starts.diff()
            self._tokens = numbers.repeat_interleave(counts, output_size=len(self.latents))
        return self._tokens

    def by_latent(self, order: Order) -> tuple[Int64[Tensor, " entries"], Int64[Tensor, " bounds"]]:
        """Entries in order of their latents, `(n)`, and where each latent's start, `(d_sae + 1)`.

        `order`: the kernel `by_latent` of the caller; it runs once, whoever asks again.
        """
        if self._by_latent is None:
            self._by_latent = order(self.latents, self.d_sae)
        return self._by_latent


def _starts(groups: Tensor, n_groups: int) -> Tensor:
    counts = torch.bincount(groups, minlength=n_groups)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
