"""Steering measured on the emoji world: which latent stands for a kind, and what it does to captions.

Knows scenes, steering and words; draws nothing. Latents are chosen on scenes that are held out from all
training and are not those that steering is measured on; DiffMean, the baseline, gets the same labels: which
kinds an image shows, and nothing of where. A pair is a picture and an object kind. Insertion: the picture
shows one other object; the caption shall name the kind, and still the other. Suppression: the picture shows
two objects, both named as it is; the caption shall lose the one and keep the other. Guesses: what would make
the model name a kind that the picture does not show, and the doses at which captions flip.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.backbones.vlm_generate import write
from sae.concepts.index import ConceptIndex
from sae.metrics.auroc import auroc
from sae.steering import Edit, Prepared, Scope, Steerer, SteerRequest
from sae.steering.candidates import Candidate, candidates
from sae.steering.doses import DoseResponse, dose_response
from sae.world.scenes import OBJECT_SIZES, SIZE, Scene, SceneObject, kind_names
from sae.world.tasks import HELD_OUT_SEED
from training.world.generator import images

SELECTION_SEED = HELD_OUT_SEED + 9000
INSERTION_SEED = HELD_OUT_SEED + 9500
SUPPRESSION_SEED = HELD_OUT_SEED + 9700
PROMPT = "describe the image"
MAX_NEW_TOKENS = 20
ENOUGH = 0.8
DOSE = 2.0
LADDER = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Multiples of the maximum, on every token."""


@dataclass(frozen=True)
class KindLatents:
    """Per kind, in the order of `kind_names()`."""

    latents: list[list[int]]
    """Latents by image-level AUROC, best first."""
    auroc: Float[np.ndarray, " kinds"]
    """That of the best latent."""
    diff_mean: Float[Tensor, "kinds d_in"]
    """(kinds, d): mean activation of images with the kind minus that of images without, over all
    tokens of an image."""
    diff_mean_masks: Float[Tensor, "kinds d_in"]
    """(kinds, d): the same from the patches that the object covers, minus the mean token: told the
    objects' masks, which neither method gets otherwise."""
    mean: Float[Tensor, " d_in"]
    """(d): the mean token."""


def index_of(steerer: Steerer) -> ConceptIndex:
    """The index that measuring reads; ValueError for a steerer without one."""
    if steerer.index is None:
        raise ValueError(
            "steering is measured with the index of an SAE; build one: patchlens index"
        )
    return steerer.index


def maxima_of(steerer: Steerer) -> Float[Tensor, " d_sae"]:
    """Each latent's maximum over the index; ValueError for a steerer without one."""
    if steerer.max_activation is None:
        raise ValueError("doses are measured in each latent's maximum; load the SAE with its index")
    return steerer.max_activation


def backbone_of(steerer: Steerer) -> Backbone:
    """The backbone that measuring reads; ValueError for a steerer without one."""
    if steerer.backbone is None:
        raise ValueError("steering is measured with the CLIP of the model's vision tower")
    return steerer.backbone


@torch.no_grad()
def choose_latents(steerer: Steerer, n_scenes: int, *, n_latents: int = 8) -> KindLatents:
    """Score every latent (mean over tokens, PatchSAE's image-level activation) for every kind."""
    backbone, names = backbone_of(steerer), kind_names()
    pictures, scenes = images(SELECTION_SEED, n_scenes)
    labels = np.array([[name in {o.kind for o in s.objects} for name in names] for s in scenes])
    scores, means, covered, mean = _read(backbone, steerer, pictures, scenes)
    table = auroc(scores, labels)
    best = np.argsort(-np.nan_to_num(table), axis=0)[:n_latents]
    shown = torch.from_numpy(labels)
    diff = torch.stack(
        [means[shown[:, k]].mean(0) - means[~shown[:, k]].mean(0) for k in range(len(names))]
    )
    return KindLatents(
        best.T.tolist(), table[best[0], np.arange(len(names))], diff, covered - mean, mean
    )


