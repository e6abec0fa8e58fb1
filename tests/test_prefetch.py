"""Prefetching keeps the order, looks no further ahead than told, and tells what went wrong."""

import os
import signal
import threading

import pytest
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from sae.prefetch import WorkerError, prefetch


@pytest.mark.parametrize(("workers", "threads", "depth"), [(0, 1, 1), (0, 3, 8), (2, 1, 2)])
def test_the_order_is_that_of_the_requests(workers: int, threads: int, depth: int) -> None:
    options = {"workers": workers, "threads": threads, "depth": depth}
    assert list(prefetch(str, range(20), **options)) == [str(n) for n in range(20)]
    assert list(prefetch(str, (), **options)) == []


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_threads_look_as_far_ahead_as_told(depth: int) -> None:
    asked: list[int] = []

    def requests():
        for number in range(20):
            asked.append(number)
            yield number

    loaded = prefetch(str, requests(), threads=2, depth=depth)
    assert asked == []
    for number in range(20):
        assert next(loaded) == str(number)
        assert len(asked) == min(20, number + 1 + depth)


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=60)
    assert len(list(prefetch(lambda _: together.wait(), range(6), threads=3, depth=6))) == 6


def test_a_worker_that_is_killed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch looks every five seconds whether workers live
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))

    def load(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(WorkerError, match="a worker process that opens images ended.*--workers"):
        list(prefetch(load, range(6), workers=1))


def test_an_error_in_a_worker_arrives_here() -> None:
    def load(number: int) -> int:
        raise ValueError(f"number {number} is wrong")

    for workers in (0, 1):
        with pytest.raises(ValueError, match="^number 0 is wrong$"):
            list(prefetch(load, range(6), workers=workers))
