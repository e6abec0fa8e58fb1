"""Best units of known factors, localisation, probing and baselines, against what they mean."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sae.metrics.auroc import auroc
from sae.metrics.baselines import ica, neurons, pca
from sae.metrics.localization import localize
from sae.metrics.probing import sparse_probing, split
from sae.metrics.truth import GOOD, score_factors

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("negative", [False, True])
def test_sparse_auroc_equals_dense(negative):
    scores = RNG.normal(size=(200, 9)).round(1) * (RNG.random((200, 9)) < 0.2)
    scores = scores if negative else np.abs(scores)
    scores[:, 3] = 0
    scores[:, 4] += 20
    labels = RNG.random((200, 4)) < 0.3
    labels[:, 3] = True
    expected = auroc(scores, labels)
    for form in (sparse.csr_array, sparse.csc_array, sparse.coo_array):
        found = auroc(form(scores), sparse.csr_array(labels))
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(expected[:, 3]).all()
    assert (expected[3, :3] == 0.5).all()


def test_numbers_without_rank_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        auroc(np.array([[np.nan], [1]]), np.array([[True], [False]]))


def halves(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Units of which 0 and 1 follow factor 0, 2 is minus factor 1, and the rest is noise."""
    labels = RNG.random((n, 3)) < (0.3, 0.5, 0.0)
    units = RNG.normal(size=(n, 6))
    units[:, 0] += 6 * labels[:, 0]
    units[:, 1] += 3 * labels[:, 0]
    units[:, 2] -= 6 * labels[:, 1]
    return units, labels


def test_best_units_of_factors():
    found = score_factors(halves(), halves(), signed=True)
    assert found.unit.tolist() == [0, 6 + 2, -1]
    assert (found.auroc[:2] > 0.99).all()
    assert (found.f1[:2] > 0.95).all()
    assert found.n_good.tolist() == [2, 1, 0]
    assert np.isnan(found.auroc[2])
    assert np.isnan(found.f1[2])
    assert found.completeness() == 1
    assert found.redundancy() == 1.5
    assert found.distinct() == 1
    unsigned = score_factors(halves(), halves())
    assert unsigned.completeness() == 0.5
    assert unsigned.auroc[1] < GOOD


def test_sparse_units_score_like_dense_ones():
    (units, labels), (more, others) = halves(), halves()
    units, more = np.maximum(units - 1, 0), np.maximum(more - 1, 0)
    dense = score_factors((units, labels), (more, others))
    found = score_factors(
        (sparse.csr_array(units), sparse.csc_array(labels)),
        (sparse.csr_array(more), sparse.csr_array(others)),
    )
    assert found.unit.tolist() == dense.unit.tolist()
    assert found.auroc == pytest.approx(dense.auroc, nan_ok=True)
    assert found.f1[0] == pytest.approx(dense.f1[0])
    assert found.threshold[0] == pytest.approx(dense.threshold[0])


def test_the_threshold_has_the_largest_f1():
    units = RNG.normal(size=(300, 1))
    labels = units[:, :1] + RNG.normal(size=(300, 1)) > 0.5
    found = score_factors((units, labels), (units, labels))
    best = max(
        2 * (labels[:, 0] & (units[:, 0] >= t)).sum() / ((units[:, 0] >= t).sum() + labels.sum())
        for t in units[:, 0]
    )
    assert found.f1[0] == pytest.approx(best)


def test_many_units_of_noise_earn_nothing_on_the_other_half():
    noise = [(RNG.normal(size=(60, 3000)), RNG.random((60, 5)) < 0.3) for _ in range(2)]
    found = score_factors(*noise)
    same = score_factors(noise[0], noise[0])
    assert same.auroc.min() > 0.75
    assert abs(found.auroc.mean() - 0.5) < 0.12


@pytest.mark.usefixtures("wrong_shapes")
def test_halves_that_differ_are_named():
    with pytest.raises(ValueError, match="the halves have"):
        score_factors(halves(), (np.ones((5, 2)), np.ones((5, 3), bool)))
    with pytest.raises(ValueError, match="must be dense"):
        score_factors(
            *[(sparse.csr_array(np.ones((2, 2))), np.ones((2, 2), bool))] * 2, signed=True
        )


