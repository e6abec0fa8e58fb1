"""What an SAE architecture is: one table, from which everything that differs between them is read.

    name         k      threshold   groups  trained by
    relu         -      -           -       l1     error + l1 * L1 of the latents
    topk         token  -           -       top_k  error of the k largest of each token, AuxK
    batch_topk   batch  scalar      -       top_k  the same, k * tokens of the whole batch
    matryoshka   batch  scalar      yes     top_k  the same, over nested groups of latents
    jumprelu     -      per latent  -       l0     error + penalty on missing L0 = k, AuxK

Knows the activation functions and the facts of each architecture. Knows no weights, no files and
nothing of how a loss is computed: `training` reads the name of the objective here. An architecture
of your own joins the table with `register_architecture` (docs/extending.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import ConfigError
from sae.sparse import SparseLatents, keep_above, largest_above, largest_k


@runtime_checkable
class Settings(Protocol):
    """What an activation function may read of an SAE's config (`sae.config.SAEConfig`)."""

    @property
    def k(self) -> int | None: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def negative(self) -> str: ...


Vectors = Mapping[str, Float[Tensor, " d_sae"]]
"""The parameters of shape (d_sae) that an architecture has besides b_enc, by name."""
Rows = Float[Tensor, "*batch d_sae"]
Activation = Callable[[Rows, Settings, Vectors], Rows]
"""Latents, not negative, of pre-activations."""
SparseActivation = Callable[[Rows, Settings, Vectors, int | None], SparseLatents]
"""The same latents as pairs, strongest first; of more than the given number the strongest stay."""


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    name: str
    """As config.json and `--arch` spell it."""
    label: str
    """As people read it."""
    activation: Activation
    sparse_activation: SparseActivation | None = None
    """A faster way to the same latents; None takes them from `activation`."""
    k: Literal["token", "batch"] | None = None
    """Whether cfg.k is needed, and among what the k per token are chosen in training."""
    threshold: Literal["scalar", "latent"] | None = None
    """A scalar in cfg.threshold, or a parameter `threshold (d_sae)`; a latent fires above it."""
    groups: bool = False
    """Whether cfg.group_sizes, nested groups of latents, are needed."""
    signs: bool = False
    """Whether cfg.negative may say that negative values are let through."""
    elementwise: bool = True
    """Whether a latent depends on its own pre-activation alone, at inference."""
    objective: str | None = None
    """Which of `training.loop.objectives.OBJECTIVES` is minimised; None for what it cannot train."""
    saelens: str | None = None
    """The architecture of SAELens 6 that computes the same; None if it has none."""

    @property
    def sparse(self) -> bool:
        """Whether few latents are active by construction, so that pairs are cheaper than rows."""
        return self.k is not None

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the parameters `(d_sae)` besides b_enc."""
        return ("threshold",) if self.threshold == "latent" else ()

    def latents(self, h: Rows, cfg: Settings, vectors: Vectors) -> Rows:
        """Dense latents of pre-activations `h`, or of some columns of them where
        `elementwise`."""
        return self.activation(h, cfg, vectors)

    def sparse_latents(
        self, h: Rows, cfg: Settings, vectors: Vectors, max_active: int | None = None
    ) -> SparseLatents:
        """The active latents of pre-activations `h (tokens, d_sae)`, strongest first."""
        if self.sparse_activation is None:
            return largest_above(self.activation(h, cfg, vectors), 0.0, max_active)
        return self.sparse_activation(h, cfg, vectors, max_active)


def _bound(cfg: Settings, vectors: Vectors) -> Float[Tensor, " d_sae"] | float:
    """The threshold, not negative: a vector, a scalar, or zero."""
    if "threshold" in vectors:
        return vectors["threshold"].clamp(min=0)
    return max(cfg.threshold or 0.0, 0.0)


def above(h: Rows, cfg: Settings, vectors: Vectors) -> Rows:
    """h where h > max(threshold, 0), else 0."""
    return keep_above(h, _bound(cfg, vectors))


def sparse_above(h: Rows, cfg: Settings, vectors: Vectors, max_active: int | None) -> SparseLatents:
    """The pairs of `above`."""
    return largest_above(h, _bound(cfg, vectors), max_active)


def sparse_top_k(h: Rows, cfg: Settings, _: Vectors, max_active: int | None) -> SparseLatents:
    """max(h, 0) of each token's k largest; by cfg.negative h itself, or h itself by |h|."""
    k = min(cfg.k or 1, max_active or cfg.k or 1)
    if cfg.negative == "zero":
        return largest_k(h, k)
    sizes = h.abs() if cfg.negative == "rank" else h
    indices = sizes.topk(k, dim=-1).indices
    return SparseLatents(h.gather(-1, indices), indices)


def top_k(h: Rows, cfg: Settings, vectors: Vectors) -> Rows:
    """The rows of `sparse_top_k`."""
    values, indices = sparse_top_k(h, cfg, vectors, None)
    return torch.zeros_like(h).scatter_add(-1, indices, values)


def _batch_top_k(name: str, label: str, groups: bool = False) -> Architecture:
    fields: dict[str, Any] = {
        "k": "batch",
        "threshold": "scalar",
        "objective": "top_k",
        "saelens": "jumprelu",
    }
    return Architecture(name, label, above, sparse_above, groups=groups, **fields)


ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture("relu", "ReLU", above, sparse_above, objective="l1", saelens="standard"),
        Architecture(
            "topk",
            "top-k",
            top_k,
            sparse_top_k,
            k="token",
            signs=True,
            elementwise=False,
            objective="top_k",
            saelens="topk",
        ),
        _batch_top_k("batch_topk", "batch top-k"),
        _batch_top_k("matryoshka", "Matryoshka", groups=True),
        Architecture(
            "jumprelu",
            "JumpReLU",
            above,
            sparse_above,
            threshold="latent",
            objective="l0",
            saelens="jumprelu",
        ),
    )
}
"""Every architecture by its name."""


def architecture(name: str) -> Architecture:
    """The row of that name; ConfigError lists what there is."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture must be one of {tuple(ARCHITECTURES)}, got {name!r}.")
    return ARCHITECTURES[name]


def register_architecture(row: Architecture) -> Architecture:
    """Add an architecture to the table, so that SAEs of it are made, saved and loaded like any other.

    Whoever loads such an SAE has to register it first. Its `activation` must give latents that are
    not negative. ConfigError if the name is taken.
    """
    if row.name in ARCHITECTURES:
        raise ConfigError(f"there is an architecture {row.name!r} already; give another name.")
    ARCHITECTURES[row.name] = row
    return row
