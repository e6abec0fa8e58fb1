"""The leaderboard's parts: truth of scenes, values of units, figures, small SAEs, the table."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sae.backbones.tokens import TokenView
from sae.errors import ArtifactError
from sae.metrics.baselines import neurons
from sae.metrics.exemplars import top_images
from sae.metrics.hierarchy import lca_depth
from sae.world.scenes import Scene, SceneObject, compose, kinds
from tests.backbones.towers import Tower
from tests.tiny_saes import tiny_sae
from tests.training.training_parts import backbone
from training.leaderboard.board import (
    agreement,
    markdown,
    merge,
    reconstruction_of,
    reference,
    train_small,
)
from training.leaderboard.kept import Kept, OutOfTime
from training.leaderboard.scenes import FAMILIES, Half, factor_names, factors_of, two_halves
from training.leaderboard.score import Latents, Linear, Values, depth_of, score_units
from training.world.generator import scenes

KINDS = kinds()
TOKENS = TokenView(Tower((12, 12), 1, has_cls=True), "all")
PAIR = Scene(
    "grass",
    (
        SceneObject(KINDS[0].name, "noto", 30, 30, "large"),
        SceneObject(KINDS[1].name, "twemoji", 40, 40, "small"),
    ),
)


@pytest.fixture(scope="module")
def tiny_clip():
    """A random CLIP of 4 × 4 patches."""
    return backbone()


def some_scenes(n: int) -> list[Scene]:
    stream = scenes(3)
    return [next(stream) for _ in range(n)]


def test_factors_of_a_scene_are_what_it_says():
    found = factors_of([PAIR, Scene("sand")], 8)
    names = np.array([" ".join(name) for name in found.names])
    kind, other = KINDS[0], KINDS[1]
    expected = {f"kind {kind.name}", f"group {kind.group}", f"realm {kind.realm}", "size large"}
    expected |= {f"kind {other.name}", f"group {other.group}", f"realm {other.realm}"}
    expected |= {"size small", "style noto", "style twemoji", "background grass"}
    assert set(names[found.image[[0]].toarray()[0]]) == expected
    assert set(names[found.image[[1]].toarray()[0]]) == {"background sand"}
    masks = compose(PAIR).masks
    cover = masks.reshape(2, 12, 8, 12, 8).mean((2, 4)).reshape(2, -1)
    patch = found.patch.toarray()
    place = {name: number for number, name in enumerate(names)}
    assert np.array_equal(patch[:144, place[f"kind {kind.name}"]], cover[0] >= 0.5)
    assert np.array_equal(patch[:144, place["background grass"]], cover.sum(0) <= 0.5)
    assert patch[144:, place["background sand"]].all()
    assert [(one.scene, one.kind) for one in found.instances] == [(0, 0), (0, 1)]
    assert np.array_equal(found.instances[1].mask, masks[1])
    larger = KINDS[int(masks.sum((1, 2)).argmax())]
    assert found.paths(2) == [(larger.realm, larger.group, larger.name), ()]
    assert {family for family, _ in factor_names()} == set(FAMILIES)


def half(n: int, d: int = 16, seed: int = 0) -> Half:
    x = torch.randn(n, 145, d, generator=torch.Generator().manual_seed(seed))
    return Half(x, factors_of(some_scenes(n), 8), TOKENS)


@pytest.mark.parametrize("architecture", ["topk", "relu"])
def test_values_of_latents_equal_the_dense_code(architecture):
    sae, part = tiny_sae(architecture), half(5)
    found = Latents(sae).values(part)
    with torch.no_grad():
        dense = sae.encode(part.x).numpy()
    assert found.patch.toarray() == pytest.approx(dense[:, 1:].reshape(-1, 40))
    assert found.mean.toarray() == pytest.approx(dense.mean(1), rel=1e-5)
    assert found.maximum.toarray() == pytest.approx(dense.max(1))
    maps = found.maps(7, np.array([3, 0]), (12, 12))
    assert maps == pytest.approx(dense[[3, 0], 1:, 7].reshape(2, 12, 12))


def test_values_of_linear_units_have_both_signs():
    part = half(4)
    found = Linear(neurons(16)).values(part)
    x = part.x.numpy()
    assert found.maximum == pytest.approx(np.concatenate([x.max(1), (-x).max(1)], 1))
    assert found.maps(16 + 3, np.array([2]), (12, 12)) == pytest.approx(
        -x[2:3, 1:, 3].reshape(1, 12, 12)
    )


class Oracle:
    """Units that are the truth itself."""

    signed = False

    def values(self, part: Half) -> Values:
        patch = sparse.csc_array(part.factors.patch, dtype=np.float32)
        image = sparse.csc_array(part.factors.image, dtype=np.float32)
        return Values(patch, image, image)


def test_the_truth_itself_scores_full_marks_and_noise_does_not():
    stream = some_scenes(240)
    halves = tuple(
        Half(torch.randn(120, 145, 4, generator=torch.Generator().manual_seed(i)), f, TOKENS)
        for i, f in enumerate(factors_of(part, 8) for part in (stream[:120], stream[120:]))
    )
    best = score_units(Oracle(), halves)
    for level in ("patch", "image", "image mean"):
        # not 1: two factors that always come together on one half may part on the other
        assert best[f"{level} auroc"] > 0.98
        assert best[f"{level} f1"] > 0.97
        assert best[f"{level} completeness"] > 0.96
    assert best["top patch hit"] > 0.95
    assert best["pointing game"] > 0.95
    assert best["iou"] > 0.7
    noise = score_units(Linear(neurons(4)), halves)
    assert noise["patch auroc"] < 0.6
    assert best["probe 1"] > 0.95
    assert noise["probe 5"] < 0.7
    assert noise["iou"] < 0.1


def test_depth_is_that_of_exemplars_by_group():
    sae, part = tiny_sae("matryoshka"), half(60)
    found = depth_of(sae, part)
    assert 0 < found["depth of any two"] < 1
    depth = lca_depth(
        top_images(Latents(sae).values(part).maximum, 16).images, part.factors.paths(60)
    )
    assert found["depth"] == pytest.approx(np.nanmean(depth))
    assert found["depth group 2"] == pytest.approx(np.nanmean(depth[4:14]))
    assert "depth group 3" in found


def test_small_saes_learn_and_a_frozen_decoder_stays(tiny_clip):
    first, second = two_halves(tiny_clip, -2, 5, 12)
    assert first.x.shape == (6, 17, 32)
    assert first.factors.patch.shape == (6 * 16, len(factor_names()))
    tokens, where = second.x.flatten(0, 1), reference(tiny_clip, -2)
    shape = {"d_sae": 48, "k": 4, "batch": 32, "seed": 1, "tokens_per_image": 17}
    trained = train_small("topk", tokens, where, steps=60, **shape)
    frozen = train_small("frozen topk", tokens, where, steps=60, **shape)
    start = train_small("frozen topk", tokens, where, steps=1, **shape)
    assert torch.equal(frozen.W_dec, start.W_dec)
    assert not torch.equal(frozen.W_enc, start.W_enc)
    assert not torch.allclose(trained.W_dec, start.W_dec, atol=1e-3)
    errors = [reconstruction_of(sae, first)["fvu"] for sae in (trained, frozen, start)]
    assert errors[0] < errors[1] < errors[2]
    again = train_small("topk", tokens, where, steps=60, **shape)
    assert torch.equal(again.W_enc, trained.W_enc)


def test_grids_that_do_not_divide_scenes_are_named(tiny_clip, monkeypatch):
    monkeypatch.setattr(tiny_clip, "patch_grid", (5, 5))
    with pytest.raises(ValueError, match="5 × 5 patches"):
        two_halves(tiny_clip, -2, 5, 4)


def test_seeds_are_compared():
    saes = {"a": [tiny_sae("topk", seed=1), tiny_sae("topk", seed=1)], "b": [tiny_sae("relu")]}
    found = agreement(saes)
    assert list(found) == ["a"]
    assert found["a"]["same directions in another seed"]["mean"] == pytest.approx(1, abs=1e-5)
    assert found["a"]["… in random dictionaries"]["mean"] < 0.8


def test_the_table_has_mean_and_spread():
    rows = {"one": [{"units": 8.0, "iou": 0.5}, {"units": 8.0, "iou": 0.7}], "two": [{"iou": 0.2}]}
    merged = merge(rows)
    assert merged["one"]["iou"] == {
        "mean": pytest.approx(0.6), "std": pytest.approx(0.2 / 2**0.5), "n": 2
    }  # fmt: skip
    assert merged["two"]["iou"]["std"] is None
    text = markdown(merged)
    assert "0.600 ± 0.141" in text
    assert "| 8 |" in text


def test_what_is_done_is_kept_and_other_options_are_refused(tmp_path):
    made = []

    def make(value: float) -> dict[str, float]:
        made.append(value)
        return {"iou": value}

    kept = Kept(tmp_path / "parts", {"steps": 1})
    assert kept.row("a b/c", lambda: make(1.0)) == {"iou": 1.0}
    sae = tiny_sae("topk", seed=1)
    kept.sae("one", lambda: sae)
    kept.tensor("x", lambda: torch.arange(3.0))
    again = Kept(tmp_path / "parts", {"steps": 1}, minutes=0.0)
    assert again.row("a b/c", lambda: make(2.0)) == {"iou": 1.0}
    assert torch.equal(again.sae("one", lambda: None).W_dec, sae.W_dec)
    assert torch.equal(again.tensor("x", lambda: None), torch.arange(3.0))
    with pytest.raises(OutOfTime):
        again.row("d", lambda: make(3.0))
    with pytest.raises(ArtifactError, match="other steps"):
        Kept(tmp_path / "parts", {"steps": 2})
    nothing = Kept(None, {})
    assert nothing.row("a", lambda: make(4.0)) == nothing.row("a", lambda: make(4.0))
    assert made == [1.0, 4.0, 4.0]
