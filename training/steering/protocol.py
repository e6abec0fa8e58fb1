"""Insertion and suppression on the world, counted by words that appear, go and stay.

Knows scenes, steering and words. A pair is a picture and an object kind. Insertion: the picture
shows one other object; the caption shall name the kind, and still the other. Suppression: the
picture shows two objects, both named as it is; the caption shall lose the one and keep the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sae.backbones.vlm_generate import write
from sae.steering import Edit, Prepared, Scope, Steerer
from sae.world.scenes import Scene, kind_names
from training.steering.selection import Selection, patches_under
from training.world.generator import HELD_OUT_SEED, images

PROMPT = "describe the image"
MAX_NEW_TOKENS = 20
ENOUGH = 0.8
INSERTION_SEED = HELD_OUT_SEED + 9500
SUPPRESSION_SEED = HELD_OUT_SEED + 9700


@dataclass(frozen=True)
class Pair:
    """A picture, the kind that is steered, the word that shall stay, and a free region."""

    prepared: Prepared
    kind: int
    other: str
    region: tuple[int, ...]
    """Patches: where a person would paint the new object (insertion)."""


Change = Callable[[Pair], Tensor]
"""The picture's edited activations."""


@dataclass(frozen=True)
class Outcome:
    """Shares of pairs, 0 to 1."""

    done: float
    """The word appeared (insertion) or went (suppression)."""
    kinds: float
    """Kinds for which that holds on at least ENOUGH of their pairs."""
    kept: float
    """The other object's word is still there."""
    both: float
    n: int

    def line(self, verb: str) -> str:
        """For people."""
        return (
            f"{verb} {self.done:6.1%}  kinds at ≥ {ENOUGH:.0%}: {self.kinds:6.1%}  "
            f"other object's word kept {self.kept:6.1%}  both {self.both:6.1%}  (n = {self.n})"
        )


def insertion_pairs(steerer: Steerer, per_kind: int, *, size: int = 5, seed: int) -> list[Pair]:
    """`per_kind` pictures for each kind, each with one object of another kind."""
    rng = np.random.default_rng(seed)
    pictures, scenes = images(seed, 200, n_objects=1)
    prepared = _prepared(steerer, pictures)
    found = []
    for kind, name in enumerate(kind_names()):
        others = [n for n, scene in enumerate(scenes) if scene.objects[0].kind != name]
        for number in rng.choice(others, per_kind, replace=False):
            scene = scenes[number]
            region = free_region(scene, steerer.backbone.patch_grid, size, rng)
            found.append(Pair(prepared[number], kind, scene.objects[0].kind, region))
    return found


def suppression_pairs(steerer: Steerer, n_scenes: int, *, seed: int) -> list[Pair]:
    """Both objects in turn of two-object scenes whose caption names both."""
    pictures, scenes = images(seed, n_scenes, n_objects=2)
    prepared = _prepared(steerer, pictures)
    told = captions(steerer, [p.kept.hidden for p in prepared], prepared[0])
    numbers = {name: number for number, name in enumerate(kind_names())}
    found = []
    for scene, one, text in zip(scenes, prepared, told, strict=True):
        names = [item.kind for item in scene.objects]
        if all(name in text.split() for name in names):
            found += [Pair(one, numbers[names[i]], names[1 - i], ()) for i in (0, 1)]
    return found


def measure(steerer: Steerer, pairs: Sequence[Pair], change: Change, *, insert: bool) -> Outcome:
    """Steer every pair, all in batches, and count."""
    texts = captions(steerer, [change(pair) for pair in pairs], pairs[0].prepared)
    names = kind_names()
    named = np.array([names[p.kind] in t.split() for p, t in zip(pairs, texts, strict=True)])
    done = named if insert else ~named
    kept = np.array([p.other in t.split() for p, t in zip(pairs, texts, strict=True)])
    kinds = np.array([p.kind for p in pairs])
    shares = [done[kinds == kind].mean() for kind in np.unique(kinds)]
    enough = float(np.mean(np.array(shares) >= ENOUGH - 1e-9))
    return Outcome(
        float(done.mean()), enough, float(kept.mean()), float((done & kept).mean()), len(pairs)
    )


