"""What the benchmark counts: pairs, regions, outcomes and the choice of latents."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae.steering.clip import Steerability
from sae.world.scenes import Scene, SceneObject, compose, kind_names
from tests.steering.parts import CAT, random_sae
from training.steering import protocol
from training.steering.paper_score import exemplar_features, paper_scores, text_features
from training.steering.protocol import (
    KindLatents,
    add_direction,
    candidate_lines,
    choose_latents,
    dose_lines,
    measure,
    patches_under,
    set_latents,
)
from training.steering.steerability import summary, words_for
from training.world.generator import images

KIND = kind_names().index("cat")


def pairs_of(steerer, n: int) -> list[protocol.Pair]:
    found = protocol.insertion_pairs(steerer, 1, seed=5)
    return [pair for pair in found if pair.kind == KIND][:n]


def fixed(latents: list[int]) -> KindLatents:
    rows = [latents] * len(kind_names())
    zeros = torch.zeros(len(rows), 128)
    return KindLatents(rows, np.ones(len(rows)), zeros, zeros, torch.zeros(128))


def test_objects_cover_the_patches_of_their_masks():
    _, scenes = images(3, 20, n_objects=1)
    for scene in scenes:
        mask = compose(scene).masks[0]
        covered = mask.reshape(12, 8, 12, 8).mean((1, 3)).reshape(-1)
        under = patches_under(scene.objects[0], (12, 12))
        assert covered[under].mean() > 0.3
        assert covered[~under].sum() < covered.sum() / 2


def test_free_regions_are_squares_that_spare_the_objects():
    rng = np.random.default_rng(0)
    for x, y in ((24, 24), (70, 30), (48, 76)):
        scene = Scene("sand", (SceneObject("cat", x=x, y=y),))
        region = np.zeros((12, 12), dtype=bool)
        region.reshape(-1)[list(protocol.free_region(scene, (12, 12), 5, rng))] = True
        assert region.any(0).sum() == region.any(1).sum() == 5
        assert region.sum() == 25
        assert not (region.reshape(-1) & patches_under(scene.objects[0], (12, 12))).any()


def test_outcomes_are_counted_by_words(steerer):
    pairs = pairs_of(steerer, 1)
    inserted = measure(steerer, pairs, set_latents(fixed([CAT]), 4.0, "replace"), insert=True)
    assert (inserted.done, inserted.kinds, inserted.kept, inserted.n) == (1, 1, 1, 1)
    flooded = measure(steerer, pairs, set_latents(fixed([CAT]), 8.0, "all"), insert=True)
    assert (flooded.done, flooded.kept, flooded.both) == (1, 0, 0)
    nothing = add_direction(torch.zeros(120, 128), torch.zeros(128), 3.0, "all")
    assert measure(steerer, pairs, nothing, insert=True).done == 0
    assert "kept 100.0%" in inserted.line("inserted")


def test_suppression_asks_about_both_objects_of_a_picture(steerer):
    pairs = protocol.suppression_pairs(steerer, 6, seed=8)
    assert len(pairs) % 2 == 0
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert one.prepared is other.prepared
        assert kind_names()[one.kind] == other.other


def test_selection_scores_latents_by_auroc(steerer):
    with np.errstate(all="ignore"):
        selection = choose_latents(steerer, 150, n_latents=3)
    assert np.shape(selection.latents) == (120, 3)
    assert np.nanmedian(selection.auroc) > 0.9
    assert selection.diff_mean.shape == selection.diff_mean_masks.shape == (120, 128)


@pytest.mark.parametrize("n_prefix", [0, 1, 5])
def test_the_mask_baseline_reads_the_patches_of_any_tower(n_prefix):
    """A tower with no CLS token, and one with registers too: the prefix is never under an object."""

    class Tower:
        id, patch_grid, has_cls = "tower", (12, 12), n_prefix > 0

        def activations(self, pictures, _layer):
            rows = torch.cat([torch.full((n_prefix,), 1e6), torch.arange(144.0)])
            return rows.expand(len(pictures), -1)[..., None].repeat(1, 1, 8)

    tower = Tower()
    tower.n_prefix = n_prefix
    steerer = SimpleNamespace(backbone=tower, layer=-2, sae=random_sae(8, 0))
    with np.errstate(all="ignore"):
        chosen = choose_latents(steerer, 20, n_latents=1)
    _, scenes = images(protocol.SELECTION_SEED, 20)
    under: dict[str, list[float]] = {}
    for scene in scenes:
        for item in scene.objects:
            rows = np.flatnonzero(patches_under(item, (12, 12)))
            under.setdefault(item.kind, []).extend(rows.tolist())
    for kind, rows in under.items():
        found = (chosen.diff_mean_masks + chosen.mean)[kind_names().index(kind)]
        assert found.tolist() == pytest.approx([np.mean(rows)] * 8, rel=1e-3, abs=0.5)


def test_the_papers_score_is_a_cosine_of_words_and_exemplars(steerer):
    concept = exemplar_features(steerer, [CAT])[CAT]
    assert float(concept.norm()) == pytest.approx(1, abs=1e-5)
    cat, dog = (float(row @ concept) for row in text_features(steerer, ["cat", "dog"]))
    assert cat > dog + 0.1
    scores = paper_scores(steerer, 8.0, n_latents=8, n_images=2, per_image=4, n_references=2)
    assert scores["white picture, steered"].n == scores["scenes, unsteered"].n == 8
    assert 0 < scores["white picture, steered, object concepts"].n < 8
    assert scores["right pairs"].mean > scores["random pairs"].mean + 0.1
    n = scores["right pairs"].n
    assert n > 80
    assert scores["random pairs"].n == n * (n - 1)


def test_guesses_and_ladders_are_told_in_figures(steerer):
    pairs = pairs_of(steerer, 1)
    said = list(candidate_lines(steerer, pairs, n=2)) + list(dose_lines(steerer, pairs, [CAT]))
    assert said[0].endswith("before 0.0000")
    assert float(said[2].split()[-1]) > 0.5
    assert "carries the word as its name 100.0%" in said[3]
    assert "100.0%, median" in said[6]
    assert len([line for line in said if "fluency" in line]) == 5


def test_summary_leaves_out_what_was_not_measured():
    s = np.array([0.2, np.nan, 0.05], dtype=np.float32)
    measured = Steerability(s, s * 2, np.array([1, -1, 0]), 1.0, 4, 2)
    said = json.loads(json.dumps(summary(measured, ["cat", "dog"])))
    assert said["n_latents"] == 2
    assert said["share_above_0.1"] == 0.5
    assert said["best"]["0"] == "dog"


def test_the_words_are_those_of_the_world_of_the_user_or_the_shipped_ones(tmp_path):
    assert {"cat", "animal", "grass"} <= set(words_for("world", None))
    path = tmp_path / "words.txt"
    path.write_text("# a list\ncat\n\ndog\ncat\n")
    assert words_for("world", path) == words_for("elsewhere", path) == ["cat", "dog"]
    path.write_text("#\n")
    with pytest.raises(ValueError, match="0 words"):
        words_for("world", path)
    words = words_for("elsewhere", None)
    assert len(words) == len(set(words)) >= 5000
    assert all(word == word.strip().lower() for word in words)
