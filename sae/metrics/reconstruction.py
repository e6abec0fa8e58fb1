"""How well and how sparsely an SAE reconstructs activations, over all tokens and by kind of token.

Knows three figures and accumulates them over batches in float64. Knows nothing of images, files
or training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae.cards import ENOUGH_TOKENS
from sae.model import SparseAutoencoder
from sae.sparse import tokens_per_chunk


class Reconstruction(NamedTuple):
    """Figures over all tokens seen."""

    fvu: float
    """sum ||x - x_hat||^2 / sum ||x - mean x||^2: the share of variance left unexplained."""
    l0: float
    """Active latents per token, on average."""
    dead_fraction: float
    """Share of latents that were active on no token."""
    n_tokens: int
    """Tokens measured."""

    @property
    def dead_share(self) -> float | None:
        """`dead_fraction`, or None where it is from too few tokens to say anything."""
        return told(self.dead_fraction, self.n_tokens)


def told(share: float, n_tokens: int) -> float | None:
    """A share of dead or rare latents, or None where ENOUGH_TOKENS were not seen."""
    return share if n_tokens >= ENOUGH_TOKENS else None


class ReconstructionMeter:
    """Accumulates `Reconstruction` over batches of activations `(*batch, d_in)`.

    With `kinds`, one word per token of an image (`TokenView.kinds`), activations are
    `(*batch, tokens, d_in)` and the figures can be had by kind as well: one CLS token is lost
    among a hundred patches. Variance is taken around the running mean, so a large common offset of
    the activations costs no precision.
    """

    def __init__(self, sae: SparseAutoencoder, kinds: Sequence[str] | None = None) -> None:
        self._sae = sae
        self._kinds = None if kinds is None else tuple(kinds)
        self._places = {
            kind: torch.tensor([i for i, k in enumerate(kinds or ()) if k == kind])
            for kind in dict.fromkeys(kinds or ("all",))
        }
        self._sums = {kind: _Sums(sae) for kind in self._places}

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*batch d_in"]) -> None:
        """Add a batch of raw activations."""
        if self._kinds is not None and (x.dim() < 2 or x.shape[-2] != len(self._kinds)):
            raise ValueError(
                f"got activations {tuple(x.shape)}, expected (*batch, {len(self._kinds)}, d_in): "
                "one token for each of the given kinds."
            )
        for kind, sums in self._sums.items():
            part = x if self._kinds is None else x[..., self._places[kind].to(x.device), :]
            flat = part.reshape(-1, x.shape[-1]).to(self._sae.W_enc)
            for chunk in flat.split(tokens_per_chunk(self._sae.cfg.d_sae)):
                sums.add(self._sae, chunk)

    def result(self) -> Reconstruction:
        """The figures so far; ValueError if no token was added or all were the same."""
        together = _Sums(self._sae)
        for sums in self._sums.values():
            together.merge(sums)
        return together.result()

    def by_kind(self) -> dict[str, Reconstruction]:
        """The figures of each kind whose tokens differ; without kinds those of "all"."""
        return {kind: sums.result() for kind, sums in self._sums.items() if sums.differ}

    def frequency(self) -> Float64[Tensor, " d_sae"]:
        """On which share of all tokens each latent was active."""
        n_tokens = sum(sums.n_tokens for sums in self._sums.values())
        fired = torch.stack([sums.fired for sums in self._sums.values()]).sum(0)
        return fired.double() / max(1, n_tokens)

    def merge(self, other: "ReconstructionMeter") -> None:
        """Add what another meter of the same SAE and kinds has seen, as of another process."""
        if self._kinds != other._kinds:
            raise ValueError(f"meters of kinds {self._kinds} and {other._kinds} cannot be merged.")
        for kind, sums in self._sums.items():
            sums.merge(other._sums[kind])


class _Sums:
    """Running sums over tokens of one kind; Chan's update of mean and sum of squared deviations."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        device = sae.W_enc.device
        self.mean = torch.zeros(sae.cfg.d_in, dtype=torch.float64, device=device)
        self.fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=device)
        self.spread, self.error = (
            torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)
        )
        self.n_active = torch.zeros((), dtype=torch.int64, device=device)
        self.n_tokens = 0

    def add(self, sae: SparseAutoencoder, x: Float[Tensor, "n d_in"]) -> None:
        """Add tokens; nothing is copied off the device."""
        code, wide = sae.encode_sparse(x), x.double()
        active = code.values != 0
        mean = wide.mean(0)
        self.error += (wide - sae.decode(code, like=x)).square().sum()
        self._join(mean, (wide - mean).square().sum(), len(x))
        self.fired += torch.bincount(code.indices[active], minlength=sae.cfg.d_sae)
        self.n_active += active.sum()

    def merge(self, other: "_Sums") -> None:
        """Add the sums of other tokens."""
        device = self.mean.device
        self._join(other.mean.to(device), other.spread.to(device), other.n_tokens)
        self.error += other.error.to(device)
        self.fired += other.fired.to(device)
        self.n_active += other.n_active.to(device)

    def _join(self, mean: Tensor, spread: Tensor, n: int) -> None:
        if not n:
            return
        total, apart = self.n_tokens + n, mean - self.mean
        self.spread = self.spread + spread + apart.square().sum() * (self.n_tokens * n / total)
        self.mean = self.mean + apart * (n / total)
        self.n_tokens = total

    @property
    def differ(self) -> bool:
        """Whether there is any variance to explain."""
        # float32 activations that are all the same leave rounding of their mean behind
        rounding = 1e-24 * self.n_tokens * float(self.mean.square().sum())
        return self.n_tokens > 0 and float(self.spread) > rounding

    def result(self) -> Reconstruction:
        """The figures; ValueError if there is no variance to explain."""
        n, spread = self.n_tokens, float(self.spread)
        if not self.differ:
            raise ValueError(f"FVU needs tokens that differ; {n} tokens were added.")
        dead = float((self.fired == 0).double().mean())
        return Reconstruction(float(self.error) / spread, float(self.n_active) / n, dead, n)
