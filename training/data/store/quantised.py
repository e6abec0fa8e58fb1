"""Rows of activations as the tensors of a shard, and back.

Knows float16 and int8. int8: every channel is centred and divided by its standard deviation over
the shard, then every row has its own scale, its largest magnitude to 127. So neither a channel that
is always large nor a token that is large everywhere makes the others coarse. The loss is measured
when a shard is written (`quantisation_fvu`).
"""

import torch
from torch import Tensor


def pack(rows: Tensor, dtype: str) -> dict[str, Tensor]:
    """The tensors that stand for `rows (n, d)` float32. ValueError if they cannot."""
    if not bool(rows.isfinite().all()):
        raise ValueError("the backbone gave activations that are NaN or infinite; check its dtype.")
    if dtype == "float16":
        if (largest := float(rows.abs().max())) > torch.finfo(torch.float16).max:
            raise ValueError(
                f"an activation of {largest:.3g} does not fit into float16; use --dtype int8."
            )
        return {"rows": rows.half()}
    mean, std = rows.mean(0), rows.std(0, unbiased=False).clamp_min(1e-12)
    standard = (rows - mean) / std
    scale = standard.abs().amax(1).clamp_min(1e-12) / 127
    return {
        "rows": (standard / scale[:, None]).round_().to(torch.int8),
        "scale": scale,
        "mean": mean,
        "std": std,
    }


def unpack(part: dict[str, Tensor]) -> Tensor:
    """Rows `(m, d)` float32 from some of a shard's rows (with their scales) and its channels."""
    rows = part["rows"].float()
    if "scale" in part:
        rows.mul_(part["scale"][:, None]).mul_(part["std"]).add_(part["mean"])
    return rows


def quantisation_fvu(rows: Tensor, packed: dict[str, Tensor]) -> float:
    """Share of the variance of `rows` that packing loses."""
    error = (rows - unpack(packed)).square().sum()
    return float(error / (rows - rows.mean(0)).square().sum().clamp_min(1e-30))
