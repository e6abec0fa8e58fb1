"""Prefetching: work done before it is asked for, in order, by worker processes or by threads.

Knows torch's DataLoader and thread pools. Knows nothing of images or backbones: `load` makes
something of a request, and what it makes comes out in the order of the requests.
"""

import contextlib
import multiprocessing
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

DEPTH = 2
"""Requests that the threads together, or each worker, have under way."""


class WorkerError(OSError):
    """A worker process ended unexpectedly."""


def prefetch(
    load: Callable[[Any], Any],
    requests: Iterable[Any],
    *,
    workers: int = 0,
    threads: int = 1,
    depth: int = DEPTH,
    pin: bool = False,
) -> Generator[Any, None, None]:
    """`load(request)` for each request, in order, computed before it is asked for.

    workers 0: in `threads` threads of this process, `depth` requests ahead. Else in that many
    processes, each `depth` requests ahead, which are ended when the iterator is closed; tensors come
    through shared memory (`pin`: through pinned memory), and `load` is pickled where processes cannot
    be forked. What `load` raises is raised here; from a process, ValueError and OSError come as a
    ValueError with the same text. Raises WorkerError if a process is killed.
    """
    if workers:
        return _by_processes(load, requests, workers, depth, pin)
    return _by_threads(load, requests, threads, depth)


def _by_threads(
    load: Callable[[Any], Any], requests: Iterable[Any], threads: int, depth: int
) -> Generator[Any, None, None]:
    left = iter(requests)
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting.extend(pool.submit(load, request) for request in islice(left, depth))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(load, request) for request in islice(left, 1))
            yield loaded
    finally:
        # not waited for: the garbage collector may close this from a thread of the pool
        pool.shutdown(wait=False, cancel_futures=True)


class _Loaded(Dataset):
    """A Dataset whose keys are requests."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self.load = load

    def __getitem__(self, request: Any) -> Any:
        try:
            return self.load(request)
        except (ValueError, OSError) as error:
            return _Failed(str(error))


class _Failed(NamedTuple):
    """Why a request failed; raised here, torch would wrap it into many lines."""

    reason: str


def _by_processes(
    load: Callable[[Any], Any], requests: Iterable[Any], workers: int, depth: int, pin: bool
) -> Generator[Any, None, None]:
    forks = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    loader = DataLoader(
        _Loaded(load),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        prefetch_factor=depth,
        collate_fn=_unchanged,
        pin_memory=pin,
        worker_init_fn=_begin,
        multiprocessing_context="fork" if forks else None,
    )
    loading = _started(loader)
    try:
        while True:
            try:
                loaded = next(loading)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise WorkerError(
                    f"a worker process that opens images ended: {error} Often memory ran out: go "
                    "on with --resume and fewer --workers (0 opens images in this process)."
                ) from error
            if isinstance(loaded, _Failed):
                raise ValueError(loaded.reason)
            yield loaded
    finally:
        with contextlib.suppress(RuntimeError):
            loading._shutdown_workers()


def _started(loader: DataLoader) -> Any:
    """The loader's iterator. torch installs a SIGCHLD handler that would raise wherever the program
    happens to be when a worker dies; without it, asking for the next item raises."""
    before = signal.getsignal(signal.SIGCHLD)
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; workers take no lock that ours may hold
        warnings.simplefilter("ignore", DeprecationWarning)
        loading = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return loading


def _begin(_number: int) -> None:
    """In a new worker: Ctrl-C and SIGTERM are the main process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)


def _unchanged(loaded: Any) -> Any:
    return loaded