def captions(
    steerer: Steerer,
    rows: Sequence[Tensor],
    like: Prepared,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch: int = 150,
) -> list[str]:
    """Greedy answers to `like`'s prompt for activations of any pictures of the same size."""
    told: list[str] = []
    for start in range(0, len(rows), batch):
        some = list(rows[start : start + batch])
        tokens, _ = write(steerer.writing(like, some, max_new_tokens))
        told += [steerer.text(row) for row in tokens]
    return told


def set_latents(selection: Selection, dose: float, where: str, *, n: int = 1) -> Change:
    """Insertion with the kind's best latent at `dose` times its maximum.

    where: "all" tokens; "region": the free patches; "replace": there, and every other latent to 0.
    """

    def change(pair: Pair) -> Tensor:
        scope = Scope() if where == "all" else Scope("region", patches=pair.region)
        latents = selection.latents[pair.kind][:n]
        edits = [Edit(latent, "set", dose, scope=scope) for latent in latents]
        if where == "replace":
            edits += [Edit(latents[0], "only", scope=scope)]
        return pair.prepared.activations.edited(edits)

    return change


def lower_latents(selection: Selection, dose: float, *, n: int = 1) -> Change:
    """Suppression: the kind's best latents at `dose` (0 or less) times their maximum, on the tokens
    on which they fire."""

    def change(pair: Pair) -> Tensor:
        scope = Scope(above=0.0)
        latents = selection.latents[pair.kind][:n]
        return pair.prepared.activations.edited(
            [Edit(j, "set", dose, scope=scope) for j in latents]
        )

    return change


def add_direction(directions: Tensor, mean: Tensor, dose: float, where: str) -> Change:
    """DiffMean: `dose` times the kind's direction added to all tokens, to the region, or
    ("replace") to the mean token in the region's place."""

    def change(pair: Pair) -> Tensor:
        found = pair.prepared.activations
        scope = Scope() if where == "all" else Scope("region", patches=pair.region)
        here = found.reach(scope)[..., None]
        start = mean - found.x if where == "replace" else 0.0
        return found.plus(here * (start + dose * directions[pair.kind]))

    return change


def best_by_steering(
    steerer: Steerer, selection: Selection, dose: float, where: str, *, seed: int, n: int = 4
) -> Selection:
    """The selection with each kind's latents reordered: of the first `n` by AUROC, the one comes
    first whose insertion does best on `n` selection pictures (named, and the other word kept)."""
    pairs = insertion_pairs(steerer, n, seed=seed)
    names = kind_names()
    good = np.zeros((len(names), n))
    for place in range(n):
        only = replace(selection, latents=[row[place:] for row in selection.latents])
        change = set_latents(only, dose, where)
        texts = captions(steerer, [change(pair) for pair in pairs], pairs[0].prepared)
        for pair, text in zip(pairs, texts, strict=True):
            words = text.split()
            good[pair.kind, place] += names[pair.kind] in words and pair.other in words
    first = good.argmax(1)
    ordered = [
        [row[best], *row[:best], *row[best + 1 :]]
        for row, best in zip(selection.latents, first.tolist(), strict=True)
    ]
    return replace(selection, latents=ordered)


def free_region(
    scene: Scene, grid: tuple[int, int], size: int, rng: np.random.Generator, tries: int = 40
) -> tuple[int, ...]:
    """The `size` × `size` patches that overlap the scene's objects least, of some random places."""
    taken = np.zeros(grid[0] * grid[1])
    for item in scene.objects:
        taken += patches_under(item, grid)
    best: tuple[float, tuple[int, ...]] = (np.inf, ())
    for _ in range(tries):
        top, left = (int(rng.integers(n - size + 1)) for n in grid)
        square = tuple((top + r) * grid[1] + left + c for r in range(size) for c in range(size))
        best = min(best, (float(taken[list(square)].sum()), square))
    return best[1]


@torch.no_grad()
def _prepared(steerer: Steerer, pictures: np.ndarray) -> list[Prepared]:
    return [steerer.prepare(Image.fromarray(picture), PROMPT) for picture in pictures]
