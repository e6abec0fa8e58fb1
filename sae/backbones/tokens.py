"""Token policies: which positions of a backbone's activations an SAE reads.

    all        every position, CLS and registers included
    patches    the spatial positions
    cls        the CLS token
    random:N   training only: N different positions of each image, drawn among all

Knows policies and the order prefix, patches, rest. Knows nothing of SAEs or training. An SAE that
was trained on random:N reads all tokens at inference, and its artifact says so
(`inference_policy`). Pach et al. draw with replacement (2 of 577: one image in 577 gives a token
twice); here the N positions differ, so no token weighs more than another.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sae.backbones.base import Backbone

WHOLE_POLICIES = ("all", "patches", "cls")


def n_random(policy: str) -> int | None:
    """N of a policy random:N, None of the others. Raises ValueError if it is no policy."""
    name, colon, number = policy.partition(":")
    if name == "random" and colon and number.isascii() and number.isdigit() and int(number) > 0:
        return int(number)
    if policy not in WHOLE_POLICIES:
        raise ValueError(
            f"--tokens: invalid choice: {policy!r} (choose from {', '.join(WHOLE_POLICIES)}, "
            "random:N with N at least 1)"
        )
    return None


def inference_policy(policy: str) -> str:
    """What an SAE trained with `policy` reads when it is used: random:N becomes all."""
    return policy if n_random(policy) is None else "all"


def chosen_tokens(activations: Tensor, backbone: Backbone, policy: str) -> Tensor:
    """The tokens `(images, tokens, d)` that an SAE of this policy reads (random:N: all of them)."""
    policy = inference_policy(policy)
    if policy == "all":
        return activations
    if policy == "cls":
        check_policy(backbone, policy)
        return activations[:, :1]
    rows, columns = backbone.patch_grid
    return activations[:, backbone.n_prefix : backbone.n_prefix + rows * columns]


def tokens_per_image(backbone: Backbone, policy: str) -> int:
    """How many tokens of an image a training with this policy takes."""
    rows, columns = backbone.patch_grid
    sizes = {"cls": 1, "patches": rows * columns, "all": backbone.n_prefix + rows * columns}
    return n_random(policy) or sizes[policy]


def check_policy(backbone: Backbone, policy: str) -> None:
    """Raise ValueError if the backbone cannot give what the policy asks for."""
    n = n_random(policy)
    if policy == "cls" and not backbone.has_cls:
        raise ValueError(
            f"--tokens cls: {backbone.id} has no CLS token; use --tokens all or patches."
        )
    if n and n > (there := tokens_per_image(backbone, "all")):
        raise ValueError(
            f"--tokens {policy}: {backbone.id} has {there} tokens an image; give at most that many."
        )


def random_positions(seeds: Sequence[tuple[int, ...]], n: int, n_tokens: int) -> Tensor:
    """`(images, n)` int64: n different positions below `n_tokens` for each image, in rising order.

    An image's positions follow from its seeds alone, whatever else is in the batch.
    """
    rows = [np.random.default_rng(s).choice(n_tokens, n, replace=False) for s in seeds]
    return torch.from_numpy(np.sort(np.stack(rows), axis=1).astype(np.int64))


def at_positions(activations: Tensor, positions: Tensor) -> Tensor:
    """The tokens `(images, n, d)` of `activations (images, tokens, d)` at `positions (images, n)`."""
    index = positions.to(activations.device)[:, :, None].expand(-1, -1, activations.shape[-1])
    return activations.gather(1, index)
