"""Builds a ConceptIndex: statistics in one pass over the images, then a second look at exemplars.

Knows activations' sparse codes and how to gather them by image; knows nothing of files or names.
Memory: one row per (image, firing latent) pair, 16 bytes each.
"""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.concepts.files import FORMAT, IndexContent
from sae.concepts.index import LEVELS, N_BINS, ConceptIndex, histogram_edges
from sae.images import ImageError
from sae.model import SparseAutoencoder

N_EXEMPLARS = 9
"""Exemplars kept at each level."""
N_PATCHES = 16
"""Firing patches kept for an exemplar."""
N_ENTROPY = 10
"""Top images that the label entropy is taken over (PatchSAE's reference images)."""
THUMBNAIL = 96
"""Shorter side of a thumbnail at most, pixels; what the model did not see is cut off."""


class Item(NamedTuple):
    """An image of the data set with its class label and its caption, "" where unknown."""

    image: Image.Image
    label: str = ""
    caption: str = ""


class Data(Protocol):
    """What an index is built over: a name, a length, and images by number."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Item: ...


class _Pairs(NamedTuple):
    """One row per (image, latent) with any activation above 0."""

    image: np.ndarray
    latent: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray


def build_index(
    data: Data,
    backbone: Backbone,
    sae: SparseAutoencoder,
    *,
    sae_sha256: str = "",
    batch: int = 32,
    progress: Callable[[Sequence[range]], Sequence[range]] = lambda batches: batches,
) -> ConceptIndex:
    """The index of `sae` over `data`, without names. `progress` wraps the walk over batches.

    Images that cannot be opened are left out and counted out of `n_images`.
    """
    batches = [range(i, min(i + batch, len(data))) for i in range(0, len(data), batch)]
    gathered, labels, n_tokens, n_images = [], {}, 0, 0
    token_counts = np.zeros(sae.cfg.d_sae, dtype=np.int64)
    for numbers in progress(batches):
        kept, items = _open(data, numbers)
        if not items:
            continue
        values, indices = _codes(items, backbone, sae)
        labels.update({n: item.label for n, item in zip(kept, items, strict=True)})
        n_images, n_tokens = n_images + len(items), n_tokens + values.shape[0] * values.shape[1]
        token_counts += np.bincount(indices[values > 0], minlength=sae.cfg.d_sae)
        gathered.append(_gather(np.asarray(kept), values, indices, sae.cfg.d_sae))
    if not gathered:
        raise ValueError(f"{data.name}: no image could be opened; the index needs at least one.")
    pairs = _Pairs(*(np.concatenate(parts) for parts in zip(*gathered, strict=True)))
    statistics, exemplars = _summarise(pairs, labels, sae.cfg.d_sae, n_images)
    statistics["token_frequency"] = (token_counts / n_tokens).astype(np.float32)
    images, captions = _look_again(exemplars, data, backbone, sae, batch)
    header = {
        "format": FORMAT,
        "data": data.name,
        "n_images": n_images,
        "n_tokens": n_tokens,
        "grid": list(backbone.patch_grid),
        "d_sae": sae.cfg.d_sae,
        "sae_sha256": sae_sha256,
    }
    nameless = {
        "names": [""] * sae.cfg.d_sae,
        "sources": [""] * sae.cfg.d_sae,
        "scores": [0.0] * sae.cfg.d_sae,
    }
    return ConceptIndex(IndexContent(header, statistics, exemplars, nameless, images, captions))


def _open(data: Data, numbers: range) -> tuple[list[int], list[Item]]:
    kept, items = [], []
    for number in numbers:
        try:
            items.append(data[number])
        except ImageError:
            continue
        kept.append(number)
    return kept, items


def _codes(
    items: list[Item], backbone: Backbone, sae: SparseAutoencoder
) -> tuple[np.ndarray, np.ndarray]:
    """Sparse codes of the tokens the SAE was made for: values and latents (images, tokens, k)."""
    with torch.inference_mode():
        x = tokens_of(
            backbone.activations([item.image for item in items], sae.cfg.backbone.layer),
            backbone,
            sae,
        )
        code = sae.encode_sparse(x.to(sae.W_enc))
    return code.values.float().cpu().numpy(), code.indices.cpu().numpy()


def tokens_of(x: Tensor, backbone: Backbone, sae: SparseAutoencoder) -> Tensor:
    """The tokens of activations (B, tokens, d) that the SAE's token policy names."""
    policy = sae.cfg.backbone.tokens
    if policy == "cls":
        return x[:, :1]
    if policy == "patches":
        rows, columns = backbone.patch_grid
        return x[:, backbone.n_prefix : backbone.n_prefix + rows * columns]
    return x


