"""A finished store as the Feed of a stream, and as held-out activations.

Knows shards on disk, memory-mapped, and chunks of their rows. What is reshuffled, exactly: the rows
of a shard were shuffled when it was written; every epoch goes through all chunks of 64 rows, of all
shards, in a new order; and the rows of a round of the stream (by default 16 batches, so 1,024
chunks from anywhere in the store) are shuffled anew. Rows of one chunk meet in the same round of
every epoch, rarely in the same batch.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae.backbones.tokens import require_finite
from sae.errors import ArtifactError
from sae.prefetch import prefetch
from sae.storage import sha256, warn_of_age
from training.data.sources.image_source import order
from training.data.store.digests import (
    AGAIN,
    CHANNELS,
    DIGESTS,
    compare,
    digest_of_channels,
)
from training.data.store.manifest import Manifest, Shard, read_manifest
from training.data.stream import Group, Rows

CHUNK = 64
"""Rows that are always read together: 96 KiB at width 768 in float16."""
GROUP = 64
"""Chunks that are read ahead together."""
VERIFIED_BYTES = 1 << 30
"""Stores up to this size are hashed whenever they are opened, so that damage ends a run before it begins."""
OPEN_SHARDS = 256


@dataclass(frozen=True)
class StoredRows:
    """The training rows of a store; stands where an ImageSource stands."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """What they are, for training.json."""
        plan = self.manifest.plan
        images = f"{plan.n_images} images of {plan.data}"
        return f"{images}, stored as {plan.dtype} in {self.folder.name}"

    @property
    def origin(self) -> dict[str, Any]:
        """The images behind it: --data of extract.py, and how many of them are held out."""
        return {"data": self.manifest.plan.data, "held_out": self.manifest.plan.n_held_out}

    def some(self, n: int) -> Float32[Tensor, "rows d_in"]:
        """About `n` rows `(rows, d)` float32, from all shards; the rows of a shard are shuffled."""
        shards = self.manifest.shards["train"]
        total = sum(shard.n_rows for shard in shards)
        return torch.cat(
            [
                read_rows(self.folder / s.file, 0, min(s.n_rows, -(-n * s.n_rows // total)))
                for s in shards
            ]
        )

    def first(self, n: int | None) -> "StoredRows":
        """The store itself; a part of it cannot be had by images."""
        if n is not None:
            raise ValueError(
                f"--images {n}: a store is read whole; give --images to patchlens extract instead."
            )
        return self


@dataclass(frozen=True)
class StoredHeldOut:
    """The held-out activations of a store; stands where a held-out ImageSource stands."""

    folder: Path
    manifest: Manifest
    n: int

    @property
    def name(self) -> str:
        """What they are, for metrics.json."""
        return f"{self.n} held-out images of {self.manifest.plan.data}, stored"

    def first(self, n: int | None) -> "StoredHeldOut":
        """At most `n` images of them."""
        return self if n is None else replace(self, n=min(n, self.n))

    def batches(self, image_batch: int) -> Iterator[Float32[Tensor, "images tokens d_in"]]:
        """Activations `(images, tokens, d)` float32, at most `image_batch` images at a time."""
        left, per = self.n, self.manifest.plan.held_out_tokens_per_image
        for shard in self.manifest.shards["held_out"]:
            for start in range(0, min(left, shard.n_images), image_batch):
                end = min(start + image_batch, left, shard.n_images)
                rows = read_rows(self.folder / shard.file, start * per, end * per)
                yield rows.view(end - start, per, -1)
            left -= min(left, shard.n_images)


@dataclass(frozen=True)
class Store:
    """An opened store."""

    training: StoredRows
    held_out: StoredHeldOut


def open_store(data: str | Path, hashed: int = VERIFIED_BYTES) -> Store:
    """A finished store, its files checked: sizes always, hashes too up to `hashed` bytes.

    What is read of a larger one is compared row by row as it is read. Raises ArtifactError if it is
    unfinished, damaged or of a newer format.
    """
    folder = Path(data)
    manifest = read_manifest(folder)
    shards = [shard for part in manifest.shards.values() for shard in part]
    if sum(shard.n_bytes for shard in shards) <= hashed:
        verify(folder, shards)
    elif not _opened(folder / shards[0].file).digested:
        warn_of_age(folder)
    n = sum(shard.n_images for shard in manifest.shards["held_out"])
    return Store(StoredRows(folder, manifest), StoredHeldOut(folder, manifest, n))


def verify(folder: Path, shards: list[Shard]) -> None:
    """Raise ArtifactError if a shard's content is not what was written."""
    for shard in shards:
        if (digest := sha256(folder / shard.file)) != shard.sha256:
            raise ArtifactError(
                folder / shard.file,
                f"sha256 {digest[:12]}…",
                f"{shard.sha256[:12]}…",
                AGAIN,
            )


