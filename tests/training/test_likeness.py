"""Intervals and other scores of units: equal to their definitions, dense and sparse alike."""

import numpy as np
import pytest
import torch
from scipy import sparse

from training.evaluation.likeness import chance, held_out_likeness, lift, likeness


def world(n: int = 80) -> tuple[np.ndarray, torch.Tensor]:
    """Two sorts of images; the first unit fires on one sort, the second on any."""
    rng = np.random.default_rng(0)
    sort = rng.integers(0, 2, n)
    vectors = np.eye(4)[sort] + 0.1 * rng.normal(size=(n, 4))
    units = np.c_[rng.random(n) * sort, rng.random(n) * (rng.random(n) < 0.8)]
    return units, torch.from_numpy(vectors)


def test_a_unit_of_one_sort_is_above_chance_and_the_other_is_not():
    units, vectors = world()
    found = likeness(units, vectors, draws=30)
    assert found.scores[0] > 0.9
    assert found.scores[1] == pytest.approx(chance(vectors), abs=0.05)
    assert found.mean == pytest.approx(found.scores.mean())
    same = likeness(sparse.csr_array(units), vectors, draws=30)
    assert same.scores == pytest.approx(found.scores)
    assert same.spread == pytest.approx(found.spread)


def test_a_draw_counts_no_pair_of_an_image_with_itself():
    # orthogonal images: any pair has cosine 0, an image with itself 1
    units = sparse.csr_array(np.random.default_rng(0).random((6, 3)))
    found = likeness(units, torch.eye(6), draws=20)
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.spread == pytest.approx(0, abs=1e-9)


def test_the_spread_is_that_of_fresh_images():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(4000, 3)) + 1
    units = rng.random((4000, 1))
    fresh = [
        likeness(units[i : i + 100], torch.from_numpy(vectors[i : i + 100]), draws=1).mean
        for i in range(0, 4000, 100)
    ]
    spreads = [
        likeness(units[i : i + 100], torch.from_numpy(vectors[i : i + 100]), draws=60).spread
        for i in range(0, 800, 100)
    ]
    assert np.mean(spreads) == pytest.approx(np.std(fresh), rel=0.35)


def test_what_follows_from_likeness_is_told_from_what_does_not():
    units, vectors = world(400)
    assert held_out_likeness(units[:, :1], vectors) > 0.6
    assert abs(held_out_likeness(units[:, 1:], vectors)) < 0.15


def test_lift_counts_only_what_explains():
    units, vectors = world()
    found = likeness(units, vectors, draws=2)
    x = torch.from_numpy(units[:, :1] * np.ones((1, 3)))
    share = (found.scores[0] - found.chance) / (1 - found.chance)
    assert lift(found, sparse.csr_array(units), x) == pytest.approx(share, rel=0.01)
