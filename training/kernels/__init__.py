"""The loops that training's sparse mathematics spends its time in, for three kinds of machine.

`plain` runs wherever torch does, `compiled` on the CPU where numba is installed, `on_cuda` on NVIDIA
GPUs by Triton. All three have the same functions and give the same numbers up to rounding; `chosen`
says which one serves a tensor. Knows tensors only; nothing of SAEs, losses or optimisers.
"""

import functools
import importlib.util
import os
import warnings
from types import ModuleType

import torch

from training.kernels import plain

VARIABLE = "PATCHLENS_KERNELS"
"""Environment variable: `plain` switches the other two off, `triton` has the GPU's kernels serve CPU tensors
too (with TRITON_INTERPRET=1, for tests)."""


def chosen(like: torch.Tensor, dtype: torch.dtype | None = None) -> ModuleType:
    """The module of kernels for tensors on the device of `like`, of its dtype or another."""
    dtype = dtype or like.dtype
    wish = os.environ.get(VARIABLE)
    if wish == "plain":
        return plain
    if wish == "triton" and dtype == torch.float32:
        return _on_cuda() or plain
    if like.device.type == "cpu" and dtype in (torch.float32, torch.float64):
        return _compiled() or plain
    if like.device.type == "cuda" and dtype == torch.float32:
        return _on_cuda() or plain
    return plain


@functools.cache
def _compiled() -> ModuleType | None:
    """The kernels compiled by numba, or None, with one warning, where it does not work."""
    try:
        from training.kernels import compiled as module
    except (ImportError, OSError) as error:
        warnings.warn(
            f"Training's CPU kernels need numba, which does not work here ({error}); plain torch gives "
            "the same numbers, several times slower. Install it: pip install numba",
            stacklevel=3,
        )
        return None
    return module


@functools.cache
def _on_cuda() -> ModuleType | None:
    """The Triton kernels, or None where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    from training.kernels import on_cuda as module

    return module


@functools.cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether a bfloat16 matmul is clearly faster than a float32 one on this kind of device."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