class StoreFeed:
    """Rows of a store: a place is a chunk. See Feed."""

    cls_first = False
    rows_per_place, group = CHUNK, GROUP

    def __init__(self, rows: StoredRows, *, seed: int, device: torch.device) -> None:
        self.d, self.device, self.seed = rows.manifest.plan.d, device, seed
        self._shards, self._layer = rows.manifest.shards["train"], rows.manifest.plan.layer
        self._files = [rows.folder / shard.file for shard in self._shards]
        self._ends = np.cumsum([shard.n_rows for shard in self._shards])
        self._n_rows = int(self._ends[-1]) if len(self._ends) else 0
        if not self._n_rows:
            raise ValueError(f"--data {rows.folder}: the store holds no rows; write it again.")
        self._reading: Generator[Tensor, None, None] | None = None

    def read(self, groups: Iterator[Group], state: Any = None) -> Iterator[Rows]:
        """The rows of the groups' chunks, read by a thread ahead of their use."""
        del state
        self._reading = prefetch(self._group, groups)
        return (Rows(rows.to(self.device)) for rows in self._reading)

    def n_images(self, n_places: int) -> int:
        """Images of the store that were seen, at most all."""
        n = sum(shard.n_images for shard in self._shards)
        return min(n, n_places * CHUNK * n // self._n_rows)

    def state(self, round: int) -> None:
        """Nothing: chunks are read by number."""

    def close(self) -> None:
        """End the thread."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _group(self, group: Group) -> Tensor:
        rows = torch.empty(len(group.places) * CHUNK, self.d)
        for number, place in enumerate(group.places):
            self._chunk(place, rows[number * CHUNK : (number + 1) * CHUNK])
        names = [str(self._files[0].parent)]
        require_finite(rows[None], names, backbone="the backbone", layer=self._layer)
        return rows

    def _chunk(self, place: int, out: Tensor) -> None:
        """The rows at a place of the walk; the last chunk goes on with the store's first rows."""
        n = -(-self._n_rows // CHUNK)
        start, done = int(order(n, self.seed, place // n)[place % n]) * CHUNK, 0
        while done < CHUNK:
            row = (start + done) % self._n_rows
            shard = int(np.searchsorted(self._ends, row, side="right"))
            first = row - int(self._ends[shard]) + self._shards[shard].n_rows
            n_here = min(CHUNK - done, self._shards[shard].n_rows - first)
            out[done : done + n_here] = read_rows(self._files[shard], first, first + n_here)
            done += n_here


def read_rows(path: Path, start: int, end: int) -> Float32[Tensor, "rows d_in"]:
    """Rows `start` to `end` of a shard as float32; ArtifactError if they are not what was written."""
    shard = _opened(path)
    names = ["rows", *(["scale"] if shard.channels else []), *([DIGESTS] if shard.digested else [])]
    try:
        part = {name: shard.file.get_slice(name)[start:end] for name in names}
    except SafetensorError as error:
        raise ArtifactError(path, f"{error}", "the tensors of a shard", AGAIN) from error
    if (actual := part["rows"].dtype) != (torch.int8 if shard.channels else torch.float16):
        raise ArtifactError(path, f"rows of {actual}", "float16, or int8 with channels", AGAIN)
    if shard.digested:
        compare(path, start, part, part.pop(DIGESTS))
    return unpack(part | shard.channels)


def unpack(part: dict[str, Tensor]) -> Float32[Tensor, "rows d_in"]:
    """Rows `(m, d)` float32 from some of a shard's rows (with their scales) and its channels."""
    rows = part["rows"].float()
    if "scale" in part:
        rows.mul_(part["scale"][:, None]).mul_(part["std"]).add_(part["mean"])
    return rows


class _Opened(NamedTuple):
    """A memory-mapped shard, its channels' means and deviations (int8), and whether rows can be compared."""

    file: Any
    channels: dict[str, Tensor]
    digested: bool


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(path: Path) -> _Opened:
    try:
        file = safe_open(path, "pt")
        known = set(file.keys())
        channels = {name: file.get_tensor(name) for name in ("mean", "std") if name in known}
        written = file.get_tensor(CHANNELS) if CHANNELS in known else None
    except SafetensorError as error:
        raise ArtifactError(path, f"{error}", "a whole safetensors file", AGAIN) from error
    if written is not None and not torch.equal(written, digest_of_channels(channels)):
        raise ArtifactError(path, "other channels", "those that were written", AGAIN)
    return _Opened(file, channels, DIGESTS in known)
