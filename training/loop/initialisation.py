"""Where training starts from: b_dec and the scale of the activations, from the first buffer.

Knows statistics of activations, agreed between processes. Knows nothing of losses or files.
"""

import torch
from torch import Tensor

from training.loop.config import TrainConfig
from training.loop.distributed import Alone

CHUNK = 65_536
"""Tokens looked at together, so that no copy of the whole buffer is made."""


def centre_and_scale(
    buffer: Tensor, config: TrainConfig, tokens_per_image: int, ranks: Alone
) -> tuple[Tensor, float]:
    """b_dec `(d)` of raw activations and the number to divide them by, the same on all processes.

    `buffer (tokens, d)` is this process's, image after image. ValueError if its activations do not
    differ or are not finite.
    """
    centre = first_centre(buffer, config, tokens_per_image, ranks)
    if config.scale == "none":
        return centre, 1.0
    origin = centre if config.scale == "spread" else torch.zeros_like(centre)
    squares = sum((rows - origin).square().sum() for rows in buffer.split(CHUNK))
    scale = float(ranks.mean(squares / len(buffer)).sqrt())
    if not 0 < scale < float("inf"):
        raise ValueError(
            f"the activations of layer {config.layer} have size {scale}; is it the right layer of "
            "the right backbone?"
        )
    return centre, scale


def first_centre(
    buffer: Tensor, config: TrainConfig, tokens_per_image: int, ranks: Alone
) -> Tensor:
    """Where b_dec starts.

    median: geometric median of tokens. batch_median: of one batch, as Pach et al. image_median:
    PatchSAE's, over the images of one batch, each of them one point of all its tokens; then the mean
    over positions.
    """
    if config.b_dec == "zero":
        return torch.zeros_like(buffer[0])
    if config.b_dec == "mean":
        return ranks.mean(buffer.mean(0))
    if config.b_dec == "median":
        return geometric_median(buffer, ranks=ranks)
    if config.b_dec == "batch_median":
        return geometric_median(buffer[: config.batch_size], ranks=ranks)
    n = max(1, min(len(buffer), config.batch_size) // tokens_per_image)
    images = buffer[: n * tokens_per_image].reshape(n, -1)
    return geometric_median(images, ranks=ranks).view(tokens_per_image, -1).mean(0)


@torch.no_grad()
def geometric_median(
    points: Tensor, *, steps: int = 100, tolerance: float = 1e-5, ranks: Alone | None = None
) -> Tensor:
    """The point `(d)` with the smallest sum of distances to `points (n, d)` of all processes.

    Weiszfeld's steps; as many at most as both papers' code makes.
    """
    ranks = ranks or Alone()
    centre = ranks.mean(points.mean(0))
    for _ in range(steps):
        weights = 1.0 / torch.cdist(points, centre[None]).clamp_min(1e-8)
        new = ranks.total(weights[:, 0] @ points) / ranks.total(weights.sum())
        moved = (new - centre).norm() / centre.norm().clamp_min(1e-8)
        centre = new
        if moved < tolerance:
            break
    return centre
