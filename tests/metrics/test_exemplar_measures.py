"""Measures over exemplars: top images, uniqueness, hierarchy, entropy, clarity."""

import itertools

import numpy as np
import pytest
import torch
from scipy import sparse

from sae.metrics.clarity import clarity
from sae.metrics.entropy import class_entropy, exemplar_entropy
from sae.metrics.exemplars import top_images
from sae.metrics.hierarchy import chance_depth, depth_by_group, inaturalist_path, lca_depth
from sae.metrics.uniqueness import uniqueness

RNG = np.random.default_rng(0)
LATENTS = RNG.exponential(size=(60, 30)) * (RNG.random((60, 30)) < 0.3)


def test_top_images_are_the_strongest_with_ties_in_order():
    latents = np.array([[0.0, 1, -2], [3, 1, 0], [2, 1, -1], [3, 0, 0]])
    found = top_images(latents, 2)
    assert found.images.tolist() == [[1, 3], [0, 1], [-1, -1]]
    assert found.values.tolist() == [[3, 3], [1, 1], [0, 0]]
    assert found.full.tolist() == [True, True, False]
    for form in (sparse.csr_array(latents), torch.from_numpy(latents).to_sparse_coo()):
        assert np.array_equal(top_images(form, 2).images, found.images)


def test_top_images_equal_a_sort():
    found = top_images(LATENTS, 5)
    for latent in range(30):
        order = np.argsort(-LATENTS[:, latent], kind="stable")[:5]
        assert found.images[latent].tolist() == order.tolist()


def test_uniqueness_equals_all_pairs(monkeypatch):
    monkeypatch.setattr("sae.metrics.uniqueness.PAIRS_AT_ONCE", 40)
    ids = top_images(LATENTS, 4).images
    ids[3, 3] = -1
    ids[5], ids[6] = [1, 2, 3, 4], [4, 3, 2, 1]
    found = uniqueness(ids)
    sets = {n: set(row) for n, row in enumerate(ids.tolist()) if min(row) >= 0}
    overlaps = {
        pair: len(sets[pair[0]] & sets[pair[1]]) / len(sets[pair[0]] | sets[pair[1]])
        for pair in itertools.combinations(sets, 2)
    }
    values = np.array(list(overlaps.values()))
    assert (found.n_latents, found.n_excluded, found.n_pairs) == (29, 1, len(values))
    assert found.mean == pytest.approx(values.mean())
    for level in (0, 0.2, 0.5, 0.99):
        assert found.share_above(level) == pytest.approx((values > level).mean())
    for latent in range(30):
        own = [overlap for pair, overlap in overlaps.items() if latent in pair]
        assert found.nearest[latent] == pytest.approx(max(own, default=np.nan), nan_ok=True)


def test_uniqueness_of_nothing_and_of_bad_sets():
    empty = uniqueness(np.full((3, 4), -1))
    assert (empty.n_latents, empty.n_excluded, empty.n_pairs) == (0, 3, 0)
    assert np.isnan(empty.share_above(0))
    with pytest.raises(ValueError, match="twice"):
        uniqueness(np.array([[1, 1]]))


PATHS = [("a", "x", "1"), ("a", "x", "2"), ("a", "y", "1"), ("b", "x"), (), ("a", "x", "1")]


def shared(one: tuple, other: tuple) -> int:
    pairs = itertools.takewhile(lambda p: p[0] == p[1], zip(one, other, strict=False))
    return len(list(pairs))


def test_depth_is_the_mean_number_of_shared_levels():
    ids = np.array([[0, 1, 2], [0, 5, 1], [0, 3, 2], [0, 4, 1], [0, 1, -1], [3, 3, 3]])
    found = lca_depth(ids, PATHS)
    for row, depth in zip(ids[:3], found[:3], strict=True):
        pairs = [shared(PATHS[i], PATHS[j]) for i, j in itertools.combinations(row, 2)]
        assert depth == pytest.approx(np.mean(pairs))
    assert np.isnan(found[3:5]).all()
    assert found[5] == 2
    pairs = itertools.combinations([p for p in PATHS if p], 2)
    assert chance_depth(PATHS) == pytest.approx(np.mean([shared(*pair) for pair in pairs]))


def test_depth_by_group_leaves_out_what_has_no_depth():
    first, second = depth_by_group(np.array([1.0, 2.4, np.nan, np.nan, np.nan]), (3, 2))
    assert (first.n_latents, first.n_excluded) == (2, 1)
    assert first.mean == pytest.approx(1.7)
    assert first.mean_rounded == 1.5
    assert second.n_latents == 0
    assert np.isnan(second.mean)
    with pytest.raises(ValueError, match="sum to 4"):
        depth_by_group(np.zeros(5), (2, 2))


def test_inaturalist_folders():
    name = "03111_Animalia_Chordata_Aves_Accipitriformes_Accipitridae_Aquila_chrysaetos"
    assert inaturalist_path(name)[0] == "Animalia"
    assert len(inaturalist_path(name)) == 7
    with pytest.raises(ValueError, match="not an iNaturalist"):
        inaturalist_path("cats")


def test_entropy_of_exemplars():
    labels = np.array([[0, 0, 0], [0, 1, 2], [0, 0, 1], [0, 1, -1], [-1, -1, -1]])
    values = np.array([[1, 2, 3], [2, 2, 2], [2, 1, 1], [1, 1, 5], [0, 0, 0]], float)
    found = exemplar_entropy(labels, values)
    share = np.array([0.75, 0.25])
    expected = [0, np.log(3), -(share * np.log(share)).sum(), np.nan, np.nan]
    assert found == pytest.approx(np.array(expected), nan_ok=True)
    assert exemplar_entropy(labels, values, min_images=2)[3] == pytest.approx(np.log(2))


def test_entropy_over_all_images():
    labels = RNG.integers(-1, 4, 60)
    found = class_entropy(sparse.csr_array(LATENTS), labels)
    mass = np.stack([LATENTS[labels == c].sum(0) for c in range(4)])
    p = mass / mass.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = -np.nansum(p * np.log(p), axis=0)
    assert found == pytest.approx(expected)
    assert np.isnan(class_entropy(np.zeros((2, 1)), np.array([0, 1]))).all()


def test_clarity_is_the_mean_cosine_of_pairs():
    embeddings = RNG.normal(size=(60, 7)) + 0.5
    ids = np.array([[0, 1, 2, 3], [4, 5, -1, -1], [6, -1, -1, -1], [7, 7, 7, 7]])
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = units @ units.T
    mean = np.mean([cosines[i, j] for i, j in itertools.combinations(range(4), 2)])
    assert clarity(ids, embeddings) == pytest.approx(
        np.array([mean, cosines[4, 5], np.nan, 1]), nan_ok=True
    )
    assert np.isnan(clarity(ids, embeddings, min_images=3)[1])


def test_exemplars_of_another_data_set_are_named():
    with pytest.raises(ValueError, match="another data set"):
        clarity(np.array([[0, 9]]), np.ones((3, 2)))
    with pytest.raises(ValueError, match="another data set"):
        lca_depth(np.array([[0, 9]]), PATHS)
