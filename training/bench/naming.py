"""Are the names of concepts right? Scored against the masks of the emoji world.

    python training/bench/naming.py --sae bundled

What a latent stands for is read from held-out scenes: the share of its activation (over patches) that
falls on each object kind, group, realm, and on each bare background, once over all patches and once where it
is above half of its maximum. Its true name is the narrowest with a share of at least 0.6; latents without
one have no true name, and are counted. The index's own names come from other scenes. Two vocabularies.
Prints one JSON object.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
from PIL import Image
from scipy import sparse
from tqdm import tqdm

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.concepts.build.naming import MINIMUM, Naming, best_words
from sae.concepts.index import ConceptIndex
from sae.concepts.regions import sparse_codes
from sae.model import SparseAutoencoder
from sae.terminal import command
from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import Rendered, Scene, compose, kinds, patch_labels
from sae.world.tasks import HELD_OUT_SEED
from training.world.generator import scenes
from training.world.words import phrases_of_nouns

SHARE = 0.6
FLOORS = (0.0, 0.5)
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


def shares(
    backbone: Backbone, sae: SparseAutoencoder, n: int, seed: int, peaks: np.ndarray
) -> dict[float, np.ndarray]:
    """For every floor of FLOORS: share of each latent's activation on each factor, float64 (d_sae,
    factors), over patches where it exceeds that share of its maximum `peaks`; NaN if it never does."""
    names, _ = factors()
    grid, part = backbone.patch_grid[0], TokenView(backbone, sae.cfg.backbone.tokens).patches
    mass = {floor: np.zeros((sae.cfg.d_sae, len(names))) for floor in FLOORS}
    total = {floor: np.zeros(sae.cfg.d_sae) for floor in FLOORS}
    stream = scenes(seed)
    for _ in tqdm(range(0, n, 32), desc="held-out scenes (32 each)"):
        batch = list(islice(stream, 32))
        drawn = [compose(scene) for scene in batch]
        code = sparse_codes([Image.fromarray(d.image) for d in drawn], backbone, sae)
        values, latents = (array[:, part].reshape(-1, array.shape[-1]) for array in code)
        shown = [patch_factors(s, d, names, grid) for s, d in zip(batch, drawn, strict=True)]
        truth = np.concatenate(shown).astype(np.float64)
        for floor in FLOORS:
            patch, place = np.nonzero(values > floor * peaks[latents])
            entries = values[patch, place], (patch, latents[patch, place])
            strong = sparse.csr_array(entries, shape=(len(values), sae.cfg.d_sae))
            mass[floor] += strong.T @ truth
            total[floor] += np.asarray(strong.sum(0)).ravel()
    with np.errstate(invalid="ignore"):
        return {floor: mass[floor] / total[floor][:, None] for floor in FLOORS}


def true_names(factor_shares: np.ndarray) -> np.ndarray:
    """The narrowest factor with a share of at least SHARE, -1 for none: int64 (d_sae)."""
    _, sorts = factors()
    truth = np.full(len(factor_shares), -1)
    for sort in range(len(SORTS)):
        columns = np.flatnonzero(sorts == sort)
        best = columns[np.nan_to_num(factor_shares[:, columns]).argmax(1)]
        enough = factor_shares[np.arange(len(factor_shares)), best] >= SHARE
        truth = np.where((truth < 0) & enough, best, truth)
    return truth


def vocabularies() -> dict[str, dict[str, list[str]]]:
    """Kinds alone, and all words of the world. The bundled tokenizer knows hardly any others."""
    world = phrases_of_nouns()
    return {"kinds": {kind.name: world[kind.name] for kind in kinds()}, "world": world}


def score(best: Naming, index: ConceptIndex, factor_shares: np.ndarray, minimum: float) -> dict:
    """Top-1 and top-5 accuracy of names, by sort of factor and by confidence.

    "lit": what the name says takes SHARE of the activation, though a narrower or wider word may be
    the true name; over all latents, those without a true name included.
    """
    names, sorts = factors()
    place = {name: number for number, name in enumerate(names)}
    truth = true_names(factor_shares)
    alive = (
        np.array([bool(row) for row in best.words])
        & ~index.dead
        & np.isfinite(factor_shares).all(1)
    )
    alive = np.flatnonzero(alive)
    first = np.array([best.words[n][0] == names[truth[n]] for n in alive])
    five = np.array([names[truth[n]] in best.words[n] for n in alive])
    said = [place.get(best.words[n][0], -1) for n in alive]
    on_name = np.array(
        [factor_shares[n, p] if p >= 0 else 0.0 for n, p in zip(alive, said, strict=True)]
    )
    known, lit, sure = truth[alive] >= 0, on_name >= SHARE, best.confidences[alive, 0]
    strong_score = best.scores[alive, 0] >= minimum
    figures: dict[str, object] = {
        "latents": len(alive),
        "with_a_true_name": int(known.sum()),
        "top1": _mean(first[known]),
        "top5": _mean(five[known]),
        "lit_of_all_latents": _mean(lit),
    }
    for number, name in enumerate(SORTS):
        mine = known & (sorts[truth[alive]] == number)
        row = {"n": int(mine.sum()), "top1": _mean(first[mine]), "top5": _mean(five[mine])}
        figures[f"true name is a {name}"] = row
    for least in (0, 0.3, 0.5, 0.7, 0.8, 0.9):
        named = (sure >= least) & strong_score
        figures[f"named from confidence {least}"] = {
            "n": int(named.sum()),
            "top1_where_there_is_a_true_name": _mean(first[named & known]),
            "lit": _mean(lit[named]),
            "mean_share_on_what_it_says": _mean(on_name[named]),
        }
    return figures


def _mean(hits: np.ndarray) -> float | None:
    return round(float(hits.mean()), 3) if len(hits) else None


@command
def main(argv: list[str]) -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sae", default="bundled")
    parser.add_argument("--index", help="folder of the index (default: the SAE's)")
    parser.add_argument("--backbone", help="the SAE's own unless given")
    parser.add_argument("--n-scenes", type=int, default=1500)
    parser.add_argument("--minimum", type=float, default=MINIMUM)
    options = parser.parse_args(argv)
    sae = SparseAutoencoder.from_pretrained(options.sae)
    backbone = Backbone.of(sae.cfg.backbone, options.backbone)
    index = ConceptIndex.from_pretrained(options.index or options.sae)
    seed = HELD_OUT_SEED + 900
    by_floor = shares(backbone, sae, options.n_scenes, seed, index.max_activation)
    figures: dict[str, object] = {"scenes": options.n_scenes, "index": repr(index)}
    for vocabulary, words in vocabularies().items():
        best = best_words(index, backbone, words, k=5)
        for floor, part in by_floor.items():
            label = f"{vocabulary} ({len(words)}), activations above {floor:g} of the maximum"
            figures[label] = score(best, index, part, options.minimum)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(main())
