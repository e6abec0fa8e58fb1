"""Towers of every layout, with no model in them: what a TokenView needs to know."""

from typing import NamedTuple


class Tower(NamedTuple):
    """See sae.backbones.tokens.HasTokens."""

    patch_grid: tuple[int, int]
    n_prefix: int = 0
    has_cls: bool = False
    id: str = "fake"


CLIP = Tower((2, 2), 1, True)
SIGLIP = Tower((2, 2))
DINO = Tower((2, 3), 5, True)
REGISTERS_ONLY = Tower((2, 2), 4, False)
CONVOLUTION = Tower((3, 5))