def _read(
    backbone: Backbone, steerer: Steerer, pictures: np.ndarray, scenes: list[Scene]
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    sae, names = steerer.sae, {name: n for n, name in enumerate(kind_names())}
    scores, means, patches = [], [], TokenView(backbone, "patches")
    covered, count = torch.zeros(len(names), sae.cfg.d_in), torch.zeros(len(names), 1)
    for start in range(0, len(pictures), 64):
        batch = [Image.fromarray(picture) for picture in pictures[start : start + 64]]
        x = backbone.activations(batch, steerer.layer)
        code = sae.encode_sparse(x)
        row = torch.zeros(len(batch), sae.cfg.d_sae)
        scores.append(
            row.scatter_add(1, code.indices.flatten(1), code.values.flatten(1)) / x.shape[1]
        )
        means.append(x.mean(1))
        for h, scene in zip(patches.read(x), scenes[start : start + 64], strict=True):
            for item in scene.objects:
                under = h[torch.from_numpy(patches_under(item, backbone.patch_grid))]
                covered[names[item.kind]] += under.sum(0)
                count[names[item.kind]] += len(under)
    rows = torch.cat(means)
    return torch.cat(scores).numpy(), rows, covered / count.clamp(min=1), rows.mean(0)


def patches_under(
    item: SceneObject, grid: tuple[int, int], *, shrink: float = 0.8
) -> Bool[np.ndarray, " patches"]:
    """Bool (patches): those whose middle lies in the object's square, a little shrunk."""
    half = OBJECT_SIZES[item.size] / 2 * shrink
    rows, columns = ((np.arange(n) + 0.5) * SIZE / n for n in grid)
    inside = (np.abs(rows[:, None] - item.y) < half) & (np.abs(columns[None] - item.x) < half)
    return inside.reshape(-1)


@dataclass(frozen=True)
class Pair:
    """A picture, the kind that is steered, the word that shall stay, and a free region."""

    prepared: Prepared
    kind: int
    other: str
    region: tuple[int, ...]
    """Patches: where a person would paint the new object (insertion)."""


Change = Callable[[Pair], Float[Tensor, "*rows tokens d_in"]]
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
    pairs = []
    grid = backbone_of(steerer).patch_grid
    for kind, name in enumerate(kind_names()):
        others = [n for n, scene in enumerate(scenes) if scene.objects[0].kind != name]
        for number in rng.choice(others, per_kind, replace=False):
            scene = scenes[number]
            region = free_region(scene, grid, size, rng)
            pairs.append(Pair(prepared[number], kind, scene.objects[0].kind, region))
    return pairs


def suppression_pairs(steerer: Steerer, n_scenes: int, *, seed: int) -> list[Pair]:
    """Both objects in turn of two-object scenes whose caption names both."""
    pictures, scenes = images(seed, n_scenes, n_objects=2)
    prepared = _prepared(steerer, pictures)
    told = captions(steerer, [p.kept.hidden for p in prepared], prepared[0])
    numbers = {name: number for number, name in enumerate(kind_names())}
    pairs = []
    for scene, one, text in zip(scenes, prepared, told, strict=True):
        names = [item.kind for item in scene.objects]
        if all(name in text.split() for name in names):
            pairs += [Pair(one, numbers[names[i]], names[1 - i], ()) for i in (0, 1)]
    return pairs


def measure(steerer: Steerer, pairs: Sequence[Pair], change: Change, *, insert: bool) -> Outcome:
    """Steer every pair, all in batches, and count."""
    done, kept = judge(steerer, pairs, change, insert=insert)
    return outcome(np.array([pair.kind for pair in pairs]), done, kept)


def judge(
    steerer: Steerer, pairs: Sequence[Pair], change: Change, *, insert: bool, batch: int = 150
) -> tuple[Bool[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
    """Of every pair: whether it is done, and whether the other object's word is kept."""
    names, told = kind_names(), []
    for start in range(0, len(pairs), batch):
        rows = [change(pair) for pair in pairs[start : start + batch]]
        told += [text.split() for text in captions(steerer, rows, pairs[0].prepared)]
    named = np.array([names[p.kind] in words for p, words in zip(pairs, told, strict=True)])
    kept = np.array([p.other in words for p, words in zip(pairs, told, strict=True)])
    return (named if insert else ~named), kept


def outcome(
    kinds: Int[np.ndarray, " pairs"],
    done: Bool[np.ndarray, " pairs"],
    kept: Bool[np.ndarray, " pairs"],
) -> Outcome:
    """The shares of what was judged."""
    shares = [done[kinds == kind].mean() for kind in np.unique(kinds)]
    enough = float(np.mean(np.array(shares) >= ENOUGH - 1e-9))
    return Outcome(
        float(done.mean()), enough, float(kept.mean()), float((done & kept).mean()), len(kinds)
    )


def captions(
    steerer: Steerer,
    rows: Sequence[Float[Tensor, "*rows tokens d_in"]],
    like: Prepared,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch: int = 32,
) -> list[str]:
    """Greedy answers to `like`'s prompt for activations of any pictures of the same size."""
    told: list[str] = []
    for start in range(0, len(rows), batch):
        some = list(rows[start : start + batch])
        tokens, _ = write(steerer.writing(like, some, max_new_tokens))
        told += [steerer.text(row) for row in tokens]
    return told


def set_latents(chosen: KindLatents, dose: float, where: str, *, n: int = 1) -> Change:
    """Insertion with the kind's best latent at `dose` times its maximum.

    where: "all" tokens; "region": the free patches; "replace": there, and every other latent to 0.
    """

    def change(pair: Pair) -> Tensor:
        scope = Scope() if where == "all" else Scope("region", patches=pair.region)
        latents = chosen.latents[pair.kind][:n]
        edits = [Edit(latent, "set", dose, scope=scope) for latent in latents]
        if where == "replace":
            edits += [Edit(latents[0], "only", scope=scope)]
        return pair.prepared.activations.edited(edits)

    return change


def lower_latents(chosen: KindLatents, dose: float, *, n: int = 1) -> Change:
    """Suppression: the kind's best latents at `dose` (0 or less) times their maximum, on the tokens
    on which they fire."""

    def change(pair: Pair) -> Tensor:
        scope = Scope(above=0.0)
        latents = chosen.latents[pair.kind][:n]
        return pair.prepared.activations.edited(
            [Edit(j, "set", dose, scope=scope) for j in latents]
        )

    return change


def add_direction(
    directions: Float[Tensor, "kinds d_in"], mean: Float[Tensor, " d_in"], dose: float, where: str
) -> Change:
    """DiffMean: `dose` times the kind's direction added to all tokens, to the region, or
    ("replace") to the mean token in the region's place."""

    def change(pair: Pair) -> Tensor:
        activations = pair.prepared.activations
        scope = Scope() if where == "all" else Scope("region", patches=pair.region)
        here = activations.reach(scope)[..., None]
        start = mean - activations.x if where == "replace" else 0.0
        return activations.plus(here * (start + dose * directions[pair.kind]))

    return change


def best_by_steering(
    steerer: Steerer, chosen: KindLatents, dose: float, where: str, *, seed: int, n: int = 4
) -> KindLatents:
    """The same with each kind's latents reordered: of the first `n` by AUROC, the one comes
    first whose insertion does best on `n` selection pictures (named, and the other word kept)."""
    pairs = insertion_pairs(steerer, n, seed=seed)
    names = kind_names()
    good = np.zeros((len(names), n))
    for place in range(n):
        only = replace(chosen, latents=[row[place:] for row in chosen.latents])
        change = set_latents(only, dose, where)
        texts = captions(steerer, [change(pair) for pair in pairs], pairs[0].prepared)
        for pair, text in zip(pairs, texts, strict=True):
            words = text.split()
            good[pair.kind, place] += names[pair.kind] in words and pair.other in words
    first = good.argmax(1)
    ordered = [
        [row[best], *row[:best], *row[best + 1 :]]
        for row, best in zip(chosen.latents, first.tolist(), strict=True)
    ]
    return replace(chosen, latents=ordered)


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


def candidate_lines(steerer: Steerer, pairs: Sequence[Pair], n: int = 8) -> Iterator[str]:
    """One line a figure: the first `n` by gradient, verified, for each pair."""
    names = kind_names()
    by_pair = [
        candidates(steerer, p.prepared, names[p.kind], answer_start="a", dose=DOSE, n=n)
        for p in pairs
    ]
    guessed = [max(rows, key=lambda row: row.predicted) for rows in by_pair]
    best = [rows[0] for rows in by_pair]
    yield f"the model would say the word (median p)       before {_p(best, 'before'):.4f}"
    yield f"with the gradient's first guess, run          {_p(guessed, 'after'):.3f}"
    yield f"with the best of {n} that were run              {_p(best, 'after'):.3f}"
    carry = np.mean([row.name == names[p.kind] for row, p in zip(best, pairs, strict=True)])
    yield f"that best concept carries the word as its name {carry:6.1%}"
    ranks = [_rank_correlation(rows) for rows in by_pair]
    yield f"predicted against actual, rank correlation    {np.mean(ranks):.2f} within the first {n}"
    signs = np.mean([row.actual > 0 for rows in by_pair for row in rows])
    yield f"guesses that do raise the word's logit        {signs:6.1%}"


def dose_lines(steerer: Steerer, pairs: Sequence[Pair], latents: Sequence[int]) -> Iterator[str]:
    """One line a figure: a ladder of each pair's concept on every token."""
    names = kind_names()
    ladders = [
        dose_response(
            steerer,
            pair.prepared,
            SteerRequest(PROMPT, (Edit(latent, "set", 1.0),), max_new_tokens=16),
            LADDER,
            word=names[pair.kind],
            refine=True,
        )
        for pair, latent in zip(pairs, latents, strict=True)
    ]
    flips = [response.flip for response in ladders if response.flip is not None]
    middle = f", median {np.median(flips):.2f} × max" if flips else ""
    share = len(flips) / len(ladders)
    yield f"captions that flip on the ladder up to {LADDER[-1]:g} ×   {share:6.1%}{middle}"
    yield f"ladders on which p(word) never falls          {np.mean([r.monotonic for r in ladders]):6.1%}"
    for place, dose in enumerate(LADDER):
        yield (
            f"{dose:4g} × max: p(word) {_mean(ladders, place, 'p_word'):.3f}  similarity to the word "
            f"{_mean(ladders, place, 'similarity'):.3f}  fluency {_mean(ladders, place, 'fluency'):.3f}"
        )


def _p(rows: Sequence[Candidate], when: str) -> float:
    return float(np.median([getattr(row, when) for row in rows]))


def _mean(ladders: Sequence[DoseResponse], place: int, name: str) -> float:
    return float(np.mean([getattr(response.doses[place], name) for response in ladders]))


def _rank_correlation(rows: Sequence[Candidate]) -> float:
    ranks = [np.argsort(np.argsort([getattr(r, n) for r in rows])) for n in ("predicted", "actual")]
    return float(np.atleast_2d(np.corrcoef(np.array(ranks)))[0, 1])
