"""Sharing a job of many rows between the CPU threads that torch may use.

Knows threads. Knows nothing of what the rows are. Plain threads, not numba's own: those and torch's
would fight for the same cores.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import torch

PARTS = 8
"""Parts a thread, so that one which was held up does not keep the others waiting."""


@functools.cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="kernels")


def share(job: Callable[..., Any], n_rows: int, *arguments: Any) -> None:
    """Call `job(lo, hi, *arguments)` for ranges that cover `n_rows`, on all threads."""
    n = torch.get_num_threads()
    size = max(1, -(-n_rows // (n * PARTS)))
    if n == 1 or n_rows <= size:
        job(0, n_rows, *arguments)
        return
    numbers = count()

    def work() -> None:
        while (lo := next(numbers) * size) < n_rows:
            job(lo, min(lo + size, n_rows), *arguments)

    others = [_pool(n - 1).submit(work) for _ in range(n - 1)]
    try:
        work()
    finally:
        for other in others:
            other.result()
