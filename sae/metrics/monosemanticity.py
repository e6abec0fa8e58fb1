"""MonoSemanticity score: how alike the images are on which a latent fires.

Knows latents per image and one embedding per image. Knows nothing of SAEs, images or files.

Pach et al. (NeurIPS 2025), equations 5–9: with a latent's activations scaled to 0 … 1 over all images,

    MS = sum_{n<m} a_n a_m cos(e_n, e_m) / sum_{n<m} a_n a_m

that is, a mean of cosines weighted by joint activation. With unit embeddings u_n and V = sum_n a_n u_n
it equals (|V|² - sum a²) / ((sum a)² - sum a²), so one pass over the images is enough. The scale cancels;
only the smallest activation has to be known, and the sums are kept relative to the smallest one seen so
far. All terms are then sums of non-negative weights: an activation's offset costs no precision.
"""

from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Num
from torch import Tensor

from sae.metrics.image_blocks import Array, DenseBlock, SparseBlock, image_blocks

_SUMS = ("base", "sum", "squares", "at_base", "weighted", "embeddings")
Embeddings = Num[np.ndarray, "n_images d"] | Num[Tensor, "n_images d"]
"""One vector an image, of the same images as the latents."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Spread(NamedTuple):
    """How scores are distributed over latents; every figure is NaN if there are none."""

    n: int
    """Latents with a score."""
    mean: float
    std: float
    quantiles: dict[float, float]
    """By share of latents: `QUANTILES`."""
    best: float


class Summary(NamedTuple):
    """Scores of all latents: as the paper counts, and with rarely firing latents left out."""

    n_images: int
    n_latents: int
    n_dead: int
    """Latents with the same activation on every image; they have no score."""
    n_single: int
    """Latents above their smallest activation on one image only: no pair of images, so no score."""
    unfiltered: Spread
    min_active_images: int
    filtered: Spread
    """Only latents above their smallest activation on at least `min_active_images` images."""


class MonosemanticityMeter:
    """Accumulates the score over batches of images, in float64, in any order and in parts.

    Memory: `n_latents × d_embedding` float64. The sums live on `device`.
    """

    def __init__(
        self, n_latents: int, d_embedding: int, *, device: torch.device | str = "cpu"
    ) -> None:
        if n_latents < 1 or d_embedding < 1:
            raise ValueError(
                f"n_latents and d_embedding must be positive, got {n_latents} and {d_embedding}."
            )

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.n_images = 0
        self._base = zeros(n_latents)  # smallest activation so far; what follows is relative to it
        self._sum, self._squares = zeros(n_latents), zeros(n_latents)
        self._at_base = zeros(n_latents)  # images whose activation is the smallest one
        self._weighted = zeros(n_latents, d_embedding)  # sum of activation × unit embedding
        self._embeddings = zeros(d_embedding)  # sum of unit embeddings

    @property
    def n_latents(self) -> int:
        """Latents measured."""
        return self._weighted.shape[0]

    @property
    def n_active(self) -> Int64[Tensor, " n_latents"]:
        """Images on which a latent is above its smallest activation."""
        return (self.n_images - self._at_base).round().long()

    def update(self, latents: Array, embeddings: Embeddings) -> None:
        """Add images: latents `(n, n_latents)`, embeddings `(n, d_embedding)` of any length but 0.

        Latents are dense (numpy, torch), torch sparse (COO, CSR) or scipy sparse, and may be
        negative. ValueError if shapes do not fit, a number is not finite or an embedding is zero.
        """
        blocks, rows = image_blocks(latents, self._base.device), torch.as_tensor(embeddings)
        self._check(blocks.shape, rows)
        for block in blocks:
            part = rows[block.start : block.start + block.n_images]
            self._add(block, self._unit(part))

    def _unit(self, embeddings: Tensor) -> Tensor:
        """The same directions with length 1, float64 on the meter's device."""
        wide = embeddings.detach().to(self._base.device, torch.float64)
        lengths = wide.norm(dim=1, keepdim=True)
        if not bool((lengths > 0).all() and lengths.isfinite().all()):
            raise ValueError(
                "monosemanticity: some embeddings are zero or not finite; the cosine with them "
                "is undefined. Leave those images out."
            )
        return wide / lengths

    def _check(self, shape: tuple[int, int], embeddings: Tensor) -> None:
        expected = (shape[0], self._weighted.shape[1])
        if shape[1] != self.n_latents or tuple(embeddings.shape) != expected:
            raise ValueError(
                f"monosemanticity: got latents {shape} and embeddings {tuple(embeddings.shape)}, "
                f"expected (n, {self.n_latents}) and (n, {self._weighted.shape[1]})."
            )

    def _add(self, block: DenseBlock | SparseBlock, units: Tensor) -> None:
        lowest = block.lowest()
        self._lower_base(torch.minimum(self._base, lowest) if self.n_images else lowest)
        self.n_images += block.n_images
        if isinstance(block, DenseBlock):
            above = block.values - self._base
            self._sum += above.sum(0)
            self._squares += above.square().sum(0)
            self._at_base += (above == 0).sum(0)
            self._weighted.addmm_(above.t(), units)
        else:
            self._add_sparse(block, units)
        self._embeddings += units.sum(0)

    def _add_sparse(self, block: SparseBlock, units: Tensor) -> None:
        """Entries not stored are zeros: their weight is what the smallest activation is below 0."""
        above = block.values - self._base[block.latents]
        of_zeros = (-self._base).clamp(min=0)
        n_zeros = block.n_images - block.counts
        self._sum.index_add_(0, block.latents, above).addcmul_(of_zeros, n_zeros)
        self._squares.index_add_(0, block.latents, above.square())
        self._squares.addcmul_(of_zeros.square(), n_zeros)
        self._at_base.index_add_(0, block.latents, (above == 0).double())
        self._at_base += torch.where(self._base == 0, n_zeros, 0)
        stored = block.values - self._base.clamp(min=0)[block.latents]
        self._weighted.addmm_(block.transposed(stored), units)
        if bool(of_zeros.any()):
            self._weighted.addr_(of_zeros, units.sum(0))

    def _lower_base(self, base: Tensor) -> None:
        """Make every sum relative to a smaller (or equal) activation."""
        drop = self._base - base
        moved = drop.nonzero().squeeze(1)
        if self.n_images and moved.numel():
            by = drop[moved]
            self._squares[moved] += by * (2 * self._sum[moved] + self.n_images * by)
            self._sum[moved] += self.n_images * by
            self._weighted[moved] += by[:, None] * self._embeddings
            self._at_base[moved] = 0
        self._base = base.clone()

    def merge(self, other: Self) -> None:
        """Add everything that `other` has seen; `other` stays as it is."""
        if other._weighted.shape != self._weighted.shape:
            raise ValueError(
                f"monosemanticity: meters of shape {tuple(self._weighted.shape)} and "
                f"{tuple(other._weighted.shape)} cannot be merged."
            )
        if not other.n_images:
            return
        device = self._base.device
        base, total, squares, at_base, weighted, embeddings = (
            getattr(other, f"_{name}").to(device) for name in _SUMS
        )
        self._lower_base(torch.minimum(self._base, base) if self.n_images else base)
        drop, n = base - self._base, other.n_images
        self.n_images += n
        self._sum += total + n * drop
        self._squares += squares + drop * (2 * total + n * drop)
        self._at_base += torch.where(drop == 0, at_base, 0)
        self._weighted.add_(weighted)
        if bool(drop.any()):
            self._weighted.addr_(drop, embeddings)
        self._embeddings += embeddings

    def state(self) -> dict[str, Tensor]:
        """Everything seen so far, as named tensors to save."""
        count = torch.tensor(self.n_images, dtype=torch.int64)
        return {"n_images": count, **{name: getattr(self, f"_{name}") for name in _SUMS}}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """A meter that goes on from `state()`; the tensors are used, not copied."""
        meter = cls.__new__(cls)
        for name in _SUMS:
            setattr(meter, f"_{name}", state[name])
        meter.n_images = int(state["n_images"])
        return meter

    def result(self) -> Float64[Tensor, " n_latents"]:
        """`(n_latents,)` float64 in -1 … 1; NaN where no two images are above the smallest."""
        pairs = self._sum.square() - self._squares
        together = torch.linalg.vector_norm(self._weighted, dim=1).square() - self._squares
        scored = (self.n_active >= 2) & (pairs > 0)
        return torch.where(scored, together / pairs, torch.nan).clamp(-1, 1)

    def chance(self) -> float:
        """The score of a unit that fires by chance: the mean cosine of two images; NaN below two."""
        n = self.n_images
        together = float(self._embeddings.square().sum()) - n
        return together / (n * (n - 1)) if n > 1 else float("nan")

    def summary(self, min_active_images: int = 10) -> Summary:
        """The scores' spread over latents, unfiltered and filtered.

        At wide SAEs the best score is 1.00 because some latents fire on two images that happen to
        be alike; `min_active_images` leaves such latents out.
        """
        scores, active = self.result(), self.n_active
        scored = ~scores.isnan()
        return Summary(
            self.n_images,
            self.n_latents,
            int((active == 0).sum()),
            int((active == 1).sum()),
            spread(scores[scored]),
            min_active_images,
            spread(scores[scored & (active >= min_active_images)]),
        )


