"""What several benches measure with: clocks, memory, limits, and random models of the real sizes.

Knows torch and this machine; prints nothing. `python training/bench/gauges.py` does nothing.
"""

import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from sae.model import SparseAutoencoder

VIT_B_16 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
"""The vision tower of CLIP ViT-B/16, for a CLIPVisionConfig."""


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall time of one call, or with time.process_time its CPU time over all threads."""
    start = clock()
    call()
    return clock() - start


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def verdict(value: float, limit: float) -> str:
    """Whether a figure keeps its limit."""
    return "ok" if value <= limit else "OVER"


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth random picture of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@torch.no_grad()
def give_directions(sae: SparseAutoencoder) -> torch.Tensor:
    """Random unit directions (d_in, d_sae), which become the encoder's and the decoder's."""
    shape = sae.cfg.d_in, sae.cfg.d_sae
    directions = torch.nn.functional.normalize(torch.randn(shape), dim=0)
    sae.W_enc.copy_(directions)
    sae.W_dec.copy_(directions.T)
    return directions
