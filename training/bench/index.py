"""How much memory and time an index takes at full size, and how quick its search is: simulated latents.

    python training/bench/index.py             both of what follows, the first over 4,000 images
    python training/bench/index.py build       50,000 images × 49,152 latents, MonoSemanticity included
    python training/bench/index.py search      every kind of search over 49,152 latents

Knows the passes and the searcher; needs no model and no images. Latents are simulated: each image draws
256 latents from a skewed distribution, each of its 197 tokens fires 16 of these. Prints one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from tqdm import tqdm

from sae.concepts.build.assembly import N_NEIGHBOURS
from sae.concepts.build.gathering import Firings, Gathered, Settings, firings_of
from sae.concepts.build.naming import read_words
from sae.concepts.build.summary import (
    classes_of,
    cofiring_neighbours,
    exemplar_numbers,
    exemplars_of,
    statistics_of,
)
from sae.concepts.content import FORMAT, IndexContent
from sae.concepts.index import ConceptIndex
from sae.concepts.nearest import nearest_rows
from sae.terminal import command
from training.bench.gauges import peak_gib, seconds

TOKENS, GRID, K, POOL, CLASSES = 197, (14, 14), 16, 256, 1000


class Simulation:
    """Images by number, each the same in every run."""

    def __init__(self, n_images: int, d_sae: int, d_embedding: int) -> None:
        self.n_images, self.d_sae, self.d_embedding = n_images, d_sae, d_embedding
        weights = np.arange(1, d_sae + 1) ** -0.7
        self._edges = np.cumsum(weights / weights.sum())

    def batch(self, numbers: np.ndarray) -> tuple[Firings, np.ndarray]:
        """The rows of a batch and an embedding for each image."""
        rng = np.random.default_rng((1, int(numbers[0])))
        n = len(numbers)
        pool = np.searchsorted(self._edges, rng.random((n, POOL))).clip(max=self.d_sae - 1)
        chosen = rng.integers(0, POOL, (n, TOKENS, K))
        latents = np.take_along_axis(pool[:, None], chosen, axis=2)
        latents = np.sort(latents, axis=2)
        twice = np.zeros(latents.shape, bool)
        twice[..., 1:] = latents[..., 1:] == latents[..., :-1]  # a token fires a latent once
        values = rng.gamma(2.0, 0.5, latents.shape).astype(np.float32)
        values[twice] = 0
        fired = firings_of(
            values,
            latents,
            numbers,
            rng.integers(0, CLASSES, n),
            patches=range(1, TOKENS),
            d_sae=self.d_sae,
            tau=0.2,
        )
        return fired, rng.normal(size=(n, self.d_embedding))


def gather(simulation: Simulation, batch: int) -> tuple[Gathered, dict[str, float]]:
    """One pass; seconds spent on the pass and on making up the latents, and rows seen."""
    settings = Settings(simulation.d_sae, simulation.n_images, CLASSES)
    gathered = Gathered(settings, d_embedding=simulation.d_embedding or None)
    made = spent = rows = 0.0
    for start in tqdm(range(0, simulation.n_images, batch), desc=f"{batch} images each"):
        before = time.perf_counter()
        numbers = np.arange(start, min(start + batch, simulation.n_images))
        fired, embeddings = simulation.batch(numbers)
        between = time.perf_counter()
        gathered.add(fired, embeddings if simulation.d_embedding else None)
        made, spent = made + between - before, spent + time.perf_counter() - between
        rows += len(fired.latent)
    return gathered, {"pass_s": spent, "simulation_s": made, "image_latent_rows": rows}


def content_of(gathered: Gathered, decoder: torch.Tensor, data: str) -> IndexContent:
    """An index without pictures, with made-up embeddings and the shipped words as names."""
    d_sae, rng = gathered.settings.d_sae, np.random.default_rng(0)
    exemplars = exemplars_of(gathered)
    numbers = exemplar_numbers(exemplars)
    near, cosines = nearest_rows(decoder, N_NEIGHBOURS)
    strongest = gathered.tables["cofiring"].state()["latents"][0]
    strongest = strongest[: min(len(strongest), gathered.n_images)]
    both, scores = cofiring_neighbours(strongest, d_sae, N_NEIGHBOURS)
    words = read_words()
    embeddings = rng.normal(size=(d_sae, 512))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    n_images, n_tokens, n_patches, _ = gathered.counts["totals"].tolist()
    return IndexContent(
        header={
            "format": FORMAT, "data": data, "n_images": n_images, "n_unreadable": 0,
            "n_tokens": n_tokens, "n_patches": n_patches, "grid": list(GRID), "d_sae": d_sae,
            "sae_sha256": "", "tau": 0.2, "n_top": gathered.settings.n_top,
            "text_tower": {"id": "simulated", "revision": None}, "embedder": "simulated",
        },
        statistics=statistics_of(gathered, np.ones((d_sae, 1), np.float32)),
        exemplars=exemplars,
        classes=classes_of(gathered),
        neighbours={
            "decoder_ids": near, "decoder_cosines": cosines.astype(np.float16),
            "cofiring_ids": both, "cofiring_scores": scores.astype(np.float16),
        },
        embeddings={"latents": embeddings.astype(np.float16)},
        images={
            "image_ids": numbers.astype(np.int32), "labels": np.full(len(numbers), -1, np.int32),
            "offsets": np.zeros(len(numbers) + 1, np.int64), "webp": np.zeros(0, np.uint8),
        },
        names={
            "names": [words[number % len(words)] for number in range(d_sae)],
            "sources": ["text tower"] * d_sae, "scores": [0.1] * d_sae,
            "confidences": rng.random(d_sae).tolist(),
        },
        captions=[""] * len(numbers),
        class_names=[f"class {number}" for number in range(CLASSES)],
    )  # fmt: skip


def build(options: argparse.Namespace) -> dict[str, object]:
    """Memory and time of a full-size pass, and of what follows it."""
    simulation = Simulation(options.n_images, options.d_sae, options.d_embedding)
    gathered, figures = gather(simulation, options.batch)
    after_pass = round(peak_gib(), 2)
    before = time.perf_counter()
    decoder = torch.randn(options.d_sae, 768, generator=torch.Generator().manual_seed(0))
    index = ConceptIndex(content_of(gathered, decoder, "simulated"))
    return {
        "n_images": options.n_images,
        "d_sae": options.d_sae,
        "d_embedding": options.d_embedding,
        **{name: round(value, 1) for name, value in figures.items()},
        "images_per_s_in_pass": round(options.n_images / figures["pass_s"], 1),
        "summary_s": round(time.perf_counter() - before, 1),
        "peak_gib_after_pass": after_pass,
        "peak_gib": round(peak_gib(), 2),
        "dead": int(index.dead.sum()),
        "dense_array_would_be_gib": round(options.n_images * options.d_sae * 4 / 2**30, 1),
    }


class FakeTower:
    """A text tower that costs nothing: what is timed is the index."""

    id, patch_grid = "simulated", GRID

    def text_features(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors that follow from the text."""
        rows = [np.random.default_rng(list(text.encode())).normal(size=512) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(np.array(rows)), dim=1)


