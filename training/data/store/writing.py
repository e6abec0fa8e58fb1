"""Writes the shards of a store: whole, hashed, in any order, by any number of processes.

Rows are float16 or int8. int8: every channel is centred and divided by its standard deviation over
the shard, then every row has its own scale, its largest magnitude to 127. So neither a channel that
is always large nor a token that is large everywhere makes the others coarse. The loss is measured
when a shard is written (`quantisation_fvu`).

Knows plans, groups of images and files. Knows nothing of the command line.
"""

import dataclasses
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float32
from torch import Tensor

from sae.errors import ArtifactError, ImageError
from sae.images import too_many_unreadable
from sae.storage import replacing, sealed, write_json
from training.data.feeds import ImageFeed
from training.data.store.digests import CHANNELS, DIGESTS, digest_of_channels, digests_of
from training.data.store.manifest import Plan, Shard, check_size, read_shard
from training.data.store.reading import unpack
from training.data.stream import Group

ROWS_BYTES = 256 << 20
"""Most bytes of a shard's rows as float32 in memory."""
MIN_IMAGES, MAX_IMAGES = 32, 1024
N_SHARDS = 32
"""A small store has about as many shards: so much can be shared by processes, and lost by a kill."""


def images_per_shard(n_images: int, tokens_per_image: int, d: int) -> int:
    """Images of a shard: 256 MiB of float32 rows, at most 1,024 images, less in small stores."""
    most = min(MAX_IMAGES, ROWS_BYTES // (4 * d * tokens_per_image))
    return max(1, min(most, max(MIN_IMAGES, -(-n_images // N_SHARDS))))


def missing(folder: Path, plan: Plan, split: str, rank: int, world: int) -> list[int]:
    """Numbers of the shards that process `rank` still has to write; damaged ones count."""
    return [
        number
        for number in range(rank, len(plan.shard_sizes(split)), world)
        if not _is_whole(folder, f"{split}_{number:05d}")
    ]


def write_shards(
    folder: Path,
    plan: Plan,
    split: str,
    numbers: list[int],
    feed: ImageFeed,
    *,
    max_unreadable: float,
    progress: Callable[[int], object],
) -> list[float]:
    """Write these shards of a split from `feed`; returns the FVU that packing cost in each.

    `progress` is told of every group how many images it had. A full disk is an OSError that says so;
    shards that are whole stay. Too many unreadable images are an ImageError.
    """
    sizes = plan.shard_sizes(split)
    starts = {k: k * plan.images_per_shard for k in numbers}
    spans = {k: range(start, start + sizes[k]) for k, start in starts.items()}
    rows = feed.read(_groups(spans, feed.group))
    losses, n_read, n_bad = [], 0, 0
    try:
        for number, span in spans.items():
            parts, unreadable = [], 0
            for start in range(0, len(span), feed.group):
                group, size = next(rows), len(span[start : start + feed.group])
                parts.append(group.rows.cpu())
                unreadable += group.n_unreadable
                n_read, n_bad = n_read + size, n_bad + group.n_unreadable
                _check_unreadable(n_bad, n_read, max_unreadable, group.reason)
                progress(size)
            whole = torch.cat(parts)
            if split == "train":
                whole = whole[_shuffle(len(whole), plan.seed, number)]
            counts = (len(span) - unreadable, len(whole), unreadable)
            losses.append(_write(folder, f"{split}_{number:05d}", whole, plan.dtype, counts))
    finally:
        feed.close()
    return losses


def _check_unreadable(n_bad: int, n_read: int, share: float, reason: str) -> None:
    if too_many_unreadable(n_bad, n_read, share):
        raise ImageError(
            f"{n_bad} of {n_read} images could not be read (the last: {reason}) Let more pass with "
            "--max-unreadable and run the command again, or remove them from --data and write to "
            "another --out."
        )


def _groups(spans: dict[int, range], group: int) -> Iterator[Group]:
    for number, span in spans.items():
        for start in range(0, len(span), group):
            yield Group(number, start, list(span[start : start + group]))


def _shuffle(n: int, seed: int, number: int) -> Tensor:
    """The order of a shard's rows: neighbours on disk come from different images."""
    generator = torch.Generator().manual_seed((seed << 20) + number)
    return torch.randperm(n, generator=generator)


def _write(
    folder: Path, name: str, rows: Tensor, dtype: str, counts: tuple[int, int, int]
) -> float:
    """Write a shard, then its description; returns the FVU of packing."""
    packed = pack(rows, dtype) if len(rows) else {"rows": rows.half()}
    packed |= {DIGESTS: digests_of(packed), CHANNELS: digest_of_channels(packed)}
    loss = quantisation_fvu(rows, packed) if len(rows) else 0.0
    content = safetensors.torch.save(packed)
    path = folder / f"{name}.safetensors"
    digest = hashlib.sha256(content).hexdigest()
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shard = Shard(path.name, digest, len(content), *counts)
        write_json(folder / f"{name}.json", sealed(dataclasses.asdict(shard)))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of {folder} is full: {name} needs {len(content) / 2**20:,.0f} MiB. The "
            "shards before it are whole; free space and run the same command again."
        ) from error
    return loss


def _is_whole(folder: Path, name: str) -> bool:
    try:
        check_size(folder, read_shard(folder / f"{name}.json"))
    except (OSError, ArtifactError):
        return False
    return True


def pack(rows: Float32[Tensor, "rows d_in"], dtype: str) -> dict[str, Tensor]:
    """The tensors that stand for `rows (n, d)` float32. ValueError if they cannot."""
    if not bool(rows.isfinite().all()):
        raise ValueError("the backbone gave activations that are NaN or infinite; check its dtype.")
    if dtype == "float16":
        if (largest := float(rows.abs().max())) > torch.finfo(torch.float16).max:
            raise ValueError(
                f"an activation of {largest:.3g} does not fit into float16; use --dtype int8."
            )
        return {"rows": rows.half()}
    mean, std = rows.mean(0), rows.std(0, unbiased=False).clamp_min(1e-12)
    standard = (rows - mean) / std
    scale = standard.abs().amax(1).clamp_min(1e-12) / 127
    return {
        "rows": (standard / scale[:, None]).round_().to(torch.int8),
        "scale": scale,
        "mean": mean,
        "std": std,
    }


def quantisation_fvu(rows: Float32[Tensor, "rows d_in"], packed: dict[str, Tensor]) -> float:
    """Share of the variance of `rows` that packing loses."""
    error = (rows - unpack(packed)).square().sum()
    return float(error / (rows - rows.mean(0)).square().sum().clamp_min(1e-30))
