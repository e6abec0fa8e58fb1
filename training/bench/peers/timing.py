"""How a training step is timed in training/bench/sae_step.py, for every library alike.

Knows sizes, made-up activations and clocks; needs torch alone.
"""

import json
import resource
import statistics
import time
from collections.abc import Callable

import torch

D_IN, D_SAE, K, BATCH = 768, 12_288, 32, 4096


def timed(step: Callable[[torch.Tensor], object], n: int) -> None:
    """Print the best seconds, the median CPU seconds and the peak GiB of n steps after a first."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(BATCH, D_IN, generator=generator) for _ in range(n + 1)]
    step(batches[0])
    wall, cpu = [], []
    for x in batches[1:]:
        began, cpu_began = time.perf_counter(), time.process_time()
        step(x)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([min(wall), statistics.median(cpu), peak]))
