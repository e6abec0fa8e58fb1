"""Latents of many images, dense or sparse in any common form, walked over in bounded blocks.

Knows numpy, torch and scipy arrays. Knows nothing of measures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64, Num
from scipy import sparse
from torch import Tensor

Array: TypeAlias = (
    Num[np.ndarray, "n_images n_latents"]
    | Num[Tensor, "n_images n_latents"]
    | sparse.sparray
    | sparse.spmatrix
)
"""Dense numpy or torch, torch sparse (COO, CSR, CSC), or scipy sparse; `(n_images, n_latents)`."""
DENSE_ELEMENTS = 1 << 23
"""Elements of a dense block (64 MiB in float64)."""
SPARSE_ENTRIES = 1 << 21
"""Entries of a sparse block, about (16 MiB for each of values, images and latents)."""
NARROW = 8192
"""Up to so many latents, blocks are short, so that what goes with them stays in a processor's cache;
with more latents they are longer, because every block touches what is kept of every latent."""
SPARSE_BELOW = 0.1
"""A dense block with a smaller share of non-zeros is treated as sparse: faster from there on."""


@dataclass
class DenseBlock:
    """Images `start` … of a walk: float64 values `(n_images, n_latents)`."""

    start: int
    values: Float64[Tensor, "n_images n_latents"]

    @property
    def n_images(self) -> int:
        return len(self.values)

    def lowest(self) -> Float64[Tensor, " n_latents"]:
        """The smallest value of each latent, float64 `(n_latents)`."""
        return self.values.amin(0)


@dataclass
class SparseBlock:
    """Images `start` … of a walk: float64 values and where they are; what is not stored is 0."""

    start: int
    n_images: int
    n_latents: int
    images: Int64[Tensor, " n"]
    latents: Int64[Tensor, " n"]
    values: Float64[Tensor, " n"]

    def __post_init__(self) -> None:
        self.counts = torch.bincount(self.latents, minlength=self.n_latents).double()

    def lowest(self) -> Float64[Tensor, " n_latents"]:
        """The smallest value of each latent, zeros included, float64 `(n_latents)`."""
        minima = torch.full_like(self.counts, torch.inf)
        minima[self.counts < self.n_images] = 0.0
        return minima.scatter_reduce(0, self.latents, self.values, "amin")

    def transposed(self, values: Float64[Tensor, " n"]) -> Float64[Tensor, "n_latents n_images"]:
        """Sparse COO `(n_latents, n_images)` with other values in the same places."""
        places = torch.stack([self.latents, self.images])
        shape = (self.n_latents, self.n_images)
        return torch.sparse_coo_tensor(places, values, shape, check_invariants=True).coalesce()


class image_blocks:  # noqa: N801 - read like a function
    """An iterable of blocks of `latents` on `device`; ValueError at a number that is not finite."""

    def __init__(self, latents: Array, device: torch.device | str = "cpu") -> None:
        if len(getattr(latents, "shape", ())) != 2:
            raise ValueError(
                f"Got latents of shape {getattr(latents, 'shape', type(latents))}, expected "
                "(n_images, n_latents)."
            )
        self._latents, self._device = latents, device
        self.shape: tuple[int, int] = tuple(latents.shape)
        self._most_images = 512 if self.shape[1] <= NARROW else 4096

    def __iter__(self) -> Iterator[DenseBlock | SparseBlock]:
        if sparse.issparse(self._latents):
            return self._sparse(*_csr_of_scipy(self._latents))
        if isinstance(self._latents, Tensor) and self._latents.layout != torch.strided:
            return self._sparse(*_csr_of_torch(self._latents))
        return self._dense(torch.as_tensor(self._latents))

    def _dense(self, latents: Tensor) -> Iterator[DenseBlock | SparseBlock]:
        step = min(self._most_images, max(1, DENSE_ELEMENTS // max(1, self.shape[1])))
        for start in range(0, len(latents), step):
            block = latents[start : start + step].detach().to(self._device)
            n_filled = int(block.count_nonzero())
            if n_filled < SPARSE_BELOW * block.numel():
                images, columns = block.nonzero(as_tuple=True)
                values = _finite(block[images, columns].double())
                yield SparseBlock(start, len(block), self.shape[1], images, columns, values)
            else:
                yield DenseBlock(start, _finite(block.double()))

    def _sparse(self, starts: Tensor, columns: Tensor, values: Tensor) -> Iterator[SparseBlock]:
        ends, start = starts.cpu().numpy(), 0
        while start < self.shape[0]:
            stop = int(np.searchsorted(ends, ends[start] + SPARSE_ENTRIES, side="right")) - 1
            stop = min(max(stop, start + 1), start + self._most_images, self.shape[0])
            part = slice(int(ends[start]), int(ends[stop]))
            n = stop - start
            counts = torch.from_numpy(np.diff(ends[start : stop + 1]))
            images = torch.arange(n).repeat_interleave(counts).to(self._device)
            nonzero = _finite(values[part].detach().to(self._device).double())
            latents = columns[part].to(self._device).long()
            kept = nonzero != 0
            if not bool(kept.all()):
                images, latents, nonzero = images[kept], latents[kept], nonzero[kept]
            yield SparseBlock(start, n, self.shape[1], images, latents, nonzero)
            start = stop


def _csr_of_scipy(latents: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Row starts, columns and values."""
    rows = latents.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return torch.as_tensor(rows.indptr), torch.as_tensor(rows.indices), torch.as_tensor(rows.data)


def _csr_of_torch(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row starts, columns and values."""
    if latents.layout == torch.sparse_csr:
        return latents.crow_indices(), latents.col_indices(), latents.values()
    if latents.layout != torch.sparse_coo:
        latents = latents.to_sparse_coo()
    latents = latents.coalesce()
    images, columns = latents.indices()
    rows = torch.arange(latents.shape[0] + 1, device=images.device)
    return torch.searchsorted(images.contiguous(), rows), columns, latents.values()


def _finite(values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        raise ValueError("Latents hold numbers that are not finite (NaN or infinite).")
    return values


def columns_of(latents: Array) -> sparse.csc_array:
    """The same numbers as a scipy CSC array of float64, `(n_images, n_latents)`, on the CPU.

    Duplicates are summed, zeros are dropped, and rows are in order within each column.
    """
    blocks = image_blocks(latents)
    values, images, columns = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in blocks:
        if isinstance(block, DenseBlock):
            image, latent = block.values.nonzero(as_tuple=True)
            stored = block.values[image, latent]
            block = SparseBlock(block.start, block.n_images, blocks.shape[1], image, latent, stored)
        values.append(block.values.numpy())
        images.append(block.images.numpy() + block.start)
        columns.append(block.latents.numpy())
    data, rows, places = (np.concatenate(part) for part in (values, images, columns))
    return sparse.coo_array((data, (rows, places)), shape=blocks.shape).tocsc()
