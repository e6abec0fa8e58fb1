"""How good the maps of concepts are: neighbours that stay neighbours, labels against the world's truth.

    python training/bench/maps.py                  # the bundled index
    python training/bench/maps.py --latents 49152  # time and memory of a map of that size, of made-up vectors

kept: share of a concept's ten nearest that are among its ten nearest on the map. A label is judged on
held-out scenes by their masks: which share of the activation of a group's concepts lies on patches of what it
says, beside the same labels dealt to other groups, and the share of all patches that show it. Groups drawn by
chance are labelled by the same rule: each label there is one too many.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
from scipy.spatial import cKDTree

from sae.backbones import Backbone
from sae.concepts.atlas import MAPS, Group
from sae.concepts.content import NOWHERE
from sae.concepts.index import ConceptIndex
from sae.concepts.layout import places_of
from sae.model import SparseAutoencoder
from sae.terminal import command
from sae.world.tasks import HELD_OUT_SEED
from training.leaderboard.scenes import two_halves
from training.leaderboard.score import Latents

K = 10
N_SHUFFLES = 20


def kept(ids: np.ndarray, xy: np.ndarray, step: int = 1) -> float:
    """The share of each row's K nearest (ids, -1 for none) that are its K nearest on the map."""
    there = np.flatnonzero(xy[:, 0] != NOWHERE)
    points = xy[there].astype(float)
    near = there[cKDTree(points).query(points[::step], K + 1)[1]]
    shares = [
        len((set(row.tolist()) - {own}) & set(ids[own, :K].tolist())) / n
        for own, row in zip(there[::step].tolist(), near, strict=True)
        if (n := int((ids[own, :K] >= 0).sum()))
    ]
    return float(np.mean(shares))


def truth(n_scenes: int) -> tuple[np.ndarray, dict[str, int], np.ndarray]:
    """Share of each latent's activation on patches that show a factor (d_sae, factors), NaN for none;
    the factors' numbers by the word that names them; the share of patches that show each."""
    sae = SparseAutoencoder.from_pretrained("bundled")
    backbone = Backbone.from_pretrained("bundled")
    layer = sae.cfg.backbone.layer
    on, total, base = 0.0, 0.0, []
    for half in two_halves(backbone, layer, HELD_OUT_SEED + 700, n_scenes):
        patch = Latents(sae).values(half).patch
        on = on + (patch.T.tocsr().astype(float) @ half.factors.patch.astype(float)).toarray()
        total = total + np.asarray(patch.sum(0)).ravel()
        base.append(np.asarray(half.factors.patch.mean(0)).ravel())
    names = half.factors.names
    numbers = {
        value: n for n, (family, value) in enumerate(names) if family in ("kind", "group", "realm")
    }
    numbers |= {
        f"{value} background": n
        for n, (family, value) in enumerate(names)
        if family == "background"
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        return on / total[:, None], numbers, np.mean(base, axis=0)


def judged(
    groups: list[Group],
    of_latent: np.ndarray,
    shares: np.ndarray,
    numbers: dict[str, int],
    chance: np.random.Generator | None = None,
) -> np.ndarray:
    """For each labelled group the mean share of its concepts' activation on what the label says; with
    `chance` on what the label of another says."""
    labelled = [n for n, group in enumerate(groups) if group.label]
    dealt = labelled if chance is None else chance.permutation(labelled).tolist()
    found = []
    for number, other in zip(labelled, dealt, strict=True):
        factors = [numbers[word] for word in groups[number].label.split(", ")]
        members = shares[of_latent == other][:, factors].sum(1)
        found.append(np.nanmean(np.minimum(members, 1)))
    return np.array(found)


def bundled(n_scenes: int) -> None:
    """Print a row a map of the bundled index."""
    index = ConceptIndex.from_pretrained("bundled")
    shares, numbers, base = truth(n_scenes)
    print(
        "| map | kept | placed | groups | labelled | on it | labels dealt | patches | by chance labelled |"
    )
    for by in MAPS:
        ids, _ = index.atlas._neighbours(by)
        places, groups = index.atlas.raw(by), index.atlas.groups(by)
        right = judged(groups, places.groups, shares, numbers)
        dealt, many = [], []
        for seed in range(N_SHUFFLES):
            chance = np.random.default_rng(seed)
            dealt.append(judged(groups, places.groups, shares, numbers, chance))
            layout = {f"{by}_xy": places.xy, f"{by}_groups": chance.permutation(places.groups)}
            shuffled = ConceptIndex(index._content._replace(layout=layout)).atlas
            many.append(sum(bool(group.label) for group in shuffled.groups(by)))
        words = [
            numbers[word] for group in groups if group.label for word in group.label.split(", ")
        ]
        print(
            f"| {by} | {kept(ids, places.xy):.3f} | {(places.xy[:, 0] != NOWHERE).mean():.3f} | "
            f"{len(groups)} | {sum(bool(g.label) for g in groups)} | {right.mean():.3f} | "
            f"{np.mean([one.mean() for one in dealt]):.3f} | {base[words].mean():.3f} | "
            f"{np.mean(many):.2f} |",
            flush=True,
        )
    print(f"{n_scenes} held-out scenes; {N_SHUFFLES} shuffles")


def sized(n: int) -> None:
    """Print what a map of n made-up vectors in bundles of twenty takes."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(n // 20, 5))[chance.integers(n // 20, size=n)]
    vectors = vectors + 0.15 * chance.normal(size=vectors.shape)
    far, ids = cKDTree(vectors).query(vectors, 13)
    before, began = _peak(), time.process_time()
    places = places_of(ids[:, 1:].astype(np.int32), np.exp(-far[:, 1:]), np.ones(n, bool))
    print(
        f"{n} latents: {time.process_time() - began:.1f} s of CPU, {_peak() - before:.0f} MB more, kept "
        f"{kept(ids[:, 1:], places.xy, max(1, n // 4000)):.3f}, {places.groups.max() + 1} groups"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@command
def main(argv: list[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scenes", type=int, default=600, help="held-out scenes to judge labels on"
    )
    parser.add_argument(
        "--latents", type=int, help="measure a map of so many made-up latents instead"
    )
    args = parser.parse_args(argv)
    if args.latents:
        sized(args.latents)
    else:
        bundled(args.scenes)


if __name__ == "__main__":
    sys.exit(main())