def search(options: argparse.Namespace) -> dict[str, object]:
    """Median and slowest of 30 calls of each search, in milliseconds, after a first one."""
    simulation = Simulation(min(options.n_images, 4000), options.d_sae, 0)
    gathered, _ = gather(simulation, options.batch)
    decoder = torch.randn(options.d_sae, 64, generator=torch.Generator().manual_seed(0))
    index = ConceptIndex(content_of(gathered, decoder, "simulated"))
    finder, tower = index.searcher, FakeTower()
    rng = np.random.default_rng(0)
    code = rng.gamma(2.0, 0.5, (196, 32)), rng.integers(0, options.d_sae, (196, 32))
    region, wide = list(range(20, 36)), {"frequency": (0.0, 0.5)}
    kinds: dict[str, Callable[[], object]] = {
        "name_first_letter": lambda: finder.by_name("s", 50),
        "name_word": lambda: finder.by_name("striped", 50),
        "name_spelt_alike": lambda: finder.by_name("strippled", 50),
        "meaning_without_tower": lambda: finder.by_meaning("striped", 50, backbone=tower),
        "text": lambda: finder.search("striped fur", 50, backbone=tower),
        "firing_image": lambda: finder.firing(*code, 50),
        "firing_region": lambda: finder.firing(*code, 50, patches=region),
        "near_decoder": lambda: finder.near(7, 12),
        "near_cofiring": lambda: finder.near(7, 12, by="cofiring"),
        "near_meaning": lambda: finder.near(7, 50, by="meaning"),
        "statistic": lambda: finder.by_statistic("entropy", 50, where=wide),
        "concept": lambda: index.concept(7),
    }
    prepare_ms = 1000 * seconds(finder.prepare)
    figures: dict[str, object] = {"d_sae": options.d_sae, "prepare_once_ms": round(prepare_ms, 2)}
    for name, call in kinds.items():
        first, *spent = (seconds(call) for _ in range(31))
        figures[f"{name}_ms"] = {
            "first": round(1000 * first, 2),
            "median": round(1000 * statistics.median(spent), 2),
            "slowest": round(1000 * max(spent), 2),
        }
    return figures


@command
def main(argv: list[str]) -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", nargs="?", choices=["build", "search", "both"], default="both")
    parser.add_argument("--n-images", type=int, help="default: 50,000, and 4,000 for both")
    parser.add_argument("--d-sae", type=int, default=49_152)
    parser.add_argument("--d-embedding", type=int, default=768, help="0: no MonoSemanticity")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args(argv)
    options.n_images = options.n_images or (4000 if options.what == "both" else 50_000)
    parts = {"build": build, "search": search}
    wanted = parts if options.what == "both" else [options.what]
    print(json.dumps({what: parts[what](options) for what in wanted}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
