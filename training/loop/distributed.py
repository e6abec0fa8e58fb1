"""What the processes of a run have to agree on inside a step, through Accelerate.

Knows how to reduce over processes. Knows nothing of losses or data. Every method must be called by
all processes at the same point.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Alone:
    """One process: it agrees with itself."""

    n = 1

    def mean(self, value: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The mean of `value` over the processes, without gradient."""
        return value.detach()

    def total(self, value: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """The sum of `value` over the processes, without gradient."""
        return value.detach()

    def smallest(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """The smallest of the processes' scalars `value`."""
        return value.detach()

    def cutoff(self, values: Float[Tensor, " candidates"], n: int) -> Float[Tensor, ""] | None:
        """The n-th largest of all processes' candidate `values`, or None if this one decides alone.

        Entries below it are dropped, so that all processes together keep n. -inf if all candidates
        together are fewer than n.
        """
        del values, n
        return None

    def every(self, value: Any) -> list[Any]:
        """The `value` (JSON-like) of every process, in order of their ranks."""
        return [value]


class Together(Alone):
    """Several processes, each with a share of the batch."""

    def __init__(self, accelerator: "Accelerator") -> None:
        self._accelerator, self.n = accelerator, accelerator.num_processes

    def mean(self, value: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self._accelerator.reduce(value.detach(), "mean")

    def total(self, value: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return self._accelerator.reduce(value.detach(), "sum")

    def smallest(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return self._accelerator.gather(value.detach().reshape(1)).min()

    def cutoff(self, values: Float[Tensor, " candidates"], n: int) -> Float[Tensor, ""]:
        values = values.detach().flatten()
        count = torch.tensor([len(values)], device=values.device)
        n_most = int(self._accelerator.gather(count).max())
        padded = values.new_full((max(1, n_most),), -torch.inf)
        padded[: len(values)] = values
        everyone = self._accelerator.gather(padded)
        if n > len(everyone):
            return everyone.new_tensor(-torch.inf)
        return everyone.kthvalue(len(everyone) - n + 1).values

    def every(self, value: Any) -> list[Any]:
        from accelerate.utils import gather_object

        return gather_object([value])


def ranks_of(accelerator: "Accelerator") -> Alone:
    """The processes of a run."""
    return Together(accelerator) if accelerator.num_processes > 1 else Alone()
