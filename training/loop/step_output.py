"""What a training step's forward gives, whatever the architecture.

Knows tensors only.
"""

from typing import NamedTuple

from torch import Tensor


class StepOutput(NamedTuple):
    """What a step's forward gives."""

    loss: Tensor
    """The scalar to minimise."""
    squared_error: Tensor
    """Sum of ||x - x_hat||^2 over the batch, detached."""
    n_active: Tensor
    """Sum of L0 over the batch."""
    fired: Tensor
    """`(d_sae,)` bool: latents that fired on this batch."""
    smallest: Tensor
    """The smallest activation that was kept, or 0 if there was none."""
