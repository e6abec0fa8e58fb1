"""Feature maps as tokens: what a convolutional tower has in place of patches and a residual stream.

Knows that a map (B, channels, rows, columns) is a row of tokens, one for each position, and that every
layer of such a tower has a width and a grid of its own. Knows no library and no images.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae.backbones.interception import EditFn, same_shape


class FeatureMap(NamedTuple):
    """What a layer of a convolutional tower gives."""

    width: int
    """Channels."""
    stride: int
    """Pixels of the input from one position to the next."""

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the map of an input of `size` (height, width)."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)


def tokens_of(
    hidden: Float[Tensor, "images width rows cols"],
) -> Float[Tensor, "images tokens width"]:
    """A map's positions, row by row, one token each."""
    return hidden.flatten(2).transpose(1, 2)


def edited_as_tokens(fn: EditFn) -> EditFn:
    """The edit of tokens `fn`, for a layer that gives maps (B, width, rows, columns)."""

    def changed(hidden: Tensor) -> Tensor:
        tokens = tokens_of(hidden)
        new = same_shape(fn(tokens), tokens).transpose(1, 2).reshape(hidden.shape)
        # a convolution may round otherwise where the same numbers lie in another order
        return torch.empty_like(hidden).copy_(new)

    return changed
