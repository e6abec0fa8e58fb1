"""A number for every row of a shard, so that what is read of it is compared while it is read.

A store of many gigabytes is read in chunks from anywhere: hashing its files first would read all of it a
second time. A row's number is the sum of its bytes, eight at a time as whole numbers, each times an odd one
of its place, modulo 2^64: any one changed byte changes it, and it costs less than reading the row. It tells
accidents; `patchlens extract --check` compares hashes. Knows the tensors of a shard. Knows nothing of plans,
splits or training.

    digests   (rows, 8) uint8   of a row's bytes, and of its scale's if it has one
    channels  (8,) uint8        of the channels' means and deviations (int8)
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sae.errors import ArtifactError

DIGESTS, CHANNELS = "digests", "channels"
AGAIN = "Delete it and its .json and manifest.json, and run patchlens extract again."
_WORD = 8
_ODD = 0x9E3779B97F4A7C15


def digests_of(part: Mapping[str, Tensor]) -> UInt8[Tensor, "rows 8"]:
    """Of each of some rows of a shard."""
    parts = [part[name].contiguous().numpy() for name in ("rows", "scale") if name in part]
    n = len(parts[0])
    told = (
        [one.reshape(n, -1).view(np.uint8) for one in parts] if n else [np.empty((0, _WORD), "u1")]
    )
    return torch.from_numpy(_sums(np.concatenate(told, 1) if len(told) > 1 else told[0]))


def digest_of_channels(packed: Mapping[str, Tensor]) -> UInt8[Tensor, " 8"]:
    """Of the means and deviations, where there are any."""
    told = [
        packed[name].contiguous().numpy().view(np.uint8)
        for name in ("mean", "std")
        if name in packed
    ]
    return torch.from_numpy(_sums(np.concatenate([np.zeros(_WORD, "u1"), *told])[None])[0])


def compare(
    path: Path, start: int, part: Mapping[str, Tensor], written: UInt8[Tensor, "rows 8"]
) -> None:
    """ArtifactError unless rows from `start` on are those whose digests were `written`."""
    same = (digests_of(part) == written).all(-1)
    if not bool(same.all()):
        row = start + int(same.logical_not().nonzero()[0])
        raise ArtifactError(path, f"other numbers in row {row:,}", "those that were written", AGAIN)


def _sums(rows: UInt8[np.ndarray, "rows bytes"]) -> UInt8[np.ndarray, "rows 8"]:
    if over := rows.shape[1] % _WORD:
        rows = np.pad(rows, ((0, 0), (0, _WORD - over)))
    words = np.ascontiguousarray(rows).view("<u8")
    return (words * _factors(words.shape[1])).sum(1, dtype="<u8")[:, None].view(np.uint8)


@lru_cache(maxsize=8)
def _factors(n: int) -> np.ndarray:
    return (2 * np.arange(n, dtype=np.uint64) + 1) * np.uint64(_ODD)