def test_localisation_against_pixels():
    maps = np.zeros((4, 3, 3))
    maps[0, 0, 0], maps[0, 0, 1] = 2, 1
    maps[1, 2, 2] = 1
    maps[3, 1, 1] = 1
    masks = np.zeros((4, 12, 12), bool)
    masks[0, :4, :6] = True
    masks[1, 0, 0] = True
    masks[2, :4, :4] = True
    masks[3, 4, 4] = True
    found = localize(maps, masks, 0.5)
    assert found.hit.tolist() == [True, False, False, False]
    assert found.pointing.tolist() == [True, False, False, False]
    lit = np.kron(maps >= 0.5, np.ones((1, 4, 4), bool)) > 0
    expected = (lit & masks).sum((1, 2)) / (lit | masks).sum((1, 2))
    assert found.iou == pytest.approx(expected)
    assert localize(maps, masks, np.full(4, 1.5)).iou[0] == pytest.approx(16 / 24)
    assert localize(maps, masks, 0.5, tolerance=3).pointing.tolist() == [True, False, False, True]


def test_localisation_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not divide"):
        localize(np.ones((1, 5, 5)), np.ones((1, 12, 12), bool), 0)
    with pytest.raises(ValueError, match="no pixel"):
        localize(np.ones((1, 3, 3)), np.zeros((1, 12, 12), bool), 0)


def test_splits_keep_every_class_on_both_sides():
    labels = np.repeat(np.arange(5), [40, 2, 3, 8, 1])
    train = split(labels, 0)
    for label in range(4):
        assert 0 < train[labels == label].sum() < (labels == label).sum()
    assert train[labels == 4].all()
    assert split(RNG.random((100, 3)) < 0.5, 0).sum() == 75


@pytest.mark.parametrize("as_sparse", [False, True])
def test_probing_finds_the_telling_units(as_sparse):
    labels = RNG.integers(0, 3, 400)
    units = RNG.random((400, 50)) * (RNG.random((400, 50)) < 0.4)
    units[:, 7] += 2.0 * (labels == 0)
    units[:, 8] += 2.0 * (labels == 1) * (RNG.random(400) < 0.5)
    units[:, 9] += 2.0 * (labels == 1) * (units[:, 8] < 1)
    found = sparse_probing(sparse.csr_array(units) if as_sparse else units, labels, ks=(1, 2, 9))
    assert found.units[0, 0] == 7
    assert set(found.units[1, :2].tolist()) == {8, 9}
    assert found.f1[0, 0] > 0.98
    assert found.f1[1, 1] > found.f1[0, 1] + 0.1
    means = found.means()
    assert list(means) == [1, 2, 9]
    assert means[2][0] > 0.75


def test_probing_ranks_on_training_images_only():
    labels = (RNG.random((80, 1)) < 0.5).astype(bool)
    units = RNG.normal(size=(80, 4000))
    train = np.arange(80) < 60
    units[~train, 11] = 50.0 * labels[~train, 0]  # tells everything, but among test images alone
    units[train, 11] = 0
    found = sparse_probing(units, labels, ks=(5,), train=train)
    assert 11 not in found.units[0]
    assert found.auroc[0, 0] < 0.85


def test_linear_baselines():
    x = torch.from_numpy(RNG.laplace(size=(2000, 4))).float() @ torch.tensor(
        [[1.0, 2, 0, 0], [0, 1, 0, 1], [0, 0, 3, 0], [1, 0, 0, 1]]
    )
    assert torch.equal(neurons(4)(x), x)
    parts = pca(x)
    found = parts(x)
    covariance = torch.cov(found.T)
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-3)
    assert (covariance.diag().diff() <= 0).all()
    again = torch.linalg.solve(parts.directions, found.T).T + parts.centre
    assert torch.allclose(again, x, atol=1e-4)
    independent = ica(x)
    assert independent.converged
    unmixed = independent(x)
    assert unmixed.mean(0).abs().max() < 1e-4
    source = torch.linalg.solve(
        torch.tensor([[1.0, 2, 0, 0], [0, 1, 0, 1], [0, 0, 3, 0], [1, 0, 0, 1]]).T, x.T
    )
    agreement = torch.corrcoef(torch.cat([unmixed.T, source]))[:4, 4:].abs()
    assert (agreement.amax(1) > 0.98).all()
    with pytest.raises(ValueError, match="more tokens"):
        pca(torch.ones(3, 4))
