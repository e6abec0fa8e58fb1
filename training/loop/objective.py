"""What an SAE is trained for: one loss per architecture, on scaled activations.

    relu                      mean error + l1 * mean L1; PatchSAE's normalisation and ghost gradients
    topk                      mean ||x - x_hat||^2 + aux * AuxK
    batch_topk                the same, k * tokens entries of the whole batch kept
    matryoshka                the same, over nested groups of latents
    jumprelu                  mean ||x - x_hat||^2 + a penalty on missing L0 = k + aux * AuxK

Knows which architecture has which loss. The top-k family is in `training.loop.sparse_objective`, relu
and jumprelu in `training.loop.dense_objective`.
"""

import torch
from torch import nn

from training.loop.dense_objective import DenseObjective
from training.loop.distributed import Alone
from training.loop.parameters import TrainableSAE
from training.loop.sparse_objective import SparseObjective
from training.loop.step_output import StepOutput

__all__ = ["Objective", "StepOutput"]


def Objective(  # noqa: N802
    weights: TrainableSAE,
    architecture: str,
    *,
    k: int,
    l1: float = 0.0,
    aux: float = 0.0,
    groups: tuple[int, ...] | None = None,
    by_norm: bool = False,
    mse_cls: float = 1.0,
    ghost: bool = False,
    select_dtype: torch.dtype = torch.float32,
    ranks: Alone | None = None,
) -> nn.Module:
    """The module whose call is one forward of `architecture`'s loss."""
    if architecture in ("relu", "jumprelu"):
        relu = {"l1": l1, "by_norm": by_norm, "mse_cls": mse_cls, "ghost": ghost}
        return DenseObjective(weights, architecture, k=k, aux=aux, ranks=ranks, **relu)
    sparse = {"aux": aux, "groups": groups, "select_dtype": select_dtype}
    return SparseObjective(weights, architecture, k=k, ranks=ranks, **sparse)
