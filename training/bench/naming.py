"""Are the names of concepts right? Scored against the masks of the emoji world.

    python training/bench/naming.py --sae bundled

What a latent stands for is read from held-out scenes: the share of its activation (over patches) that
falls on each object kind, group, realm, and on each bare background. Its true name is the narrowest with a
share of at least 0.6; latents without one have no true name and are left out, and counted.
The index's own names come from other scenes. Prints one JSON object.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import sparse
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare clone
from sae.backbones import Backbone
from sae.backgrounds import BACKGROUNDS
from sae.concepts.build import patch_tokens, sparse_codes
from sae.concepts.index import ConceptIndex
from sae.concepts.naming import MINIMUM, best_words
from sae.model import SparseAutoencoder
from sae.scenes import Rendered, Scene, compose, kinds, patch_labels
from training.labelled import world_words
from training.world.generator import HELD_OUT_SEED, scenes

SHARE = 0.6
COVERED = 0.1
"""A patch shows an object that covers this share of it, and bare background below it."""
SORTS = ("kind", "background", "group", "realm")
"""Narrowest first."""


def factors() -> tuple[list[str], np.ndarray]:
    """Names of all factors, and the place of each one's sort in SORTS."""
    named = [(kind.name, 0) for kind in kinds()]
    named += [(f"{ground} background", 1) for ground in BACKGROUNDS]
    named += [(group, 2) for group in sorted({kind.group for kind in kinds()})]
    named += [(realm, 3) for realm in sorted({kind.realm for kind in kinds()})]
    return [name for name, _ in named], np.array([sort for _, sort in named])


def patch_factors(scene: Scene, drawn: Rendered, names: list[str], grid: int) -> np.ndarray:
    """Which factors each patch shows: bool (patches, factors)."""
    by_name = {kind.name: kind for kind in kinds()}
    shown = np.zeros((grid * grid, len(names)), bool)
    cover = patch_labels(drawn.masks, drawn.image.shape[0] // grid).reshape(-1, grid * grid)
    shown[cover.sum(0) < COVERED, names.index(f"{scene.background} background")] = True
    for item, part in zip(scene.objects, cover, strict=True):
        kind = by_name[item.kind]
        for name in (kind.name, kind.group, kind.realm):
            shown[part >= COVERED, names.index(name)] = True
    return shown


def shares(backbone: Backbone, sae: SparseAutoencoder, n: int, seed: int) -> np.ndarray:
    """Share of each latent's activation on each factor, float64 (d_sae, factors)."""
    names, _ = factors()
    grid, part = backbone.patch_grid[0], patch_tokens(backbone, sae.cfg.backbone.tokens)
    mass = np.zeros((sae.cfg.d_sae, len(names)))
    total = np.zeros(sae.cfg.d_sae)
    stream = scenes(seed)
    for _ in tqdm(range(0, n, 32), desc="held-out scenes (32 each)"):
        batch = list(islice(stream, 32))
        drawn = [compose(scene) for scene in batch]
        values, indices = sparse_codes([Image.fromarray(d.image) for d in drawn], backbone, sae)
        values, indices = values[:, part], indices[:, part]
        shown = [patch_factors(s, d, names, grid) for s, d in zip(batch, drawn, strict=True)]
        flat = values.reshape(-1, values.shape[-1])
        rows = np.repeat(np.arange(len(flat)), flat.shape[1])
        code = sparse.csr_array(
            (flat.ravel(), (rows, indices.ravel())), shape=(len(flat), sae.cfg.d_sae)
        )
        mass += code.T @ np.concatenate(shown).astype(np.float64)
        total += np.asarray(code.sum(0)).ravel()
    return mass / np.maximum(total, 1e-12)[:, None]


def true_names(found: np.ndarray) -> np.ndarray:
    """The narrowest factor with a share of at least SHARE, -1 for none: int64 (d_sae)."""
    _, sorts = factors()
    truth = np.full(len(found), -1)
    for sort in range(len(SORTS)):
        columns = np.flatnonzero(sorts == sort)
        best = columns[found[:, columns].argmax(1)]
        enough = found[np.arange(len(found)), best] >= SHARE
        truth = np.where((truth < 0) & enough, best, truth)
    return truth


def score(index: ConceptIndex, backbone: Backbone, found: np.ndarray, minimum: float) -> dict:
    """Top-1 and top-5 accuracy of names, by sort of factor and by confidence."""
    names, sorts = factors()
    truth, best = true_names(found), best_words(index, backbone, world_words(), k=5)
    known = np.flatnonzero((truth >= 0) & ~index.dead)
    known = known[[bool(best.words[latent]) for latent in known]]
    first = np.array([best.words[n][0] == names[truth[n]] for n in known])
    five = np.array([names[truth[n]] in best.words[n] for n in known])
    # is what the name says lit, though a narrower or wider word would be the best one?
    lit = np.array([found[n, names.index(best.words[n][0])] >= SHARE for n in known])
    sure, given = best.confidences[known, 0], best.scores[known, 0] >= minimum
    sort = sorts[truth[known]]
    figures: dict[str, object] = {
        "latents": len(index),
        "with_a_true_name": len(known),
        "top1": _mean(first),
        "top5": _mean(five),
        "name_is_lit": _mean(lit),
        "named_at_minimum": int(given.sum()),
        "top1_of_named": _mean(first[given]),
        "name_is_lit_of_named": _mean(lit[given]),
    }
    for number, name in enumerate(SORTS):
        mine = sort == number
        figures[name] = {
            "n": int(mine.sum()),
            "top1": _mean(first[mine]),
            "top5": _mean(five[mine]),
        }
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.01)):
        mine = (sure >= low) & (sure < high)
        figures[f"confidence_{low}_to_{min(high, 1)}"] = {
            "n": int(mine.sum()), "top1": _mean(first[mine]), "name_is_lit": _mean(lit[mine])
        }  # fmt: skip
    return figures


def _mean(hits: np.ndarray) -> float | None:
    return round(float(hits.mean()), 3) if len(hits) else None


def main() -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sae", default="bundled")
    parser.add_argument("--index", help="folder of the index (default: the SAE's)")
    parser.add_argument("--backbone", help="the SAE's own unless given")
    parser.add_argument("--n-scenes", type=int, default=1500)
    parser.add_argument("--minimum", type=float, default=MINIMUM)
    options = parser.parse_args()
    sae = SparseAutoencoder.from_pretrained(options.sae)
    backbone = Backbone.from_pretrained(options.backbone or sae.cfg.backbone.id)
    index = ConceptIndex.from_pretrained(options.index or options.sae)
    found = shares(backbone, sae, options.n_scenes, HELD_OUT_SEED + 900)
    print(json.dumps(score(index, backbone, found, options.minimum), indent=1))


if __name__ == "__main__":
    main()
