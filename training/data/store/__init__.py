"""Activations on disk, written once by training/extract.py and read by any number of runs.

Knows what a store looks like from outside; format and checks are in `training.data.store.manifest`.
"""

from pathlib import Path

from training.data.store.manifest import MANIFEST, PLAN, check_fits
from training.data.store.reading import Store, StoredHeldOut, StoredRows, StoreFeed, open_store

__all__ = [
    "Store",
    "StoreFeed",
    "StoredHeldOut",
    "StoredRows",
    "check_fits",
    "is_store",
    "open_store",
]


def is_store(data: str) -> bool:
    """Whether `data` is the folder of a store, finished or not."""
    return any((Path(data) / name).is_file() for name in (PLAN, MANIFEST))
