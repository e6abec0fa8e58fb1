"""What is needed to run a sparse autoencoder, and nothing about how it was trained.

Knows which fields an SAE has and which backbone the activations come from; what each architecture
needs of them is in the table of `sae.architectures`. Knows nothing of tensors, files or training.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sae.architectures import architecture
from sae.errors import ConfigError

TokenPolicy = Literal["all", "patches", "cls", "embedding"]
Negative = Literal["zero", "keep", "rank"]
InputNorm = Literal["none", "layer_norm", "constant_norm"]

TOKEN_POLICIES: tuple[str, ...] = ("all", "patches", "cls")
"""What an SAE of a layer may read of it; "embedding" is no layer's."""
NEGATIVES: tuple[str, ...] = get_args(Negative)
INPUT_NORMS: tuple[str, ...] = get_args(InputNorm)
FORMAT = 1
"""The newest artifact format this library reads, and the one it writes."""


@dataclass(frozen=True)
class BackboneRef:
    """Where an SAE's activations come from.

    `id` is whatever `Backbone.from_pretrained` takes; `layer` counts from 0 (negative from the
    end); `tokens` says which positions the SAE was trained on. With tokens "embedding" the SAE reads no
    layer but what CLIP makes of a whole picture, one vector an image, and `layer` is -1.
    """

    id: str
    layer: int
    tokens: TokenPolicy = "all"
    revision: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("backbone.id is empty; give a Hub id, a folder or 'bundled'.")
        if self.tokens not in get_args(TokenPolicy):
            raise ConfigError(
                f"backbone.tokens must be one of {get_args(TokenPolicy)}, got {self.tokens!r}."
            )


@dataclass(frozen=True)
class SAEConfig:
    """Shape and activation function of an SAE; `sae.architectures` says which needs what.

    `k` is the number of active latents per token (topk: exactly at most; batch_topk and matryoshka:
    on average in training). `threshold` is the scalar that batch_topk and matryoshka use at
    inference. `group_sizes` are matryoshka's nested groups, in order, summing to `d_sae`.

    Two options serve SAEs of other libraries; what PatchLens trains has neither. `negative` says
    what topk does with the negative among its k: "zero" empties them, "keep" lets them through,
    "rank" lets them through and chooses the k by size without sign. `input_norm` is taken of every
    token before encoding and undone after decoding: "layer_norm" (x - mean) / (std + 1e-5) with the
    unbiased std, "constant_norm" x * sqrt(d_in) / ||x||.
    """

    architecture: str
    d_in: int
    d_sae: int
    backbone: BackboneRef
    k: int | None = None
    threshold: float | None = None
    group_sizes: tuple[int, ...] | None = None
    format: int = FORMAT
    negative: Negative = "zero"
    input_norm: InputNorm = "none"

    def __post_init__(self) -> None:
        architecture(self.architecture)
        if self.format != FORMAT:
            raise ConfigError(
                f"format is {self.format}, this version of PatchLens reads format {FORMAT}; "
                "update PatchLens."
            )
        if self.d_in < 1 or self.d_sae < 1:
            raise ConfigError(f"d_in and d_sae must be positive, got {self.d_in} and {self.d_sae}.")
        self._check_k()
        self._check_threshold()
        self._check_groups()
        self._check_options()

    def _check_k(self) -> None:
        if architecture(self.architecture).k is None:
            if self.k is not None:
                raise ConfigError(
                    f"k means nothing for {self.architecture}, got {self.k}; drop it."
                )
        elif self.k is None or not 1 <= self.k <= self.d_sae:
            raise ConfigError(
                f"{self.architecture} needs 1 <= k <= d_sae={self.d_sae}, got k={self.k}."
            )

    def _check_threshold(self) -> None:
        if architecture(self.architecture).threshold != "scalar":
            if self.threshold is not None:
                raise ConfigError(
                    f"a scalar threshold means nothing for {self.architecture}, "
                    f"got {self.threshold}; drop it."
                )
        elif self.threshold is None or not math.isfinite(self.threshold):
            raise ConfigError(
                f"{self.architecture} needs a finite scalar threshold, got {self.threshold}."
            )

    def _check_groups(self) -> None:
        sizes = self.group_sizes
        if not architecture(self.architecture).groups:
            if sizes is not None:
                raise ConfigError(f"group_sizes mean nothing for {self.architecture}; drop them.")
        elif not sizes or min(sizes) < 1 or sum(sizes) != self.d_sae:
            raise ConfigError(
                f"{self.architecture} needs positive group_sizes summing to d_sae={self.d_sae}, "
                f"got {sizes}."
            )

    def _check_options(self) -> None:
        if self.negative not in NEGATIVES or self.input_norm not in INPUT_NORMS:
            raise ConfigError(
                f"negative must be one of {NEGATIVES} and input_norm one of {INPUT_NORMS}, got "
                f"{self.negative!r} and {self.input_norm!r}."
            )
        if self.negative != "zero" and not architecture(self.architecture).signs:
            raise ConfigError(
                f"negative={self.negative!r} means nothing for {self.architecture}; drop it."
            )
