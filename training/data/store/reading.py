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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import safe_open
from torch import Tensor

from sae.backbones.tokens import require_finite
from sae.errors import ArtifactError
from sae.prefetch import prefetch
from sae.storage import sha256
from training.data.sources.image_source import order
from training.data.store.manifest import Manifest, Shard, read_manifest
from training.data.stream import Group, Rows

CHUNK = 64
"""Rows that are always read together: 96 KiB at width 768 in float16."""
GROUP = 64
"""Chunks that are read ahead together."""
VERIFIED_BYTES = 1 << 30
"""Stores up to this size are hashed whenever they are opened."""
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


def open_store(data: str | Path) -> Store:
    """A finished store, its files checked: sizes always, hashes too up to 1 GiB.

    Raises ArtifactError if it is unfinished, damaged or of a newer format.
    """
    folder = Path(data)
    manifest = read_manifest(folder)
    shards = [shard for part in manifest.shards.values() for shard in part]
    if sum(shard.n_bytes for shard in shards) <= VERIFIED_BYTES:
        verify(folder, shards)
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
                "Delete it and its .json and manifest.json, and run patchlens extract again.",
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
    """Rows `start` to `end` of a shard as float32."""
    shard, channels = _opened(path)
    part = {"rows": shard.get_slice("rows")[start:end]}
    if channels:
        part |= {"scale": shard.get_slice("scale")[start:end], **channels}
    return unpack(part)


def unpack(part: dict[str, Tensor]) -> Float32[Tensor, "rows d_in"]:
    """Rows `(m, d)` float32 from some of a shard's rows (with their scales) and its channels."""
    rows = part["rows"].float()
    if "scale" in part:
        rows.mul_(part["scale"][:, None]).mul_(part["std"]).add_(part["mean"])
    return rows


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """A memory-mapped shard, and its channels' means and deviations (int8)."""
    shard = safe_open(path, "pt")
    names = [name for name in ("mean", "std") if name in shard.keys()]  # noqa: SIM118
    return shard, {name: shard.get_tensor(name) for name in names}