def _gather(numbers: np.ndarray, values: np.ndarray, indices: np.ndarray, d_sae: int) -> _Pairs:
    """Per-image maximum and mean over tokens of every latent that fires."""
    image, token, column = np.nonzero(values > 0)
    value = values[image, token, column]
    key = image * d_sae + indices[image, token, column]
    order = np.argsort(key, kind="stable")
    key, value = key[order], value[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, int)
    if not len(starts):
        return _Pairs(*(np.zeros(0, t) for t in (np.int32, np.int32, np.float32, np.float32)))
    key = key[starts]
    return _Pairs(
        numbers[key // d_sae].astype(np.int32),
        (key % d_sae).astype(np.int32),
        np.maximum.reduceat(value, starts).astype(np.float32),
        (np.add.reduceat(value, starts) / values.shape[1]).astype(np.float32),
    )


def _summarise(
    pairs: _Pairs, labels: dict[int, str], d_sae: int, n_images: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Statistics and exemplars of every latent (PatchSAE's definitions; see Concept)."""
    order = np.lexsort((pairs.image, -pairs.maximum, pairs.latent))
    image, latent, maximum, mean = (part[order] for part in pairs)
    bounds = np.searchsorted(latent, np.arange(d_sae + 1))
    counts = np.diff(bounds)
    bins = np.clip(np.searchsorted(histogram_edges(), maximum, side="right") - 1, 0, N_BINS - 1)
    flat = np.bincount(latent.astype(np.int64) * N_BINS + bins, minlength=d_sae * N_BINS)
    peaks = np.zeros(d_sae, np.float32)
    np.maximum.at(peaks, latent, maximum)
    sums = np.bincount(latent, weights=mean, minlength=d_sae)
    exemplars = {
        "image_ids": np.full((d_sae, len(LEVELS), N_EXEMPLARS), -1, np.int32),
        "activations": np.zeros((d_sae, len(LEVELS), N_EXEMPLARS), np.float32),
    }
    entropy = np.full(d_sae, -1.0, np.float32)
    for number in np.flatnonzero(counts):
        start, count = bounds[number], counts[number]
        for level, places in enumerate(_levels(count)):
            exemplars["image_ids"][number, level, : len(places)] = image[start + places]
            exemplars["activations"][number, level, : len(places)] = maximum[start + places]
        if count >= N_ENTROPY:
            entropy[number] = _entropy(
                image[start : start + count], mean[start : start + count], labels
            )
    return {
        "frequency": (counts / n_images).astype(np.float32),
        "mean_activation": (sums / np.maximum(counts, 1)).astype(np.float32),
        "max_activation": peaks,
        "entropy": entropy,
        "histogram": flat.reshape(d_sae, N_BINS).astype(np.int32),
    }, exemplars


def _levels(count: int) -> list[np.ndarray]:
    """Ranks of the top, middle and low exemplars among `count` images in falling order; a rank is
    never shown twice."""
    top = np.arange(min(count, N_EXEMPLARS))
    rest = np.arange(len(top), count)
    low = rest[-N_EXEMPLARS:] if len(rest) >= 2 * N_EXEMPLARS else rest[len(rest) // 2 :]
    rest = rest[: len(rest) - len(low)]
    start = max(0, int(np.searchsorted(rest, count // 2)) - N_EXEMPLARS // 2)
    return [top, rest[min(start, max(0, len(rest) - N_EXEMPLARS)) :][:N_EXEMPLARS], low]


def _entropy(images: np.ndarray, means: np.ndarray, labels: dict[int, str]) -> float:
    """Entropy (nats) of the labels of the N_ENTROPY images of largest mean activation, each weighted
    by it (PatchSAE, section 3); -1 where an image has no label."""
    best = np.argsort(-means, kind="stable")[:N_ENTROPY]
    shown = [labels[int(number)] for number in images[best]]
    if not all(shown):
        return -1.0
    _, group = np.unique(shown, return_inverse=True)
    share = np.bincount(group, weights=means[best])
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum())


def _look_again(
    exemplars: dict[str, np.ndarray],
    data: Data,
    backbone: Backbone,
    sae: SparseAutoencoder,
    batch: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Fill in the exemplars' firing patches; the thumbnails and captions of all exemplar images."""
    ids = exemplars["image_ids"]
    shape = (*ids.shape, N_PATCHES)
    patches, strengths = np.zeros(shape, np.uint16), np.zeros(shape, np.float16)
    used = np.unique(ids[ids >= 0])
    order = np.argsort(ids, axis=None, kind="stable")
    flat = ids.reshape(-1)[order]
    webp, captions = [], []
    for start in range(0, len(used), batch):
        numbers = used[start : start + batch]
        items = [data[int(number)] for number in numbers]
        values, indices = _codes(items, backbone, sae)
        skip = backbone.n_prefix if sae.cfg.backbone.tokens == "all" else 0
        rows, columns = backbone.patch_grid
        for item, number, value, index in zip(items, numbers, values, indices, strict=True):
            slots = order[
                np.searchsorted(flat, number) : np.searchsorted(flat, number, side="right")
            ]
            if sae.cfg.backbone.tokens != "cls":
                part = slice(skip, skip + rows * columns)
                _fill(patches, strengths, slots, value[part], index[part], ids.shape)
            webp.append(_thumbnail(item.image, backbone))
            captions.append(item.caption or item.label)
    exemplars["patches"], exemplars["values"] = patches, strengths
    sizes = [len(one) for one in webp]
    return {
        "image_ids": used.astype(np.int32),
        "offsets": np.r_[0, np.cumsum(sizes)].astype(np.int64),
        "webp": np.frombuffer(b"".join(webp), np.uint8),
    }, captions


def _fill(
    patches: np.ndarray,
    strengths: np.ndarray,
    slots: np.ndarray,
    value: np.ndarray,
    index: np.ndarray,
    shape: tuple[int, ...],
) -> None:
    """Write the strongest firing patches of one image for each (latent, level, column) slot."""
    place, column = np.nonzero(value > 0)
    fired, strength = index[place, column], value[place, column]
    by_latent = np.lexsort((-strength, fired))
    place, fired, strength = place[by_latent], fired[by_latent], strength[by_latent]
    for slot in slots:
        at = np.unravel_index(slot, shape)
        low, high = np.searchsorted(fired, at[0]), np.searchsorted(fired, at[0], side="right")
        n = min(high - low, N_PATCHES)
        patches[at][:n] = place[low : low + n]
        strengths[at][:n] = strength[low : low + n]


def _thumbnail(image: Image.Image, backbone: Backbone) -> bytes:
    """What the model saw of `image`, at most THUMBNAIL pixels high and wide, as WebP."""
    box = backbone.image_box(image.size)
    side = min(THUMBNAIL, max(1, round(box[2] - box[0])))
    height = max(1, round(side * (box[3] - box[1]) / (box[2] - box[0])))
    seen = image.convert("RGB").resize((side, height), Image.Resampling.LANCZOS, box=box)
    out = io.BytesIO()
    seen.save(out, "WEBP", quality=72, method=4)
    return out.getvalue()
