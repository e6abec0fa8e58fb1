"""Which tokens of an image an SAE reads, where they lie and what each of them is: the one home.

    all        every position, CLS and registers included
    patches    the spatial positions
    cls        the CLS token
    random:N   training only: N different positions of each image, drawn among all

An image's tokens are CLS (where there is one), registers, the grid row by row, and whatever else
the model appends (prompts). The positions of a convolutional map are a grid with nothing before it.
Knows policies and that order. Knows nothing of SAEs or training. An SAE that was trained on
random:N reads all tokens at inference, and its artifact says so (`inference_policy`). Pach et al.
draw with replacement (2 of 577: one image in 577 gives a token twice); here the N positions differ,
so no token weighs more than another.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae.config import TOKEN_POLICIES


class HasTokens(Protocol):
    """What gives an image a row of tokens: a Backbone, a vision tower's PatchLayout, a TokenView."""

    @property
    def id(self) -> str: ...

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the spatial positions."""

    @property
    def n_prefix(self) -> int:
        """Tokens before them: CLS and registers."""

    @property
    def has_cls(self) -> bool:
        """Whether the first token is a CLS token."""


class TokenView:
    """The tokens that an SAE of one policy reads of a backbone's activations (images, tokens, d).

    `span` and `image` count positions of the activations; `patches` and `cls` count positions among
    the tokens that are read. Raises ValueError for what is no policy and for a policy that asks for
    more than the backbone has.
    """

    def __init__(self, backbone: HasTokens, policy: str) -> None:
        self.id, self.patch_grid = backbone.id, backbone.patch_grid
        self.n_prefix, self.has_cls = backbone.n_prefix, backbone.has_cls
        self.policy = inference_policy(policy)
        self.n_patches = self.patch_grid[0] * self.patch_grid[1]
        self.n_drawn = n_random(policy)
        """N of a policy random:N, else None."""
        n_image = self.n_prefix + self.n_patches
        if self.policy == "cls" and not self.has_cls:
            raise ValueError(
                f"--tokens cls: {self.id} has no CLS token; use --tokens all or patches."
            )
        if self.n_drawn and self.n_drawn > n_image:
            raise ValueError(
                f"--tokens {policy}: {self.id} has {n_image} tokens an image; give at most that "
                "many."
            )

    @property
    def image(self) -> slice:
        """An image's own tokens: CLS, registers and patches, without prompts behind them."""
        return slice(0, self.n_prefix + self.n_patches)

    @property
    def span(self) -> slice:
        """The tokens that are read; with policy all everything, prompts behind the image too."""
        if self.policy == "cls":
            return slice(0, 1)
        if self.policy == "patches":
            return slice(self.n_prefix, self.n_prefix + self.n_patches)
        return slice(None)

    @property
    def n_read(self) -> int:
        """How many of an image's own tokens are read."""
        return {"cls": 1, "patches": self.n_patches}.get(self.policy, self.image.stop)

    @property
    def n_trained(self) -> int:
        """How many tokens of an image a training takes: N of random:N, else all that are read."""
        return self.n_drawn or self.n_read

    @property
    def patches(self) -> slice:
        """Where the patches, row by row, are among the tokens read; empty if none is read."""
        first = self.n_prefix if self.policy == "all" else 0
        return slice(first, first + self.n_patches if self.policy != "cls" else first)

    @property
    def reads_patches(self) -> bool:
        """Whether what is read has places in the picture."""
        return self.policy != "cls"

    @property
    def reads_cls(self) -> bool:
        """Whether the first token that is read is the CLS token."""
        return self.has_cls and self.policy != "patches"

    def kinds(self, n_read: int | None = None) -> tuple[str, ...]:
        """ "cls", "register" or "patch" for each token read; what lies behind the image (for
        `n_read` tokens, more than its own) counts as a register."""
        n_cls = min(self.n_prefix, int(self.has_cls))
        before = ("cls",) * n_cls + ("register",) * (self.n_prefix - n_cls)
        own = (before + ("patch",) * self.n_patches)[self.span]
        return own + ("register",) * ((n_read or len(own)) - len(own))

    def read(self, activations: Float[Tensor, "images tokens d"]) -> Float[Tensor, "images read d"]:
        """The tokens `(images, read, d)` of `activations (images, tokens, d)` (random:N: all)."""
        return activations if self.policy == "all" else activations[:, self.span]

    def put(
        self, activations: Float[Tensor, "images tokens d"], read: Float[Tensor, "images read d"]
    ) -> Float[Tensor, "images tokens d"]:
        """`activations (images, tokens, d)` with the tokens read replaced; its dtype, a new tensor."""
        if self.policy == "all":
            return read.to(activations.dtype)
        changed = activations.clone()
        changed[:, self.span] = read.to(activations.dtype)
        return changed


def n_random(policy: str) -> int | None:
    """N of a policy random:N, None of the others. Raises ValueError if it is no policy."""
    name, colon, number = policy.partition(":")
    if name == "random" and colon and number.isascii() and number.isdigit() and int(number) > 0:
        return int(number)
    if policy == "embedding":
        raise ValueError(
            "this SAE reads the image embedding, one vector a picture, and no tokens of a layer; give "
            "it to sae.encode(embeddings) yourself."
        )
    if policy not in TOKEN_POLICIES:
        raise ValueError(
            f"--tokens: invalid choice: {policy!r} (choose from {', '.join(TOKEN_POLICIES)}, "
            "random:N with N at least 1)"
        )
    return None


def inference_policy(policy: str) -> Any:
    """What an SAE trained with `policy` reads when it is used, a TokenPolicy: random:N becomes all."""
    return policy if n_random(policy) is None else "all"


def random_positions(
    seeds: Sequence[tuple[int, ...]], n: int, n_tokens: int
) -> Int64[Tensor, "images n"]:
    """`(images, n)` int64: n different positions below `n_tokens` for each image, in rising order.

    An image's positions follow from its seeds alone, whatever else is in the batch.
    """
    rows = [np.random.default_rng(s).choice(n_tokens, n, replace=False) for s in seeds]
    return torch.from_numpy(np.sort(np.stack(rows), axis=1).astype(np.int64))


def at_positions(
    activations: Float[Tensor, "images tokens d"], positions: Int64[Tensor, "images n"]
) -> Float[Tensor, "images n d"]:
    """The tokens `(images, n, d)` of `activations (images, tokens, d)` at `positions (images, n)`."""
    index = positions.to(activations.device)[:, :, None].expand(-1, -1, activations.shape[-1])
    return activations.gather(1, index)


def require_finite(
    x: Float[Tensor, "images tokens d"], names: Sequence[str], *, backbone: str, layer: int
) -> None:
    """ValueError that names the layer and the first image whose activations, of `x (images, tokens, d)`,
    are NaN or infinite. One pass over `x`."""
    if not x.numel() or all(math.isfinite(float(end)) for end in x.detach().aminmax()):
        return
    first = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
    dtype = str(x.dtype).removeprefix("torch.")
    raise ValueError(
        f"layer {layer} of {backbone} gives NaN or infinity for {names[first]} (in {dtype}). Look at the "
        "picture and leave it out, or load the backbone in float32 if it overflows."
    )