def spread(scores: Float[Tensor, " n"]) -> Spread:
    """Mean, standard deviation (of these, not of a sample), quantiles and best of `scores (n)`."""
    values = scores.double().cpu().numpy()
    if not len(values):
        nan = float("nan")
        return Spread(0, nan, nan, dict.fromkeys(QUANTILES, nan), nan)
    marks = np.quantile(values, QUANTILES)
    quantiles = {share: float(mark) for share, mark in zip(QUANTILES, marks, strict=True)}
    return Spread(
        len(values), float(values.mean()), float(values.std()), quantiles, float(values.max())
    )


def monosemanticity(
    latents: Array, embeddings: Embeddings
) -> Float64[np.ndarray, " n_latents"] | Float64[Tensor, " n_latents"]:
    """The MonoSemanticity score of every latent, exactly, in time linear in the number of images.

    latents `(n_images, n_latents)`: dense (numpy, torch), torch sparse (COO, CSR) or scipy sparse,
    also negative (raw neurons). embeddings `(n_images, d)` of the same images by any image encoder.
    Returns float64 `(n_latents,)` in -1 … 1, a tensor if `latents` is one and else an array; NaN
    for latents that are constant or above their smallest activation on one image only.
    """
    device = latents.device if isinstance(latents, Tensor) else "cpu"
    if len(getattr(latents, "shape", ())) != 2 or len(getattr(embeddings, "shape", ())) != 2:
        raise ValueError(
            f"monosemanticity: got {getattr(latents, 'shape', type(latents))} and "
            f"{getattr(embeddings, 'shape', type(embeddings))}, expected latents "
            "(n_images, n_latents) and embeddings (n_images, d)."
        )
    meter = MonosemanticityMeter(latents.shape[1], embeddings.shape[1], device=device)
    meter.update(latents, embeddings)
    scores = meter.result()
    return scores if isinstance(latents, Tensor) else scores.numpy()
