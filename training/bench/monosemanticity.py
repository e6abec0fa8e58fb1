"""How fast is the linear MonoSemanticity score, and how much memory does it take when latents are wide?

    python training/bench/monosemanticity.py

First 50,000 images × 1,000 latents against the definition, a sum over all pairs of images. That takes
minutes to hours, so it is measured on a part of the pairs and multiplied up; the output says so. Two
ways of summing are timed: pair by pair for every latent, as the definition reads, and with the pairs
summed by matrix products. Then 50,000 images × 49,152 simulated sparse latents, as one stream.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from scipy import sparse

from sae.metrics.monosemanticity import MonosemanticityMeter, monosemanticity
from sae.terminal import command
from training.bench.gauges import peak_gib, seconds

BLOCK = 128
"""Images on either side of a block of pairs."""
N_ACTIVE = 400
"""Latents active per image in the wide stream, about."""


def simulated(
    rng: np.random.Generator, n_images: int, n_latents: int, n_active: int
) -> sparse.csr_array:
    """Latents of which a few fire often and most fire rarely (the cube of a uniform number)."""
    latents = (rng.random((n_images, n_active)) ** 3 * n_latents).astype(np.int32)
    starts = np.arange(0, latents.size + 1, n_active)
    values = rng.exponential(size=latents.size).astype(np.float32)
    rows = sparse.csr_array((values, latents.ravel(), starts), shape=(n_images, n_latents))
    rows.sum_duplicates()
    return rows


def pair_by_pair(latents: torch.Tensor, units: torch.Tensor, n_blocks: int) -> None:
    """The definition on pairs of images, `BLOCK` by `BLOCK`: r_nm and s_nm written out, float32.

    Fifty latents at a time: what is held then stays in the processor's cache, which makes it six
    times as fast as all latents at once.
    """
    for number in range(n_blocks):
        start = 2 * BLOCK * number
        first, second = slice(start, start + BLOCK), slice(start + BLOCK, start + 2 * BLOCK)
        cosines = units[first] @ units[second].T
        for some in latents.T.split(50):
            together = some[:, first, None] * some[:, None, second]
            (together * cosines).sum((1, 2))
            together.sum((1, 2))


def by_products(latents: torch.Tensor, units: torch.Tensor, rows: int) -> None:
    """The pairs of `rows` images with all images, summed by matrix products, in float32."""
    cosines = units[:rows] @ units.T
    (latents[:rows] * (cosines @ latents)).sum(0)


def against_pairs(n_images: int, n_latents: int, d: int) -> dict[str, object]:
    """Seconds of the linear form, measured, and of both quadratic forms, extrapolated."""
    rng = np.random.default_rng(0)
    codes = simulated(rng, n_images, n_latents, max(1, n_latents // 50))
    embeddings = torch.from_numpy(rng.standard_normal((n_images, d), dtype=np.float32))
    dense = torch.from_numpy(codes.toarray())
    units = embeddings / embeddings.norm(dim=1, keepdim=True)
    signed = torch.from_numpy(rng.standard_normal((n_images, n_latents), dtype=np.float32))
    linear = min(seconds(lambda: monosemanticity(codes, embeddings)) for _ in range(3))
    linear_dense = seconds(lambda: monosemanticity(signed, embeddings))
    n_pairs, n_blocks, rows = n_images * (n_images - 1) / 2, 100, 500
    pair_by_pair(dense, units, 2)
    literal = seconds(lambda: pair_by_pair(dense, units, n_blocks))
    products = seconds(lambda: by_products(dense, units, rows))
    measured = n_blocks * BLOCK**2
    literal_all, products_all = literal * n_pairs / measured, products * n_images / rows / 2
    return {
        "n_images": n_images,
        "n_latents": n_latents,
        "d_embedding": d,
        "active_share": round(codes.nnz / n_images / n_latents, 4),
        "linear_sparse_latents_s": round(linear, 3),
        "linear_dense_signed_s": round(linear_dense, 3),
        "pair_by_pair_s_EXTRAPOLATED": round(literal_all),
        "pair_by_pair_measured_on": f"{measured:,} of {n_pairs:,.0f} pairs, {literal:.2f} s",
        "matrix_products_s_EXTRAPOLATED": round(products_all),
        "matrix_products_measured_on": f"{rows} of {n_images:,} rows, {products:.2f} s, halved",
        "times_faster_than_pair_by_pair": round(literal_all / linear),
        "times_faster_than_matrix_products": round(products_all / linear),
        "dense_times_faster_than_pair_by_pair": round(literal_all / linear_dense),
    }


def wide_stream(n_images: int, n_latents: int, d: int, batch: int) -> dict[str, object]:
    """Seconds and peak memory of one stream of sparse batches."""
    rng = np.random.default_rng(1)
    meter, spent, n_entries = MonosemanticityMeter(n_latents, d), 0.0, 0
    for start in range(0, n_images, batch):
        n = min(batch, n_images - start)
        codes = simulated(rng, n, n_latents, N_ACTIVE)
        embeddings = rng.standard_normal((n, d), dtype=np.float32)
        n_entries += codes.nnz
        spent += seconds(lambda c=codes, e=embeddings: meter.update(c, e))
    start = time.perf_counter()
    summary = meter.summary()
    spent += time.perf_counter() - start
    return {
        "n_images": n_images,
        "n_latents": n_latents,
        "d_embedding": d,
        "entries": n_entries,
        "seconds": round(spent, 1),
        "images_per_second": round(n_images / spent),
        "peak_memory_of_this_process_gib": round(peak_gib(), 2),
        "dead": summary.n_dead,
        "mean": round(summary.unfiltered.mean, 4),
    }


@command
def main(argv: list[str]) -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n-images", type=int, default=50_000)
    parser.add_argument("--n-latents", type=int, default=1000)
    parser.add_argument("--wide", type=int, default=49_152, help="latents of the stream")
    parser.add_argument("--d", type=int, default=768, help="width of the embeddings")
    parser.add_argument("--batch", type=int, default=2048, help="images per batch of the stream")
    args = parser.parse_args(argv)
    wide = wide_stream(args.n_images, args.wide, args.d, args.batch)
    pairs = against_pairs(args.n_images, args.n_latents, args.d)
    if not math.isfinite(wide["mean"]):
        raise ValueError("the wide stream gave no score")
    threads = torch.get_num_threads()
    print(json.dumps({"threads": threads, "against_pairs": pairs, "wide_stream": wide}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
