"""Adam on the rows of a matrix, for NVIDIA GPUs in Triton: each row is read and written once.

One program holds one row in registers. Torch's own operations serve a single row (a bias), which may be
too long for that. Knows tensors only.
"""

import triton
import triton.language as tl
from torch import Tensor

from training.kernels.plain import ADAM


@triton.jit
def _square_norms(p, g, along, squares, d, REMOVE: tl.constexpr, BLOCK: tl.constexpr):
    s = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    there = c < d
    grad = tl.load(g + s * d + c, mask=there, other=0.0)
    if REMOVE:
        row = tl.load(p + s * d + c, mask=there, other=0.0)
        a = tl.sum(grad * row)
        grad -= a * row
        tl.store(along + s, a)
    else:
        tl.store(along + s, 0.0)
    tl.store(squares + s, tl.sum(grad * grad))


@triton.jit
def _adam(
    p,
    g,
    m,
    v,
    along,
    scale,
    rate,
    root,
    new1,
    memory2,
    new2,
    eps,
    d,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    s = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    there = c < d
    place = s * d + c
    row = tl.load(p + place, mask=there, other=0.0)
    grad = tl.load(g + place, mask=there, other=0.0) - tl.load(along + s) * row
    grad *= tl.load(scale)
    first = tl.load(m + place, mask=there, other=0.0)
    first += (grad - first) * new1
    second = tl.load(v + place, mask=there, other=0.0) * memory2 + new2 * grad * grad
    tl.store(m + place, first, mask=there)
    tl.store(v + place, second, mask=there)
    row -= rate * first / (tl.sqrt(second) / root + eps)
    if UNIT:
        row /= tl.maximum(tl.sqrt(tl.sum(row * row)), 1e-12)
    tl.store(p + place, row, mask=there)


def square_norms(p: Tensor, g: Tensor, *, remove: bool) -> tuple[Tensor, Tensor]:
    """See `compiled.square_norms`."""
    if len(p) == 1:
        return p.new_zeros(1), g.square().sum(1)
    along, squares = p.new_empty(2, len(p))
    sizes = {"REMOVE": remove, "BLOCK": triton.next_power_of_2(p.shape[1])}
    _square_norms[(len(p),)](p.detach(), g.contiguous(), along, squares, p.shape[1], **sizes)
    return along, squares


def adam(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    along: Tensor,
    *,
    scale: Tensor,
    lr: float,
    step: int,
    unit: bool,
) -> None:
    """See `compiled.adam`. `scale` is on the device, so that nothing waits for it."""
    beta1, beta2, eps = ADAM
    rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
    p, scale = p.detach(), scale.to(p.dtype)
    if len(p) == 1:
        grad = g * scale
        m.lerp_(grad, 1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        p.addcdiv_(m, v.sqrt().div_(root).add_(eps), value=-rate)
        return
    numbers = rate, root, 1 - beta1, beta2, 1 - beta2, eps
    sizes = {"UNIT": unit, "BLOCK": triton.next_power_of_2(p.shape[1])}
    _adam[(len(p),)](p, g.contiguous(), m, v, along, scale, *numbers, p.shape[1], **sizes)
